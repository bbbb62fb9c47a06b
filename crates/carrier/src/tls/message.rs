//! What the two ends of a connection tell each other beside the streams: what QUIC has frames for and yamux has not.
//!
//! Each side's first stream carries nothing else. A message is its kind in one byte, the length of its body in two, and
//! the body; all numbers are big-endian. Kinds that are not known are skipped.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tunnel_model::{Reason, Refusal};

/// The longest body, in bytes.
const MAX_LENGTH: usize = 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The peer may have this many more streams open.
    Credit(u32),
    /// The direction of the stream that comes from the sender of this is void.
    Reset(u32, Reason),
    /// The sender of this reads no more of the stream.
    Stop(u32, Reason),
    /// The connection ends here.
    Goodbye(Refusal),
}

/// The peer broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent a carrier message that cannot be read")]
pub(super) struct Malformed;

const CREDIT: u8 = 1;
const RESET: u8 = 2;
const STOP: u8 = 3;
const GOODBYE: u8 = 4;

impl Message {
    pub(super) fn encode(&self, into: &mut BytesMut) {
        let start = into.len();
        into.put_bytes(0, 3);
        let kind = match self {
            Self::Credit(streams) => {
                into.put_u32(*streams);
                CREDIT
            }
            Self::Reset(stream, reason) => {
                into.put_u32(*stream);
                into.put_u32(*reason as u32);
                RESET
            }
            Self::Stop(stream, reason) => {
                into.put_u32(*stream);
                into.put_u32(*reason as u32);
                STOP
            }
            Self::Goodbye(refusal) => {
                into.put_u32(refusal.reason as u32);
                into.put_slice(refusal.message.as_bytes());
                GOODBYE
            }
        };
        // A refusal's message is bounded, so all bodies are.
        let length = u16::try_from(into.len() - start - 3).unwrap_or(u16::MAX);
        into[start] = kind;
        into[start + 1..start + 3].copy_from_slice(&length.to_be_bytes());
    }

    fn decode(kind: u8, mut body: Bytes) -> Result<Option<Self>, Malformed> {
        let mut number = || body.try_get_u32().map_err(|_| Malformed);
        let message = match kind {
            CREDIT => Self::Credit(number()?),
            RESET => Self::Reset(number()?, Reason::from_wire(number()?)),
            STOP => Self::Stop(number()?, Reason::from_wire(number()?)),
            GOODBYE => {
                let reason = Reason::from_wire(number()?);
                Self::Goodbye(Refusal::new(reason, String::from_utf8_lossy(&body)))
            }
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

/// Takes messages out of what arrives. Holds one unfinished message at most, and what was pushed last.
#[derive(Debug, Default)]
pub(super) struct Reader(BytesMut);

impl Reader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message that is whole.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, Malformed> {
        while let [kind, high, low, rest @ ..] = &self.0[..] {
            let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
            if length > MAX_LENGTH {
                return Err(Malformed);
            }
            if rest.len() < length {
                return Ok(None);
            }
            self.0.advance(3);
            let body = self.0.split_to(length).freeze();
            if let Some(message) = Message::decode(kind, body)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Message; 4] {
        [
            Message::Credit(56),
            Message::Reset(7, Reason::TargetReset),
            Message::Stop(9, Reason::Cancelled),
            Message::Goodbye(Refusal::new(Reason::Revoked, "ü".repeat(300))),
        ]
    }

    #[test]
    fn messages_come_out_as_they_went_in_however_they_were_cut() {
        let mut bytes = BytesMut::new();
        all().iter().for_each(|message| message.encode(&mut bytes));
        for size in 1..40 {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            for part in bytes.chunks(size) {
                reader.push(part);
                while let Some(message) = reader.next_message().unwrap() {
                    read.push(message);
                }
            }
            assert_eq!(read, all());
        }
    }

    #[test]
    fn b4_a_kind_of_a_later_version_is_skipped() {
        let mut bytes = BytesMut::from(&[200, 0, 2, 1, 2][..]);
        Message::Credit(1).encode(&mut bytes);
        let mut reader = Reader::default();
        reader.push(&bytes);
        assert_eq!(reader.next_message(), Ok(Some(Message::Credit(1))));
    }

    #[test]
    fn b1_b2_a_message_that_is_too_long_or_too_short_is_refused() {
        for bytes in [&[1, 4, 1][..], &[1, 0, 3, 0, 0, 0], &[2, 0, 4, 0, 0, 0, 1], &[4, 0, 0]] {
            let mut reader = Reader::default();
            reader.push(bytes);
            assert_eq!(reader.next_message(), Err(Malformed), "{bytes:?}");
        }
    }
}
