//! Programs whose system clock is wrong, by libfaketime. Their monotonic clock stays right, as it does on a machine whose
//! clock is set.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where Debian has libraries, in a folder for each architecture.
const LIBRARIES: &str = "/usr/lib";

/// What shows programs a time of the test's choice.
#[derive(Debug)]
pub struct FakeClock(PathBuf);

impl FakeClock {
    /// A clock that is kept in `file` and shows `time`: as an offset from the right one, `+10y`, or as the time at which
    /// the program starts, `@1970-01-01 00:00:00`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn new(file: PathBuf, time: &str) -> anyhow::Result<Self> {
        let clock = Self(file);
        clock.set(time)?;
        Ok(clock)
    }

    /// Sets the clock, also under programs that run.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set(&self, time: &str) -> anyhow::Result<()> {
        // Programs read it at each look at the clock, and must not read half of it.
        let next = self.0.with_extension("next");
        fs::write(&next, time)?;
        Ok(fs::rename(next, &self.0)?)
    }

    /// The environment of a program that is to see this clock.
    ///
    /// # Errors
    /// Where libfaketime is missing.
    pub fn env(&self) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        let library = library().context("libfaketime is not installed")?;
        Ok(vec![
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // What a program that is killed would leave behind.
            ("FAKETIME_DISABLE_SHM", "1".into()),
            ("TZ", "UTC".into()),
        ])
    }
}

/// The library for programs with threads.
pub(crate) fn library() -> Option<PathBuf> {
    let in_folder = |folder: &Path| folder.join("faketime/libfaketimeMT.so.1");
    let folders = fs::read_dir(LIBRARIES).ok()?.filter_map(Result::ok);
    folders
        .map(|folder| in_folder(&folder.path()))
        .find(|library| library.is_file())
}
