//! The tunnel measured beside its peers.

use anyhow::Result;

use crate::shell;

/// What to pass on; `cargo xtask bench -- --help` tells.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments of tunnel-bench
    #[arg(last = true)]
    args: Vec<String>,
}

/// Builds the programs as a user would get them, measures, and writes the table into the README. A peer that is not on the
/// path is skipped by name.
pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = ["tunnel-cloud", "tunnel-edge", "tunnel-bench"];
    let packages = programs.iter().flat_map(|name| ["--package", name]);
    shell::run(shell::cargo().args(["build", "--release", "--bins"]).args(packages))?;
    let readme = shell::root().join("README.md");
    shell::run(
        shell::cargo()
            .args([
                "run",
                "--release",
                "--quiet",
                "--package",
                "tunnel-bench",
                "--",
                "--readme",
            ])
            .arg(readme)
            .args(&args.args),
    )
}
