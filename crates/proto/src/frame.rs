//! Length-delimited frames: an unsigned LEB128 length, as protobuf writes it, then that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// The longest frame on the control stream, in bytes.
pub const MAX_CONTROL_FRAME: usize = 64 * 1024;
/// The longest frame at the head of a stream, in bytes.
pub const MAX_HEADER_FRAME: usize = 4 * 1024;
/// A length that is within any limit has at most this many digits of seven bits.
const MAX_LENGTH_BYTES: usize = 4;

/// The peer sent what cannot be a frame; nothing after it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than its place allows.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// What the frame claims.
        length: u64,
        /// What is allowed.
        limit: usize,
    },
    /// The length has more digits than any length that is allowed.
    #[error("a frame's length does not end")]
    EndlessLength,
}

/// Cuts a byte stream into frames. Holds at most one frame beyond what was pushed last.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `limit` bytes before it makes room for them.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Takes what arrived next. Call [`Self::next_frame`] until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes have come.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((length, digits)) = read_length(&self.buffer, self.limit)? else {
            return Ok(None);
        };
        if self.buffer.len() < digits + length {
            return Ok(None);
        }
        self.buffer.advance(digits);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// What was pushed and belongs to no frame that was taken.
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

/// The length at the head of `bytes` and how many bytes it takes; `None` if it is not all there yet.
fn read_length(bytes: &[u8], limit: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(MAX_LENGTH_BYTES + 1) {
        if i == MAX_LENGTH_BYTES {
            return Err(FrameError::EndlessLength);
        }
        length |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return match usize::try_from(length) {
                Ok(fits) if fits <= limit => Ok(Some((fits, i + 1))),
                _ => Err(FrameError::TooLong { length, limit }),
            };
        }
    }
    Ok(None)
}

/// Encodes a message as a frame.
pub(crate) fn encode(message: &impl prost::Message) -> Bytes {
    message.encode_length_delimited_to_vec().into()
}

/// Reads the one frame at the head of a stream and keeps the data behind it.
#[derive(Debug)]
pub struct Prelude(FrameReader);

impl Default for Prelude {
    fn default() -> Self {
        Self(FrameReader::new(MAX_HEADER_FRAME))
    }
}

impl Prelude {
    /// Takes what arrived next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    /// Once the frame is whole: the frame, and the first data of the stream. Else the prelude back, to push more.
    pub fn split(mut self) -> Result<Result<(Bytes, Bytes), Self>, FrameError> {
        Ok(match self.0.next_frame()? {
            Some(frame) => Ok((frame, self.0.into_rest())),
            None => Err(self),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// B1
    #[test]
    fn a_frame_of_four_gigabytes_is_refused_before_room_is_made() {
        for claim in [u64::from(u32::MAX), MAX_CONTROL_FRAME as u64 + 1] {
            let mut reader = FrameReader::new(MAX_CONTROL_FRAME);
            let mut length = Vec::new();
            prost::encode_length_delimiter(usize::try_from(claim).unwrap(), &mut length).unwrap();
            reader.push(&length);
            assert!(reader.next_frame().is_err(), "{claim}");
            assert!(reader.buffer.capacity() < 4096);
        }
    }

    #[test]
    fn a_length_that_does_not_end_is_refused() {
        let mut reader = FrameReader::new(MAX_CONTROL_FRAME);
        reader.push(&[0x80; 4]);
        assert_eq!(reader.next_frame(), Ok(None));
        reader.push(&[0x80]);
        assert_eq!(reader.next_frame(), Err(FrameError::EndlessLength));
    }

    proptest! {
        /// B2
        #[test]
        fn frames_come_out_whole_however_they_were_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            piece in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for frame in &frames {
                prost::encode_length_delimiter(frame.len(), &mut wire).unwrap();
                wire.extend_from_slice(frame);
            }
            let mut reader = FrameReader::new(300);
            let mut read = Vec::new();
            for chunk in wire.chunks(piece) {
                reader.push(chunk);
                while let Some(frame) = reader.next_frame().unwrap() {
                    read.push(frame.to_vec());
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(reader.into_rest().is_empty());
        }
    }
}
