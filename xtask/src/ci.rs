//! What CI runs, from here.

use std::process::Command;

use anyhow::Result;

use crate::shell;

/// Runs `.ci/run`, the one list of what CI does.
pub(crate) fn run() -> Result<()> {
    shell::run(Command::new("bash").arg(shell::root().join(".ci/run")))
}

/// Builds the API documentation of the workspace.
pub(crate) fn docs() -> Result<()> {
    shell::run(shell::cargo().env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--jobs",
        "2",
    ]))
}
