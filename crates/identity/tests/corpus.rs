//! The fuzz targets of this crate as an ordinary test: `tests/fuzz/corpus/TARGET/` holds one file per entry, and every
//! truncation of every entry is fed too. An input that once broke a decoder is added there.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/fuzz/src/identity.rs"]
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
mod fuzz_targets;

use std::{fs, path::Path};

use fuzz_targets::TARGETS;

/// B2, B12
#[test]
fn no_target_falls_over_its_corpus_or_any_truncation_of_it() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    for (name, target) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().collect();
        assert!(files.len() >= 10, "{name} has hardly a corpus");
        for file in files {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            for end in 0..=bytes.len() {
                target(&bytes[..end]);
            }
        }
    }
}
