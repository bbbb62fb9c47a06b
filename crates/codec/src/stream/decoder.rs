//! The receiving end.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{HEADER, MAX_BLOCK, MAX_PAYLOAD, MAX_RATIO, WINDOW_LOG, ZSTD};

/// The sender broke the rules, or the bytes did not arrive as they were sent. There is nothing behind it: reset the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header says a kind or a length that no block has.
    #[error("a block has no valid header")]
    Header,
    /// A block would become longer than a block may be, or than its length allows.
    #[error("a block is larger than allowed, or compressed by more than {MAX_RATIO} to 1")]
    TooLarge,
    /// The zstd frame wants a larger window than this end keeps.
    #[error("the window of a zstd frame is larger than allowed")]
    Window,
    /// What should be a piece of a zstd frame is none.
    #[error("a zstd block is corrupt")]
    Zstd,
    /// The stream ended within a block.
    #[error("the stream ends within a block")]
    Truncated,
}

/// Reads the blocks of a stream.
#[derive(Default)]
pub struct Decoder {
    context: Option<DCtx<'static>>,
    input: BytesMut,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// Takes what arrived next. Call [`Self::next_block`] until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.input.extend_from_slice(bytes);
        }
    }

    /// What the next whole block holds, which is never empty, or `None` until more bytes have come.
    ///
    /// # Errors
    ///
    /// From the first error on, always the same.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read_block().inspect_err(|error| {
            self.failed = Some(*error);
            self.input = BytesMut::new();
            self.context = None;
        })
    }

    /// Says that the stream has ended.
    ///
    /// # Errors
    ///
    /// If it ended within a block, or was broken before.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.input.is_empty() => Ok(()),
            None => Err(DecodeError::Truncated),
        }
    }

    /// The bytes that this end holds.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.input.capacity() + self.context.as_ref().map_or(0, DCtx::sizeof)
    }

    fn read_block(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(header) = self.input.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let is_zstd = header & ZSTD != 0;
        let length = (header & !ZSTD) as usize;
        let longest = if is_zstd { MAX_PAYLOAD } else { MAX_BLOCK };
        if length == 0 || length > longest {
            return Err(DecodeError::Header);
        }
        if self.input.len() < HEADER + length {
            return Ok(None);
        }
        self.input.advance(HEADER);
        let payload = self.input.split_to(length).freeze();
        if is_zstd {
            self.decompress(&payload).map(Some)
        } else {
            Ok(Some(payload))
        }
    }

    fn decompress(&mut self, payload: &[u8]) -> Result<Bytes, DecodeError> {
        if self.context.is_none() {
            self.context = Some(context().ok_or(DecodeError::Zstd)?);
        }
        let context = self.context.as_mut().ok_or(DecodeError::Zstd)?;
        let allowed = MAX_BLOCK.min(payload.len() * MAX_RATIO);
        // One more than allowed, to see whether there is more.
        let mut block = Vec::with_capacity(allowed + 1);
        let mut input = InBuffer::around(payload);
        while input.pos() < payload.len() && block.len() <= allowed {
            let before = (input.pos(), block.len());
            let written = block.len();
            let mut output = OutBuffer::around_pos(&mut block, written);
            let left = context.decompress_stream(&mut output, &mut input).map_err(|code| {
                if zstd_safe::is_error_kind(code, ZSTD_error_frameParameter_windowTooLarge) {
                    DecodeError::Window
                } else {
                    DecodeError::Zstd
                }
            })?;
            // The frame lasts as long as the stream; and a call that does nothing would do nothing for ever.
            if left == 0 || before == (input.pos(), block.len()) {
                return Err(DecodeError::Zstd);
            }
        }
        match block.len() {
            0 => Err(DecodeError::Zstd),
            len if len > allowed => Err(DecodeError::TooLarge),
            _ => Ok(block.into()),
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("input", &self.input.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

fn context() -> Option<DCtx<'static>> {
    let mut context = DCtx::try_create()?;
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).ok()?;
    Some(context)
}
