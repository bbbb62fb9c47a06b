//! The fuzz targets of the ways in as an ordinary test: `tests/fuzz/corpus/TARGET/` holds one file per entry, and every
//! truncation of every entry is fed too. An input that once broke a parser is added there.
//!
//! The parsers are private to their crate and are compiled here as they stand, with their own tests.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/fuzz/src/ingress.rs"]
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
mod ingress;
#[path = "../../../tests/fuzz/src/replay.rs"]
#[allow(unreachable_pub, reason = "the same for every crate")]
mod replay;

use ingress::{Credential, Secret};

/// B2, B15
#[test]
fn no_target_falls_over_its_corpus_or_any_truncation_of_it() {
    replay::replay(ingress::TARGETS, 10);
}
