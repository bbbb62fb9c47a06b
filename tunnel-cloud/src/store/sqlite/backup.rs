//! A copy of the store, made while it works.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
    ffi,
};

use super::{BUSY_TIMEOUT, explain, unavailable};
use crate::store::StoreError;

/// Copies the store at `from` to a new file. The name `to` appears once the copy is whole and on the disk.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::Exists { path: to.to_owned() });
    }
    let draft = draft_of(to);
    let result = write(from, &draft).and_then(|()| publish(&draft, to));
    // The copy has its proper name by now, or is not wanted.
    let _ = fs::remove_file(&draft);
    result
}

fn write(from: &Path, draft: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft);
    made.map_err(|e| unavailable(draft, e))?;
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|e| explain(from, e))?;
    source.busy_timeout(BUSY_TIMEOUT).map_err(|e| explain(from, e))?;
    let copied = || {
        let mut target = Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // All pages in one step: one snapshot, which no writer makes start over; in WAL mode none waits for it either.
        if Backup::new(&source, &mut target)?.step(-1)? != StepResult::Done {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None));
        }
        // One file, that can be moved about by itself.
        target.pragma_update(None, "journal_mode", "DELETE")?;
        target.close().map_err(|(_, e)| e)
    };
    copied().map_err(|e| explain(draft, e))
}

/// Unlike a rename, a link never takes the place of something.
fn publish(draft: &Path, to: &Path) -> Result<(), StoreError> {
    let parent = to.parent().filter(|dir| !dir.as_os_str().is_empty());
    let linked = File::open(draft)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::hard_link(draft, to))
        .and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all());
    linked.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Exists { path: to.to_owned() },
        io::ErrorKind::StorageFull => StoreError::Full { path: to.to_owned() },
        _ => unavailable(to, e),
    })
}

fn draft_of(to: &Path) -> PathBuf {
    let mut name = OsString::from(to);
    name.push(".partial");
    name.into()
}
