//! One process at a time works on a state directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The exclusive right to a state directory, until dropped or the process ends, however it ends.
///
/// The gateway keeps what it has loaded in memory, so a command that wrote to the store behind its back would be
/// overlooked, and two gateways on one store would both own every node.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// The right to a state directory was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process works on the state in {0:?}")]
    Held(PathBuf),
    /// The lock file could not be opened.
    #[error("{path:?} cannot be locked: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateLock {
    /// Takes the lock of the directory, without waiting.
    pub fn take(state: &Path) -> Result<Self, LockError> {
        let path = state.join("lock");
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = match open {
            Ok(file) => file,
            Err(source) => return Err(LockError::Io { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(state.to_owned())),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_owner_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateLock::take(dir.path()).unwrap();
        assert!(matches!(StateLock::take(dir.path()), Err(LockError::Held(_))));
        drop(first);
        StateLock::take(dir.path()).unwrap();
    }
}
