//! Bodies of metrics scrapes, sent as the difference against what the same target sent before.
//!
//! ```text
//! decoder's end                          encoder's end, beside the target
//! Decoder::base ── request, BaseId ────▶ scrapes the target
//! Decoder::decode ◀──── message ──────── Encoder::encode(body, base)
//! ```
//!
//! There is one [`Encoder`] and one [`Decoder`] for each target. The decoder says with each request which body it has;
//! the encoder says the new body by that one if it still has it too, and whole otherwise. So whatever is lost, restarted
//! or forgotten at either end costs one whole body and nothing else, and neither end ever guesses.
//!
//! A body is text of the Prometheus kind: lines, of which mostly numbers change. Both ends keep the last bodies with what
//! they know of each number: how it is written, by how much it went up so far, with which other it goes together. A
//! message says which numbers changed and by how much more than was expected, in a few bits each. Lines that are new
//! travel as text. For whatever else there is zstd with the last body as prefix, and zstd alone; the shortest wins, after
//! the encoder has read it as the decoder will, and found the body that it was given.
//!
//! A message is checked by a hash of the body and all that led to it, which is also what names it as a base.
//!
//! # Cost
//!
//! An end holds [`Limits::history`] bodies, and about 100 bytes for each number in them: some 2 bytes for each byte of a
//! body of `node_exporter`. While it works, an encoder also holds a context of zstd: below 1 MiB for a
//! body of 57 KB by its like, below 3 MiB for any.

mod decoder;
mod encoder;
mod frame;
mod message;
mod model;
mod number;
mod plan;
mod range;
mod snapshot;
mod text;
mod varint;

pub use decoder::{DecodeError, Decoder};
pub use encoder::{EncodeError, Encoder};

use sha2::{Digest as _, Sha256};

/// Names a body that a decoder has, and all that led to what both sides know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseId([u8; 8]);

impl BaseId {
    /// As bytes, to be sent.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// From the bytes of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The id of a body that was coded by what is known of `base`, or of one that stands by itself.
    fn of(base: Option<Self>, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"tunnel scrape 1\n");
        hash.update(base.map_or([0; 8], Self::to_bytes));
        hash.update(body);
        let hash = hash.finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        Self(id)
    }

    /// What messages carry of it.
    fn short(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }
}

/// How much memory a target may take, at each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in bytes.
    pub max_body: usize,
    /// How many bodies are kept.
    pub history: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 16 << 20,
            history: 3,
        }
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// It is shorter than its header.
    #[error("it ends within its header")]
    Header,
    /// Its method is unknown.
    #[error("its method is unknown")]
    Method,
    /// A zstd frame does not hold what it should.
    #[error("a zstd frame is broken")]
    Frame,
    /// The list of lines makes no sense.
    #[error("its list of lines is broken")]
    Plan,
    /// The base has other fields.
    #[error("its base has other fields")]
    Fields,
    /// A number is out of range.
    #[error("a number is out of range")]
    Number,
    /// A word is none.
    #[error("a word is none")]
    Word,
    /// It becomes larger than is allowed.
    #[error("the body is larger than is allowed")]
    TooLarge,
    /// The body is not what was sent.
    #[error("the body is not what was sent")]
    Check,
}
