//! The fuzz targets of the ways in as an ordinary test: `tests/fuzz/corpus/TARGET/` holds one file per entry, and every
//! truncation of every entry is fed too. An input that once broke a parser is added there.
//!
//! The parsers are private to their crate and are compiled here as they stand, with their own tests.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/fuzz/src/ingress.rs"]
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
mod ingress;

use std::{fs, path::Path};

use ingress::{Credential, Secret, TARGETS};

/// B2, B15
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
