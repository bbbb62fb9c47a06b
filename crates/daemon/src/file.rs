//! Files that are there whole or not at all, whatever happens in the middle of writing them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The owner only (0600): keys, tokens, credentials.
    Private,
    /// Everyone (0644).
    Public,
}

impl Mode {
    const fn bits(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Writes a file that must not exist yet; durable when this returns.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where something has that name, which is then left alone.
pub fn write_new(path: &Path, contents: &[u8], mode: Mode) -> io::Result<()> {
    let draft = Draft::write(path, contents, mode)?;
    // Unlike a rename, a link never takes the place of something.
    fs::hard_link(&draft.path, path)?;
    drop(draft);
    sync_dir(path)
}

/// Writes a file, in place of the one of that name if there is one; durable when this returns.
///
/// A reader sees the old contents or the new, never a mixture.
pub fn replace(path: &Path, contents: &[u8], mode: Mode) -> io::Result<()> {
    let draft = Draft::write(path, contents, mode)?;
    fs::rename(&draft.path, path)?;
    sync_dir(path)
}

static NEXT_DRAFT: AtomicU64 = AtomicU64::new(0);

/// A complete, synced file under a temporary name in the same directory; removed when dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(target: &Path, contents: &[u8], mode: Mode) -> io::Result<Self> {
        let (draft, mut file) = Self::create(target, mode)?;
        // The mode given to open is cut by the umask.
        file.set_permissions(Permissions::from_mode(mode.bits()))?;
        file.write_all(contents)?;
        file.sync_all()?;
        Ok(draft)
    }

    fn create(target: &Path, mode: Mode) -> io::Result<(Self, File)> {
        loop {
            let path = draft_path(target)?;
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode.bits())
                .open(&path)
            {
                Ok(file) => return Ok((Self { path }, file)),
                // Left by a killed process that had this process's id, as happens in containers: take the next name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing of that name, which is as good.
        let _ = fs::remove_file(&self.path);
    }
}

fn draft_path(target: &Path) -> io::Result<PathBuf> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(
        ".{}.{}",
        std::process::id(),
        NEXT_DRAFT.fetch_add(1, Ordering::Relaxed)
    ));
    Ok(target.with_file_name(draft))
}

/// Makes a new name in the directory of `path` durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_its_mode_and_contents_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode, bits) in [("key", Mode::Private, 0o600), ("ca", Mode::Public, 0o644)] {
            let path = dir.path().join(name);
            write_new(&path, b"one", mode).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"one");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, bits);
        }
        assert_eq!(names(dir.path()), ["ca", "key"]);
    }

    #[test]
    fn an_existing_file_is_never_taken_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new(&path, b"one", Mode::Private).unwrap();
        let error = write_new(&path, b"two", Mode::Private).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["key"]);
    }

    #[test]
    fn replacing_changes_contents_and_mode_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_new(&path, b"one", Mode::Public).unwrap();
        replace(&path, b"two", Mode::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        replace(&path, b"x", Mode::Public).unwrap_err();
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn drafts_left_by_a_killed_process_of_the_same_id_are_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for _ in 0..3 {
            fs::write(draft_path(&path).unwrap(), "left").unwrap();
        }
        NEXT_DRAFT.store(0, Ordering::Relaxed);
        write_new(&path, b"one", Mode::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
