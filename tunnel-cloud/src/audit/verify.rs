//! Is the log what the gateway wrote? Read from the files alone.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::Serialize;

use super::{
    chain::{Head, RecordHash, Verifier},
    files::{self, LogFile},
};

/// How many findings are listed; the others are only counted.
const LISTED: usize = 1000;

/// How long a record that is being written may take until it is whole.
const WRITING: Duration = Duration::from_millis(200);

/// A line that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line in it, counted from 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// `FILE:LINE: what`, as compilers write it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        write!(f, "{}:{line}: {what}", file.display())
    }
}

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How many records there are.
    pub records: u64,
    /// The number of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The number of the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The hash of the last: whoever keeps it elsewhere can prove that nothing up to it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<RecordHash>,
    /// What is wrong, in the order of the records.
    pub findings: Vec<Finding>,
    /// How many findings there are beside those listed.
    pub more: u64,
}

impl Report {
    fn add(&mut self, file: &Path, line: u64, what: impl fmt::Display) {
        if self.findings.len() == LISTED {
            self.more += 1;
            return;
        }
        self.findings.push(Finding {
            file: file.to_owned(),
            line,
            what: what.to_string(),
        });
    }
}

/// Checks the files of a log in a directory.
///
/// # Errors
/// A file cannot be read.
pub fn verify_dir(dir: &Path, expect: Option<RecordHash>) -> io::Result<Report> {
    loop {
        let files = files::list(dir)?;
        let paths: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
        match verify(&paths, expect) {
            // The oldest was rotated out meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && files::list(dir)? != files => {}
            outcome => return outcome,
        }
    }
}

/// Checks these files, which follow one another. With `expect`, one of the records must have that hash.
///
/// # Errors
/// A file cannot be read.
pub fn verify(paths: &[PathBuf], expect: Option<RecordHash>) -> io::Result<Report> {
    // All at once, so that none is rotated out in the middle.
    let files: Vec<_> = paths.iter().map(File::open).collect::<io::Result<_>>()?;
    let mut report = Report::default();
    let mut verifier = Verifier::new();
    let mut head: Option<Head> = None;
    let mut is_found = expect.is_none();
    for (path, file) in paths.iter().zip(files) {
        let mut reader = BufReader::new(file);
        let (mut line, mut number) = (Vec::new(), 0);
        while read_line(&mut reader, &mut line)? {
            number += 1;
            let Some(text) = line.strip_suffix(b"\n") else {
                report.add(path, number, "the line is cut off, or was never finished");
                verifier.line(b"");
                continue;
            };
            if let Some(fault) = verifier.line(text) {
                report.add(path, number, fault);
            }
            let Some(now) = verifier.head() else { continue };
            head = Some(now);
            is_found |= expect == Some(now.hash);
            let named = LogFile::named(path.clone());
            if let Some(named) = named.filter(|named| number == 1 && named.first != now.seq) {
                let what = format!("the file's name says that it begins with record {}", named.first);
                report.add(path, number, what);
            }
        }
    }
    report.records = verifier.records();
    report.first = verifier.first();
    report.last = head.map(|head| head.seq);
    report.head = head.map(|head| head.hash);
    if let Some((expect, last)) = expect.zip(paths.last()).filter(|_| !is_found) {
        let what = format!("no record has the hash {expect}: the end was cut off, or the whole log was written anew");
        report.add(last, 0, what);
    }
    Ok(report)
}

/// Reads a line with its line break; false at the end. A line without one may still be on its way.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    reader.read_until(b'\n', line)?;
    if !line.is_empty() && !line.ends_with(b"\n") {
        thread::sleep(WRITING);
        reader.read_until(b'\n', line)?;
    }
    Ok(!line.is_empty())
}

#[cfg(test)]
mod tests;
