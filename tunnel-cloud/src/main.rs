//! The gateway's process: from the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;
use tunnel_cloud::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.output.output;
    tunnel_daemon::cli::run(format, cli::run(cli))
}
