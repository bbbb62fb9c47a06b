//! The last confirmed configuration, in the state directory, where it outlives the process.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tunnel_daemon::file::{Mode, replace};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The text of the last confirmed configuration file.
    pub confirmed: String,
    /// The text of the one that is on trial, or that had to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<String>,
}

/// The file.
#[derive(Debug, Clone)]
pub(super) struct RecordFile(PathBuf);

impl RecordFile {
    /// The one in this state directory.
    pub(super) fn of(state: &Path) -> Self {
        Self(state.join("confirmed-config.json"))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What it says; nothing if there is none, and [`io::ErrorKind::InvalidData`] if no agent wrote it so.
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        match fs::read(&self.0) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes it say this, and durably so: whoever reads it finds this or what was there before.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        replace(&self.0, &serde_json::to_vec(record)?, Mode::Private)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_damage_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::of(dir.path());
        assert_eq!(file.read().unwrap(), None);
        let mut record = Record {
            confirmed: "a = \"1\"\n".to_owned(),
            unconfirmed: Some("b".to_owned()),
        };
        for _ in 0..2 {
            file.write(&record).unwrap();
            assert_eq!(file.read().unwrap(), Some(record.clone()));
            record.unconfirmed = None;
        }
        fs::write(file.path(), "{\"confirmed\":").unwrap();
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
