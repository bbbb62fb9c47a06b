//! Fuzzing, where cargo-fuzz is installed.

use anyhow::{Result, bail};

use crate::shell;

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A target of tests/fuzz
    target: String,
    /// When to stop
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs one target. What it finds stays in tests/fuzz/artifacts; what is worth keeping belongs into the corpus, which
/// the ordinary tests replay.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::has_cargo_command("fuzz") {
        bail!("cargo-fuzz is not installed; `cargo install cargo-fuzz --locked` installs it");
    }
    shell::run(
        shell::cargo()
            .current_dir(shell::root().join("tests/fuzz"))
            // The sanitizer's flags are unstable; this lets the one compiler of this workspace take them.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", "--fuzz-dir", ".", &args.target, "--"])
            .arg(format!("-max_total_time={}", args.seconds)),
    )
}
