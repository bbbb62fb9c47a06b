//! Messages of a stream of scrapes, as docs/reference/encodings.md describes them.

use bytes::{Buf, Bytes, BytesMut};
use tunnel_codec::scrape::BaseId;
use tunnel_model::Refusal;

use super::{
    MAX_BODY,
    head::{Head, MAX_HEAD},
};
use crate::violation;

/// A head follows.
const HEAD: u8 = 1;
/// Of an ask: the id of a base follows.
const BASE: u8 = 2;
/// Of an answer: the date is another than in the head before.
const DATE: u8 = 2;
/// All that follows is the stream itself.
pub(crate) const RAW: u8 = 4;

/// The longest message of the codec, in bytes: a raw body and its header.
const MAX_MESSAGE: usize = MAX_BODY + 16;

/// From the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Scrape { head: Bytes, base: Option<BaseId> },
    Raw,
}

/// From the edge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// And how long the message of the codec is that follows.
    Scrape {
        head: Head,
        message: usize,
    },
    Raw,
}

impl Ask {
    /// An ask as it is sent, where `last` was asked before.
    pub(crate) fn write(head: &Bytes, base: Option<BaseId>, last: &mut Option<Bytes>) -> Vec<u8> {
        let mut out = vec![0];
        if last.as_ref() != Some(head) {
            out[0] |= HEAD;
            put(&mut out, head.len() as u64);
            out.extend_from_slice(head);
            *last = Some(head.clone());
        }
        if let Some(base) = base {
            out[0] |= BASE;
            out.extend_from_slice(&base.to_bytes());
        }
        out
    }

    /// Takes an ask from what has arrived, if it is whole.
    pub(crate) fn read(from: &mut BytesMut, last: &mut Option<Bytes>) -> Result<Option<Self>, Refusal> {
        let mut rest = &from[..];
        let Some(kind) = byte(&mut rest) else { return Ok(None) };
        if kind == RAW {
            from.advance(1);
            return Ok(Some(Self::Raw));
        }
        if kind > HEAD | BASE {
            return Err(violation("an ask of no kind"));
        }
        let head = if kind & HEAD == 0 {
            last.clone().ok_or_else(|| violation("an ask without a head"))?
        } else {
            match sized(&mut rest, MAX_HEAD)? {
                Some(head) => Bytes::copy_from_slice(head),
                None => return Ok(None),
            }
        };
        let base = if kind & BASE == 0 {
            None
        } else {
            let Some((id, after)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            rest = after;
            Some(BaseId::from_bytes(*id))
        };
        let read = from.len() - rest.len();
        from.advance(read);
        *last = Some(head.clone());
        Ok(Some(Self::Scrape { head, base }))
    }
}

impl Answer {
    /// An answer as it is sent, where `last` was the head of the one before.
    pub(crate) fn write(head: &Head, message: &[u8], last: &mut Option<Head>) -> Vec<u8> {
        let mut out = vec![0];
        match last.as_ref().and_then(|last| head.later_than(last)) {
            Some(0) => {}
            Some(later) => {
                out[0] = DATE;
                put(&mut out, zigzag(later));
            }
            None => {
                let text = head.text();
                out[0] = HEAD;
                put(&mut out, text.len() as u64);
                out.extend_from_slice(&text);
            }
        }
        put(&mut out, message.len() as u64);
        out.extend_from_slice(message);
        *last = Some(head.clone());
        out
    }

    /// Takes an answer up to its message from what has arrived, if it is there.
    pub(crate) fn read(from: &mut BytesMut, last: &mut Option<Head>) -> Result<Option<Self>, Refusal> {
        let mut rest = &from[..];
        let Some(kind) = byte(&mut rest) else { return Ok(None) };
        let no_head = || violation("an answer without a head");
        let head = match kind {
            RAW => {
                from.advance(1);
                return Ok(Some(Self::Raw));
            }
            HEAD => match sized(&mut rest, MAX_HEAD)? {
                Some(text) => Head::from_text(text).map_err(|_| violation("an answer with a bad head"))?,
                None => return Ok(None),
            },
            DATE => match varint(&mut rest)? {
                Some(later) => {
                    let later = last.as_ref().ok_or_else(no_head)?.at(unzigzag(later));
                    later.ok_or_else(|| violation("an answer of no time"))?
                }
                None => return Ok(None),
            },
            0 => last.clone().ok_or_else(no_head)?,
            _ => return Err(violation("an answer of no kind")),
        };
        let Some(message) = varint(&mut rest)? else {
            return Ok(None);
        };
        let message = usize::try_from(message).unwrap_or(usize::MAX);
        if message > MAX_MESSAGE {
            return Err(violation("an answer that is too long"));
        }
        let read = from.len() - rest.len();
        from.advance(read);
        *last = Some(head.clone());
        Ok(Some(Self::Scrape { head, message }))
    }
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    Some(first)
}

/// So many bytes behind their number.
fn sized<'a>(rest: &mut &'a [u8], max: usize) -> Result<Option<&'a [u8]>, Refusal> {
    let Some(length) = varint(rest)? else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > max {
        return Err(violation("a head that is too long"));
    }
    let Some((taken, after)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    *rest = after;
    Ok(Some(taken))
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn varint(rest: &mut &[u8]) -> Result<Option<u64>, Refusal> {
    let mut value = 0;
    for (at, &byte) in rest.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return if value < 1 << 32 {
                Ok(Some(value))
            } else {
                Err(violation("a number that is too large"))
            };
        }
    }
    if rest.len() < 5 {
        Ok(None)
    } else {
        Err(violation("a number that is too long"))
    }
}

/// Signed as unsigned: small on both sides of 0.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
