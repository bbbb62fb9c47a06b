//! The sending end.

use std::fmt;

use bytes::{BufMut as _, BytesMut};
use zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_flush;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use super::watch::Watch;
use super::{HEADER, MAX_BLOCK, MAX_PAYLOAD, MAX_RATIO, WINDOW_LOG, ZSTD};

/// A tenth less than by level 3 for half the speed, which is still that of many links that are worth compressing for.
const LEVEL: i32 = 6;

/// The sizes of zstd's tables, as powers of two: as large as the window is worth.
const HASH_LOG: u32 = 15;
const CHAIN_LOG: u32 = 15;

/// How much room for what waits is kept beyond a flush.
const KEPT: usize = 4 << 10;

/// An empty block of a zstd frame: raw, of no bytes, and not the last (RFC 8878 section 3.1.1.2).
const EMPTY_BLOCK: [u8; 3] = [0; 3];

/// Makes blocks of a stream.
#[derive(Default)]
pub struct Encoder {
    context: Option<CCtx<'static>>,
    /// zstd failed, for want of memory: all that follows is raw.
    broken: bool,
    /// What was written and is not in a block yet.
    waiting: Vec<u8>,
    watch: Watch,
}

impl Encoder {
    /// Takes what the stream says next, and appends to `out` the blocks that are full.
    pub fn write(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while self.waiting.len() + bytes.len() >= MAX_BLOCK {
            let (now, later) = bytes.split_at(MAX_BLOCK - self.waiting.len());
            bytes = later;
            if self.waiting.is_empty() {
                self.block(now, out);
            } else {
                self.waiting.extend_from_slice(now);
                self.flush(out);
            }
        }
        self.waiting.extend_from_slice(bytes);
    }

    /// Appends to `out` what the other end needs to read all that was written so far. Call it after each burst of
    /// writes: before, nothing is promised.
    pub fn flush(&mut self, out: &mut BytesMut) {
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            self.block(&waiting, out);
            self.waiting = waiting;
            self.waiting.clear();
            // A stream that falls silent should not hold a whole block.
            self.waiting.shrink_to(KEPT);
        }
    }

    /// The bytes that this end holds.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.waiting.capacity() + self.context.as_ref().map_or(0, CCtx::sizeof)
    }

    fn block(&mut self, block: &[u8], out: &mut BytesMut) {
        if !self.broken && self.watch.tries(block) {
            if let Some(payload) = self.compress(block) {
                self.watch.tried(block.len(), payload.len());
                return put(ZSTD, &payload, out);
            }
            // The frame cannot go on without this block, and the other end knows of one frame only.
            self.broken = true;
            self.context = None;
        }
        put(0, block, out);
    }

    /// The block as the next piece of the frame; `None` if there is no memory for it.
    fn compress(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        if self.context.is_none() {
            self.context = Some(context()?);
        }
        let context = self.context.as_mut()?;
        let mut payload = Vec::with_capacity(zstd_safe::compress_bound(block.len()) + 64);
        let mut input = InBuffer::around(block);
        let mut output = OutBuffer::around(&mut payload);
        // There is room for all of it, so that once is enough.
        let left = context.compress_stream2(&mut output, &mut input, ZSTD_e_flush);
        if left != Ok(0) || payload.len() > MAX_PAYLOAD {
            return None;
        }
        while payload.len() * MAX_RATIO < block.len() {
            payload.extend_from_slice(&EMPTY_BLOCK);
        }
        Some(payload)
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("waiting", &self.waiting.len())
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

fn context() -> Option<CCtx<'static>> {
    let mut context = CCtx::try_create()?;
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::HashLog(HASH_LOG),
        CParameter::ChainLog(CHAIN_LOG),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    Some(context)
}

fn put(kind: u32, payload: &[u8], out: &mut BytesMut) {
    out.reserve(HEADER + payload.len());
    // No payload is longer than `MAX_PAYLOAD`.
    out.put_uint(u64::from(kind) | payload.len() as u64, HEADER);
    out.put_slice(payload);
}
