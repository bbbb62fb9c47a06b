//! The agent's program.

use std::process::ExitCode;

use clap::Parser as _;
use tunnel_edge::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tunnel_daemon::cli::run(cli.output.output, cli.run())
}
