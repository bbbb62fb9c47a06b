//! The journal's file: lines are added at its end, and now and then it is written anew without what is out of date.
//!
//! A line is one write, so that a process that is killed leaves it whole or torn, and a torn one is passed over. Nothing is
//! flushed to the disk: a journal is not worth the wear of a flash card at each loss, and a power cut may cost the last lines.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tunnel_daemon::file::{Mode, replace};

use super::log::{Line, Log};

/// Beyond this many bytes it is written anew. What is kept takes less than half of it.
const LIMIT: u64 = 512 * 1024;
/// More than this is not read: no agent wrote it.
const MOST: u64 = 4 * LIMIT;

#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// What is there ends in the middle of a line.
    torn: bool,
}

impl JournalFile {
    fn path(state: &Path) -> PathBuf {
        state.join("link-journal.jsonl")
    }

    /// What a state directory's file says; no file says nothing.
    pub(super) fn read(state: &Path) -> io::Result<Log> {
        match File::open(Self::path(state)) {
            Ok(file) => Ok(Log::read(&content(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Log::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn open(state: &Path) -> io::Result<(Self, Log)> {
        let path = Self::path(state);
        let file = open(&path)?;
        let text = content(file.try_clone()?)?;
        let log = Log::read(&text);
        let journal = Self {
            length: file.metadata()?.len(),
            torn: text.last().is_some_and(|&byte| byte != b'\n'),
            path,
            file,
        };
        Ok((journal, log))
    }

    /// Adds a line; `log` is what all of them say, this one included.
    pub(super) fn append(&mut self, line: &Line, log: &Log) -> io::Result<()> {
        let mut text = if self.torn { b"\n".to_vec() } else { Vec::new() };
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
        let added = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.length.saturating_add(added) > LIMIT {
            return self.write_anew(log);
        }
        // If this fails, there may be a part of it.
        self.torn = true;
        self.file.write_all(&text)?;
        self.torn = false;
        self.length += added;
        Ok(())
    }

    fn write_anew(&mut self, log: &Log) -> io::Result<()> {
        let mut text = Vec::new();
        for line in log.lines() {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        replace(&self.path, &text, Mode::Private)?;
        self.file = open(&self.path)?;
        self.length = self.file.metadata()?.len();
        self.torn = false;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn content(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use tunnel_model::LossCause;

    use super::*;
    use crate::journal::Moved;

    #[test]
    fn it_is_private_and_reads_back_after_a_line_that_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, mut log) = JournalFile::open(dir.path()).unwrap();
        let line = log.begin(LossCause::Dns, "why", Moved::default(), 1);
        file.append(&line, &log).unwrap();
        let path = JournalFile::path(dir.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"back\":{\"num"].concat()).unwrap();

        let (mut file, mut again) = JournalFile::open(dir.path()).unwrap();
        assert_eq!(again, log);
        let (_, line) = again.end(false, Some(Duration::from_secs(1)), 0).unwrap();
        file.append(&line, &again).unwrap();
        assert_eq!(JournalFile::read(dir.path()).unwrap(), again);
        assert_eq!(again.over().count(), 1);
    }

    #[test]
    fn it_stays_small_however_much_happens() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, mut log) = JournalFile::open(dir.path()).unwrap();
        let why = "x".repeat(500);
        for at in 0..3000 {
            let line = log.begin(LossCause::Timeout, &why, Moved::default(), at);
            file.append(&line, &log).unwrap();
            let (_, line) = log.end(false, None, at).unwrap();
            file.append(&line, &log).unwrap();
            assert!(file.length <= LIMIT);
        }
        assert_eq!(JournalFile::read(dir.path()).unwrap(), log);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
