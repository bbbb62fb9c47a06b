//! Feeds `corpus/` to its targets, for the ordinary tests of the crates that these are of.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A decoder's name and what to feed.
type Target<'a> = (&'a str, fn(&[u8]));

/// Feeds each target every entry of its corpus, which is to have `at_least` so many, and every truncation of each.
pub fn replay(targets: &[Target<'_>], at_least: usize) {
    for (name, target) in targets {
        let files: Vec<_> = fs::read_dir(folder(name)).unwrap().collect();
        assert!(files.len() >= at_least, "{name} has hardly a corpus");
        for file in files {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            for end in 0..=bytes.len() {
                target(&bytes[..end]);
            }
        }
    }
}

/// Where the corpus of a target is, from whichever crate this is compiled into.
pub fn folder(target: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut corpora = crates.map(|dir| dir.join("tests/fuzz/corpus"));
    corpora.find(|dir| dir.is_dir()).unwrap().join(target)
}
