//! The workspace's own tasks: `cargo xtask test` runs every test, `cargo xtask check` holds the tree to its rules.
//!
//! A task prints to the terminal of the person who started it, so the lints against printing do not apply here.
#![allow(clippy::print_stderr, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advisories;
mod bench;
mod check;
mod ci;
mod fuzz;
mod licences;
mod metadata;
mod shell;
mod spdx;
mod test;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What to do.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tests, checks and other tasks of this workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// The tasks.
#[derive(Debug, Subcommand)]
enum Task {
    /// Run all tests; as root on Debian, install first what they need
    Test(test::Args),
    /// Put the examples of the book to the programs they are for; `test` does so too
    Examples,
    /// Hold the tree to the rules that a compiler does not know
    Check,
    /// Check the licence and the lowest allowed version of every dependency
    Licences,
    /// Look for security advisories against the dependencies, in a local database
    Advisories,
    /// Build the API documentation; a warning is an error
    Docs,
    /// Measure the tunnel beside its peers, and write the README's table
    Bench(bench::Args),
    /// Fuzz one decoder
    Fuzz(fuzz::Args),
    /// Run everything that CI runs
    Ci,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(args) => test::run(&args),
        Task::Examples => test::examples(),
        Task::Check => check::run(),
        Task::Licences => licences::run(),
        Task::Advisories => advisories::run(),
        Task::Docs => ci::docs(),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Ci => ci::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
