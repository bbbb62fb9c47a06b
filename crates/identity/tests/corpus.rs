//! The fuzz targets of this crate as an ordinary test: `tests/fuzz/corpus/TARGET/` holds one file per entry, and every
//! truncation of every entry is fed too. An input that once broke a decoder is added there.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/fuzz/src/identity.rs"]
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
mod fuzz_targets;
#[path = "../../../tests/fuzz/src/replay.rs"]
#[allow(unreachable_pub, reason = "the same for every crate")]
mod replay;

/// B2, B12
#[test]
fn no_target_falls_over_its_corpus_or_any_truncation_of_it() {
    replay::replay(fuzz_targets::TARGETS, 10);
}
