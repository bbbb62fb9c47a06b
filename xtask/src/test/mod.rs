//! `cargo xtask test`: all tests, with what they need, and one line of result.

mod examples;
mod install;
mod keys;
mod tally;

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::tally::Tally;
use crate::metadata::Metadata;
use crate::shell;

/// Set for the tests, one that cannot run fails instead of being skipped.
const REQUIRE_ALL: &str = "TUNNEL_REQUIRE_ALL";

/// The crate whose tests drive real programs through real networks.
const E2E: &str = "tunnel-e2e";

/// Which tests to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run one kind only
    #[arg(long)]
    only: Option<Kind>,
    /// Run the tests whose names contain one of these
    filters: Vec<String>,
}

/// The kinds of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Those that need nothing of the machine
    Unit,
    /// Real clients across real NATs
    E2e,
}

/// Installs, builds, runs and counts.
pub(crate) fn run(args: &Args) -> Result<()> {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let required = args.only != Some(Kind::Unit) && (install::all_there()? || in_ci);
    if args.only != Some(Kind::Unit) {
        build_binaries()?;
    }
    let mut tally = Tally::default();
    let succeeded = stream(test_command(args, required), &mut tally)?;
    if args.only != Some(Kind::Unit) && args.filters.is_empty() {
        examples::run(&Metadata::load()?, &mut tally)?;
    }
    conclude(&tally, succeeded)
}

/// Tries the examples alone.
pub(crate) fn examples() -> Result<()> {
    build_binaries()?;
    let mut tally = Tally::default();
    examples::run(&Metadata::load()?, &mut tally)?;
    conclude(&tally, true)
}

/// Builds what the end-to-end tests and the examples start, in the profile of the tests.
fn build_binaries() -> Result<()> {
    shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--jobs", "2"]))
}

fn conclude(tally: &Tally, succeeded: bool) -> Result<()> {
    print!("{tally}");
    if !succeeded || tally.failed() {
        bail!("not all tests passed");
    }
    Ok(())
}

fn test_command(args: &Args, required: bool) -> Command {
    let mut command = shell::cargo();
    command.args(["test", "--no-fail-fast", "--jobs", "2"]);
    match args.only {
        None => command.arg("--workspace"),
        Some(Kind::Unit) => command.args(["--workspace", "--exclude", E2E]),
        Some(Kind::E2e) => command.args(["--package", E2E]),
    };
    if required {
        command.env(REQUIRE_ALL, "1");
    }
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    if !args.filters.is_empty() {
        command.arg("--").args(&args.filters);
    }
    command
}

/// Runs the command, shows what it prints as it prints it, and counts. Tells whether it succeeded.
fn stream(mut command: Command, tally: &mut Tally) -> Result<bool> {
    // One pipe for both, so that the order of lines stays.
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot start cargo")?;
    // The command keeps its ends of the pipe open, and the pipe would never end.
    drop(command);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.feed(&line);
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_prints_is_counted_and_its_failure_is_told() {
        let mut tally = Tally::default();
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'; echo 'SKIPPED a: needs root' >&2; exit 1"]);
        assert!(!stream(command, &mut tally).unwrap());
        assert!(tally.to_string().contains("2 passed, 0 failed, 1 skipped"), "{tally}");
    }

    #[test]
    fn filters_and_kinds_reach_cargo() {
        let args = Args {
            only: Some(Kind::E2e),
            filters: vec!["curl".to_owned()],
        };
        let command = test_command(&args, true);
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(
            words.ends_with(&["--package", E2E, "--", "curl"].map(str::to_owned)),
            "{words:?}"
        );
        assert!(command.get_envs().any(|(key, _)| key == REQUIRE_ALL));
    }
}
