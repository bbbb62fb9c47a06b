//! What makes a thin link feel wide: compression of byte streams, and of metrics scrapes as the difference against the
//! last one. Pure: bytes go in and come out, and whoever calls moves them.
//!
//! - [`stream`]: one zstd frame for as long as a stream lives, with what does not shrink passed raw.
//! - [`scrape`]: the bodies of one target, each said by one that the other end has, and exact to the last byte.
//!
//! Both decoders take bytes that a hostile peer may have made: what they hold and how large a result may become is
//! bounded before anything is allocated for it. The formats are described in `docs/reference/encodings.md`, well enough
//! to write a second implementation.

pub mod scrape;
pub mod stream;
