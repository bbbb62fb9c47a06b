//! A message: how a body follows from another, or stands by itself.

use super::frame;
use super::model::Next;
use super::plan::Plan;
use super::range::Reader;
use super::snapshot::{Snapshot, follow};
use super::varint;
use super::{BaseId, Corrupt};

/// How often larger than its message a body may be that stands by itself.
pub(super) const MAX_RATIO: usize = 500;

/// How often larger than its base a body may be.
pub(super) const MAX_GROWTH: usize = 4;

/// The length of a base's id in a message, in bytes.
pub(super) const BASE: usize = 4;

/// How a message says a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Method {
    /// As it is.
    Raw = 0,
    /// By zstd alone.
    Zstd = 1,
    /// By zstd, with the base as prefix.
    Prefix = 2,
    /// The lines of the base, with other numbers.
    Numbers = 3,
    /// Some lines of the base, with other numbers, and new lines.
    Lines = 4,
}

impl Method {
    const ALL: [Self; 5] = [Self::Raw, Self::Zstd, Self::Prefix, Self::Numbers, Self::Lines];

    fn has_base(self) -> bool {
        !matches!(self, Self::Raw | Self::Zstd)
    }
}

/// A message taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// The beginning of the id of the body.
    pub(super) check: [u8; 4],
    /// The beginning of the id of its base, if it needs one.
    pub(super) base: Option<[u8; 4]>,
    pub(super) content: Content<'a>,
}

/// What a message has behind its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    pub(super) method: Method,
    pub(super) rest: &'a [u8],
}

impl<'a> Message<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let (&method, bytes) = bytes.split_first().ok_or(Corrupt::Header)?;
        let method = *Method::ALL.get(usize::from(method)).ok_or(Corrupt::Method)?;
        let (&check, mut rest) = bytes.split_first_chunk().ok_or(Corrupt::Header)?;
        let mut base = None;
        if method.has_base() {
            let (&short, behind) = rest.split_first_chunk().ok_or(Corrupt::Header)?;
            (base, rest) = (Some(short), behind);
        }
        Ok(Self {
            check,
            base,
            content: Content { method, rest },
        })
    }

    /// A message that says the body of this id.
    pub(super) fn write(content: Content<'_>, id: BaseId, base: Option<BaseId>) -> Vec<u8> {
        let mut out = vec![content.method as u8];
        out.extend_from_slice(&id.short());
        if let Some(base) = base.filter(|_| content.method.has_base()) {
            out.extend_from_slice(&base.short());
        }
        out.extend_from_slice(content.rest);
        out
    }
}

impl Content<'_> {
    /// The body that it says, and what is then known of it.
    pub(super) fn apply(&self, base: Option<&Snapshot>, max_body: usize) -> Result<Snapshot, Corrupt> {
        let base = if self.method.has_base() {
            Some(base.ok_or(Corrupt::Fields)?)
        } else {
            None
        };
        let allowed = self.rest.len().saturating_mul(MAX_RATIO);
        let allowed = allowed.saturating_add(base.map_or(0, |base| base.body.len().saturating_mul(MAX_GROWTH)));
        let max_body = max_body.min(allowed);
        match (self.method, base) {
            (Method::Numbers, Some(base)) => {
                let known = base.known.as_ref().ok_or(Corrupt::Fields)?;
                self.follow(base, &Plan::same(known.lines.len()), self.rest, max_body)
            }
            (Method::Lines, Some(base)) => {
                let known = base.known.as_ref().ok_or(Corrupt::Fields)?;
                let mut rest = self.rest;
                let packed = varint::take(&mut rest).ok_or(Corrupt::Plan)?;
                let length = varint::take(&mut rest).ok_or(Corrupt::Plan)?;
                let (packed, numbers) = rest.split_at_checked(packed).ok_or(Corrupt::Plan)?;
                if length > max_body {
                    return Err(Corrupt::TooLarge);
                }
                let unpacked;
                let plan = if length == packed.len() {
                    packed
                } else {
                    unpacked = frame::decompress(packed, Some(&base.body), length)?;
                    &unpacked
                };
                self.follow(base, &Plan::decode(plan, known.lines.len())?, numbers, max_body)
            }
            (Method::Raw, _) if self.rest.len() > max_body => Err(Corrupt::TooLarge),
            (Method::Raw, _) => Ok(Snapshot::fresh(self.rest.to_vec())),
            (_, base) => {
                let mut rest = self.rest;
                let length = varint::take(&mut rest).ok_or(Corrupt::Header)?;
                if length > max_body {
                    return Err(Corrupt::TooLarge);
                }
                frame::decompress(rest, base.map(|base| &*base.body), length).map(Snapshot::fresh)
            }
        }
    }

    fn follow(&self, base: &Snapshot, plan: &Plan<'_>, numbers: &[u8], max_body: usize) -> Result<Snapshot, Corrupt> {
        let known = base.known.as_ref().ok_or(Corrupt::Fields)?;
        let mut reader = Reader::new(numbers);
        let (body, known) = follow(&base.body, known, plan, &mut reader, |_, _| Next::Same, max_body)?;
        Ok(Snapshot {
            id: BaseId::of(Some(base.id), &body),
            body: body.into(),
            known: Some(known),
        })
    }
}
