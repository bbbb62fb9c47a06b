//! Compression of a byte stream, for as long as it lives.
//!
//! ```text
//! sender:    Encoder::write* → Encoder::flush → bytes on the wire
//! receiver:  Decoder::push → Decoder::next_block until it has no more … → Decoder::finish at the end of the stream
//! ```
//!
//! The stream travels in blocks of at most [`MAX_BLOCK`] bytes. A block is raw, or the next piece of one zstd frame
//! that lasts as long as the stream, so that what was said an hour ago still helps, within a window of 64 KiB. All
//! that was written before [`Encoder::flush`] can be read before anything more arrives. Whatever does not shrink is
//! noticed and passed raw, at [`HEADER`] bytes a block.
//!
//! # Memory
//!
//! Contexts of zstd are made when the first block is worth one, and have the sizes of [`ENCODER_MEMORY`] and
//! [`DECODER_MEMORY`], which a test holds them to; until then an end holds what waits for a flush, or for the rest of a
//! block. `memory` says what an end holds now.

mod decoder;
mod encoder;
mod watch;

pub use decoder::{DecodeError, Decoder};
pub use encoder::Encoder;

/// The most bytes of the stream in one block.
pub const MAX_BLOCK: usize = 64 << 10;

/// The length of a block's header, in bytes.
pub const HEADER: usize = 3;

/// The most that an [`Encoder`] holds, in bytes.
pub const ENCODER_MEMORY: usize = 768 << 10;

/// The most that a [`Decoder`] holds beside what was pushed last, in bytes.
pub const DECODER_MEMORY: usize = 512 << 10;

/// How many bytes of the stream each byte of a compressed block may stand for, at most.
pub const MAX_RATIO: usize = 512;

/// How far back a match may reach, as a power of two.
const WINDOW_LOG: u32 = 16;

/// The most bytes that a block has behind its header. What zstd cannot shrink it makes a little longer.
const MAX_PAYLOAD: usize = MAX_BLOCK + 256;

/// What a header says above the length.
const ZSTD: u32 = 1 << 23;
