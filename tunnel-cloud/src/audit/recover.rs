//! Where a log goes on that was left by a process that no longer runs, in order or not.
//!
//! A process that is killed leaves whole records: each is one write. A machine that loses its power may leave a part of
//! one, or a stretch of zeros. Whatever stands behind the last record that can be read is copied to a file beside the
//! log before it is cut off. What is damaged further up stays where it is, for `audit verify` to find.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use tunnel_daemon::file::{self, Mode};

use super::{
    chain::{Head, Link, RecordHash},
    files::{self, LogFile},
};

/// How a file is called that was put aside and of which the log does not know yet.
const PENDING: &str = "pending";

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) dir: PathBuf,
    pub(super) head: Head,
    /// The newest file, and how many bytes of records are in it.
    pub(super) newest: Option<LogFile>,
    pub(super) len: u64,
    /// What was put aside, now or by a process that was killed before it could record that.
    pub(super) torn: Vec<Torn>,
}

/// What stood behind the last record, in a file of its own.
#[derive(Debug)]
pub(super) struct Torn {
    path: PathBuf,
    pub(super) bytes: u64,
    pub(super) hash: RecordHash,
}

impl Torn {
    fn read(path: PathBuf) -> io::Result<Self> {
        let content = fs::read(&path)?;
        Ok(Self {
            path,
            bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
            hash: RecordHash::of(&content),
        })
    }

    /// The name of the file once its record is written.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_stem().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The log knows of it now.
    pub(super) fn recorded(&self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension(""))
    }
}

/// Looks for the end of the log, and puts aside what stands behind it.
pub(super) fn recover(dir: &Path) -> io::Result<Found> {
    let files = files::list(dir)?;
    let newest = files.last().cloned();
    let mut len = 0;
    if let Some(newest) = &newest {
        let end = end_of(&newest.path)?;
        len = end.records;
        if end.records < end.all {
            put_aside(dir, newest, end.records)?;
        }
    }
    // A file that was just begun is empty; the chain's head is in one before it.
    let mut head = None;
    for file in files.iter().rev() {
        head = end_of(&file.path)?.head;
        if head.is_some() {
            break;
        }
    }
    let nothing = Head {
        seq: newest.as_ref().map_or(0, |newest| newest.first.saturating_sub(1)),
        ..Head::EMPTY
    };
    Ok(Found {
        dir: dir.to_owned(),
        head: head.unwrap_or(nothing),
        newest,
        len,
        torn: pending(dir)?,
    })
}

/// The end of one file.
struct End {
    /// The last record.
    head: Option<Head>,
    /// How many bytes there are up to its end.
    records: u64,
    /// How many bytes there are.
    all: u64,
}

fn end_of(path: &Path) -> io::Result<End> {
    let mut end = End {
        head: None,
        records: 0,
        all: 0,
    };
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(end);
        }
        end.all += u64::try_from(read).unwrap_or(u64::MAX);
        let whole = line.strip_suffix(b"\n");
        if let Some((line, link)) = whole.and_then(|line| Some((line, Link::read(line)?))) {
            end.records = end.all;
            end.head = Some(Head {
                seq: link.seq,
                hash: RecordHash::of(line),
            });
        }
    }
}

/// Copies what stands behind the records to a file beside the log, and cuts it off once that is on the disk.
fn put_aside(dir: &Path, log: &LogFile, records: u64) -> io::Result<()> {
    let content = fs::read(&log.path)?;
    let torn = usize::try_from(records).ok().and_then(|at| content.get(at..));
    let name = free_name(dir, log.first, records)?;
    file::replace(&dir.join(name), torn.unwrap_or_default(), Mode::Private)?;
    let log = OpenOptions::new().write(true).open(&log.path)?;
    log.set_len(records)?;
    log.sync_all()
}

/// A name that no earlier piece has: the same place may be torn more than once.
fn free_name(dir: &Path, first: u64, at: u64) -> io::Result<PathBuf> {
    for number in 1_u32.. {
        let name = PathBuf::from(format!("torn-{first}-{at}-{number}"));
        let pending = name.with_extension(PENDING);
        if !fs::exists(dir.join(&name))? && !fs::exists(dir.join(&pending))? {
            return Ok(pending);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn pending(dir: &Path) -> io::Result<Vec<Torn>> {
    let mut torn = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_torn = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"torn-"));
        if is_torn && path.extension().is_some_and(|extension| extension == PENDING) {
            torn.push(Torn::read(path)?);
        }
    }
    Ok(torn)
}
