//! What can be wrong with a configuration file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{CliError, Exit};

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The kind of a [`ConfigError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such file.
    Missing,
    /// The file is there and cannot be read.
    Unreadable,
    /// The file is not TOML.
    Syntax,
    /// A key that no version of this program knows in that place.
    UnknownKey,
    /// A key without which the program cannot start.
    MissingKey,
    /// A string where a number belongs, or the like.
    WrongType,
    /// The right type with a value that cannot be accepted.
    InvalidValue,
}

impl Problem {
    const fn code(self) -> &'static str {
        match self {
            Self::Missing => "config-missing",
            Self::Unreadable => "config-unreadable",
            Self::Syntax => "config-syntax",
            Self::UnknownKey => "config-unknown-key",
            Self::MissingKey => "config-missing-key",
            Self::WrongType => "config-wrong-type",
            Self::InvalidValue => "config-invalid-value",
        }
    }
}

/// A configuration file that the process cannot start with. The operator is at fault, and the text says where.
///
/// Displays as `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(Box<Detail>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Detail {
    problem: Problem,
    path: PathBuf,
    position: Option<Position>,
    key: Option<String>,
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    /// An error about the file as such; the message names it.
    pub(super) fn whole_file(path: &Path, problem: Problem, message: String) -> Self {
        Self(Box::new(Detail {
            problem,
            path: path.to_owned(),
            position: None,
            key: None,
            message,
            hint: None,
        }))
    }

    pub(super) fn in_file(
        path: &Path,
        position: Option<Position>,
        problem: Problem,
        key: String,
        message: String,
    ) -> Self {
        // An error without a span concerns the whole file, which begins at its first line.
        let position = Some(position.unwrap_or(Position { line: 1, column: 1 }));
        let key = Some(key).filter(|key| !key.is_empty());
        Self(Box::new(Detail {
            problem,
            path: path.to_owned(),
            position,
            key,
            message,
            hint: None,
        }))
    }

    /// Sets what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.0.hint = hint;
        self
    }

    /// What kind of mistake it is.
    pub fn problem(&self) -> Problem {
        self.0.problem
    }

    /// The stable code, such as `config-unknown-key`.
    pub fn code(&self) -> &'static str {
        self.0.problem.code()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Where in the file, unless the file could not be read at all.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// The key path, such as `service[1].target`.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.0.position {
            write!(f, "{}:{line}:{column}: ", self.0.path.display())?;
        }
        f.write_str(&self.0.message)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let shown = Self::new(Exit::Failure, error.code(), error.to_string());
        match error.0.hint {
            Some(hint) => shown.with_hint(hint),
            None => shown,
        }
    }
}
