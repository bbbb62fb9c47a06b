//! Fuzz targets, one per decoder. A target takes any bytes and panics where a promise does not hold.
//!
//! The targets of a crate stand in one file, which the crate's ordinary tests include to replay `corpus/`, so that
//! `cargo test` runs them without libFuzzer. With it, on a stable compiler and new finds kept out of the tree:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz session target/fuzz/session tests/fuzz/corpus/session
//! ```

pub mod codec;
pub mod identity;
pub mod ingress;
pub mod proto;

// The parsers name what they share by their own crate's root.
use ingress::{Credential, Secret};
