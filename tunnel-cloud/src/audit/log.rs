//! The log on disk: records are appended to the newest file, those that belong to one call with one `write`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    chain::Head,
    clock::Stamp,
    files::{self, LogFile},
    record::Event,
    recover::{self, Torn},
};

/// How large a log may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Of one file, in bytes.
    pub(super) file: u64,
    /// How many files are kept, the newest included.
    pub(super) files: usize,
}

/// The log, owned by one process at a time.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    size: Size,
    head: Head,
    file: Arc<File>,
    /// Bytes in the file that are records.
    len: u64,
    /// Whether the file may hold something behind them.
    torn: bool,
    unsynced: Unsynced,
    /// The lines of one write; kept, because the next ones will be as long.
    lines: Vec<u8>,
}

/// What has been written and may not have reached the disk.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: Vec<Arc<File>>,
    dir: Option<PathBuf>,
}

impl Unsynced {
    /// Waits until the disk has it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.sync_data())?;
        match &self.dir {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Log {
    /// Opens the log in a directory, which is made if it is not there. What a killed process or a lost power supply left
    /// behind the last whole record is put aside, and is for the caller to record.
    pub(super) fn open(dir: &Path, size: Size) -> io::Result<(Self, Vec<Torn>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let found = recover::recover(dir)?;
        let (path, mut unsynced) = match found.newest {
            Some(file) => (file.path, Unsynced::default()),
            None => {
                let dir = Some(dir.to_owned());
                let path = LogFile::in_dir(&found.dir, found.head.seq + 1).path;
                (path, Unsynced { files: Vec::new(), dir })
            }
        };
        let file = Arc::new(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?);
        unsynced.files.push(Arc::clone(&file));
        let log = Self {
            dir: dir.to_owned(),
            size,
            head: found.head,
            file,
            len: found.len,
            torn: false,
            unsynced,
            lines: Vec::new(),
        };
        Ok((log, found.torn))
    }

    /// The last record.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Where the files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the next records with one call, and returns their lines. They survive this process from then on, and the
    /// machine once they are [synced](Self::take_unsynced).
    ///
    /// # Errors
    /// None of them has been written then, or nothing that stays.
    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = (Stamp, &'a Event)>) -> io::Result<&[u8]> {
        self.lines.clear();
        let mut head = self.head;
        for (time, event) in records {
            head = head.next(time.as_str(), event, &mut self.lines)?;
        }
        let length = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        self.mend()?;
        if self.len > 0 && self.len.saturating_add(length) > self.size.file {
            self.rotate()?;
        }
        if let Err(error) = write_once(&self.file, &self.lines) {
            self.torn = true;
            // Where this fails too, the next call begins with it.
            let _ = self.mend();
            return Err(error);
        }
        self.len += length;
        self.head = head;
        if self.unsynced.files.is_empty() {
            self.unsynced.files.push(Arc::clone(&self.file));
        }
        Ok(&self.lines)
    }

    /// What has to be synced: the caller does that without keeping others from writing.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        std::mem::take(&mut self.unsynced)
    }

    /// Gives back what could not be synced.
    pub(super) fn put_back(&mut self, unsynced: Unsynced) {
        for file in unsynced.files {
            if !self.unsynced.files.iter().any(|known| Arc::ptr_eq(known, &file)) {
                self.unsynced.files.push(file);
            }
        }
        self.unsynced.dir = self.unsynced.dir.take().or(unsynced.dir);
    }

    /// Removes what an interrupted write has left.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Goes on in a new file. The name is there before anything is in it, so that whoever is killed here finds an empty
    /// file, and the chain's head in the one before.
    fn rotate(&mut self) -> io::Result<()> {
        let path = LogFile::in_dir(&self.dir, self.head.seq + 1).path;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        self.file = Arc::new(file);
        self.len = 0;
        self.unsynced.files.push(Arc::clone(&self.file));
        self.unsynced.dir = Some(self.dir.clone());
        let files = files::list(&self.dir)?;
        let surplus = files.len().saturating_sub(self.size.files);
        files
            .iter()
            .take(surplus)
            .try_for_each(|old| fs::remove_file(&old.path))
    }
}

/// All of it with one call, so that nobody finds half a record, or none of it.
fn write_once(mut file: &File, lines: &[u8]) -> io::Result<()> {
    loop {
        match file.write(lines) {
            Ok(written) if written == lines.len() => return Ok(()),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::StorageFull, "no room for a whole record")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
