//! The log's files: each is named by the number of its first record, so that their names sort as their records do.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// As many digits as the largest number has.
const DIGITS: usize = 20;

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// The number of its first record.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl LogFile {
    /// The file in this directory whose first record has this number.
    pub fn in_dir(dir: &Path, first: u64) -> Self {
        Self {
            first,
            path: dir.join(format!("{PREFIX}{first:0DIGITS$}{SUFFIX}")),
        }
    }

    /// The file of this name, whose first record its name tells; `None` where it is called otherwise.
    pub fn named(path: PathBuf) -> Option<Self> {
        let digits = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let is_number = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        let first = digits.parse().ok().filter(|_| is_number)?;
        Some(Self { first, path })
    }
}

/// The log's files in a directory, the oldest first.
pub fn list(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.extend(LogFile::named(entry?.path()));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_sort_as_their_records_do_and_others_are_none_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        for first in [1, 10, 9, u64::MAX] {
            fs::write(LogFile::in_dir(dir.path(), first).path, "").unwrap();
        }
        for other in ["audit-1.jsonl", "audit-0000000000000000000x.jsonl", "torn-1", "notes"] {
            fs::write(dir.path().join(other), "").unwrap();
        }
        let firsts: Vec<_> = list(dir.path()).unwrap().into_iter().map(|file| file.first).collect();
        assert_eq!(firsts, [1, 9, 10, u64::MAX]);
    }
}
