//! The side that has bodies to send.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame;
use super::message::{BASE, Content, Message, Method};
use super::model::{Field, Next};
use super::plan::Plan;
use super::range::Writer;
use super::snapshot::{Known, Layout, Snapshot, follow};
use super::text::Place;
use super::{BaseId, Limits, varint};

/// A body is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is longer than the limit; send it as it is, by other means.
    #[error("a body of {length} bytes is longer than {limit}")]
    TooLarge {
        /// Of the body, in bytes.
        length: usize,
        /// The longest, in bytes.
        limit: usize,
    },
}

/// Says the bodies of one target, each by the last that the decoder has.
#[derive(Debug)]
pub struct Encoder {
    limits: Limits,
    /// Latest last.
    sent: VecDeque<Arc<Snapshot>>,
}

impl Encoder {
    /// Has sent nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sent: VecDeque::new(),
        }
    }

    /// Says a body to a decoder that has `base`.
    ///
    /// # Errors
    ///
    /// A body that is too long is not said.
    pub fn encode(&mut self, body: &[u8], base: Option<BaseId>) -> Result<Vec<u8>, EncodeError> {
        if body.len() > self.limits.max_body {
            return Err(EncodeError::TooLarge {
                length: body.len(),
                limit: self.limits.max_body,
            });
        }
        let base = base.and_then(|id| self.sent.iter().rev().find(|sent| sent.id == id).map(Arc::clone));
        let (message, snapshot) = say(body, base.as_deref(), self.limits.max_body);
        self.keep(snapshot);
        Ok(message)
    }

    /// The bytes that are held between two bodies.
    pub fn memory(&self) -> usize {
        self.sent.iter().map(|sent| sent.memory()).sum()
    }

    fn keep(&mut self, snapshot: Snapshot) {
        self.sent.retain(|sent| sent.id != snapshot.id);
        while self.sent.len() >= self.limits.history.max(1) {
            self.sent.pop_front();
        }
        self.sent.push_back(Arc::new(snapshot));
    }
}

/// The shortest message that reads back as the body.
fn say(body: &[u8], base: Option<&Snapshot>, max_body: usize) -> (Vec<u8>, Snapshot) {
    let mut drafts = Vec::new();
    if let Some(base) = base {
        drafts.extend(by_lines(body, base));
        drafts.extend(by_zstd(Method::Prefix, body, Some(base)));
    }
    if drafts.iter().all(|(_, rest)| rest.len() * 4 > body.len()) {
        drafts.extend(by_zstd(Method::Zstd, body, None));
    }
    // Stable, so that of equals it is the one that keeps what is known.
    drafts.sort_by_key(|(_, rest)| rest.len());
    for (method, rest) in drafts.iter().filter(|(_, rest)| rest.len() + BASE < body.len()) {
        let content = Content { method: *method, rest };
        if let Ok(snapshot) = content.apply(base, max_body)
            && snapshot.body == body
        {
            return (Message::write(content, snapshot.id, base.map(|base| base.id)), snapshot);
        }
    }
    let snapshot = Snapshot::fresh(body.to_vec());
    let content = Content {
        method: Method::Raw,
        rest: body,
    };
    (Message::write(content, snapshot.id, None), snapshot)
}

fn by_zstd(method: Method, body: &[u8], base: Option<&Snapshot>) -> Option<(Method, Vec<u8>)> {
    let frame = frame::compress(body, base.map(|base| &*base.body))?;
    let mut rest = Vec::with_capacity(5 + frame.len());
    varint::put(&mut rest, body.len());
    rest.extend_from_slice(&frame);
    Some((method, rest))
}

fn by_lines(body: &[u8], base: &Snapshot) -> Option<(Method, Vec<u8>)> {
    let known = base.known.as_ref()?;
    let layout = Layout::of(body)?;
    if Plan::is_same(&base.body, known, body, &layout) {
        let rest = numbers(body, &layout, base, known, &Plan::same(known.lines.len()))?;
        return Some((Method::Numbers, rest));
    }
    let (segments, inserted) = Plan::find(&base.body, known, body, &layout);
    let plan = Plan::encode(&segments, &inserted);
    let packed = frame::compress(&plan, Some(&base.body)).filter(|packed| packed.len() < plan.len());
    let packed = packed.as_ref().unwrap_or(&plan);
    let mut rest = Vec::new();
    varint::put(&mut rest, packed.len());
    varint::put(&mut rest, plan.len());
    rest.extend_from_slice(packed);
    let plan = Plan {
        segments,
        inserted: &inserted,
    };
    rest.extend(numbers(body, &layout, base, known, &plan)?);
    Some((Method::Lines, rest))
}

/// The numbers of the lines that are copied.
fn numbers(body: &[u8], layout: &Layout, base: &Snapshot, known: &Known, plan: &Plan<'_>) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    let mut texts = coded(plan, layout);
    let say = |field: &Field, was: &[u8]| {
        let text = texts.next().map_or(&[][..], |place| &body[place.range()]);
        Next::of(field, was, text)
    };
    follow(&base.body, known, plan, &mut writer, say, body.len()).ok()?;
    Some(writer.finish())
}

/// The fields of the lines that are copied.
fn coded<'a>(plan: &'a Plan<'_>, layout: &'a Layout) -> impl Iterator<Item = Place> + 'a {
    let copied = plan
        .segments
        .iter()
        .flat_map(|segment| std::iter::repeat_n(true, segment.copied).chain(std::iter::repeat_n(false, segment.new)));
    copied.enumerate().filter(|(_, copied)| *copied).flat_map(|(line, _)| {
        let start = layout.lines[line].field as usize;
        let end = layout
            .lines
            .get(line + 1)
            .map_or(layout.places.len(), |l| l.field as usize);
        layout.places[start..end].iter().copied()
    })
}
