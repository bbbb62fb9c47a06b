//! From `main` to an exit code, and the subcommands that both binaries generate from their own command line.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Command, Subcommand};
use clap_complete::Shell;

use crate::error::{CliError, Exit};
use crate::heap;
use crate::output::{self, OutputFormat};

/// How long a runtime waits for blocking calls that nothing will interrupt, such as a name lookup.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// Runs a command or a daemon on a runtime of its own, prints its error if it has one, and tells the exit code.
///
/// The command line is parsed before, by clap, which prints usage errors itself and exits with 2.
pub fn run(format: OutputFormat, main: impl Future<Output = Result<(), CliError>>) -> ExitCode {
    // Before there are threads. Without it everything works, a little slower.
    heap::keep_freed();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = CliError::new(
                Exit::Failure,
                "runtime-start",
                format!("cannot start the runtime: {error}"),
            )
            .with_hint("are threads or descriptors exhausted?");
            return finish(format, Err(error));
        }
    };
    let result = runtime.block_on(main);
    runtime.shutdown_timeout(RUNTIME_GRACE);
    finish(format, result)
}

fn finish(format: OutputFormat, result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else {
        return Exit::Ok.into();
    };
    if error.exit() != Exit::Ok {
        output::message(&error.render(format));
    }
    error.exit().into()
}

/// The subcommands of `config`, the same for both binaries.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration and say what is wrong with it
    Check,
    /// Print the configuration in effect, defaults included
    Show,
    /// Print the JSON schema of the configuration file
    Schema,
}

/// What a package needs from the command line itself; flatten it into the subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum GenerateCommand {
    /// Print the completion script for a shell
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
    /// Write the man pages, one per subcommand
    Man {
        /// An existing directory
        dir: PathBuf,
    },
}

impl GenerateCommand {
    /// Generates from `command`, the whole command line of the binary.
    pub fn run(self, mut command: Command) -> Result<(), CliError> {
        match self {
            Self::Completions { shell } => output::data(completions(shell, &mut command).trim_end()),
            Self::Man { dir } => clap_mangen::generate_to(command, &dir).map_err(|error| man_error(&dir, &error)),
        }
    }
}

fn completions(shell: Shell, command: &mut Command) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn man_error(dir: &std::path::Path, error: &io::Error) -> CliError {
    CliError::new(
        Exit::Failure,
        "man-write",
        format!("cannot write man pages to {}: {error}", dir.display()),
    )
    .with_hint("name a directory that exists and that you may write to")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn completions_know_the_subcommands() {
        let script = completions(Shell::Bash, &mut Example::command());
        assert!(script.contains("completions"), "{script}");
    }

    #[test]
    fn man_pages_are_written_one_per_subcommand() {
        let dir = tempfile::tempdir().unwrap();
        let generate = GenerateCommand::Man {
            dir: dir.path().to_owned(),
        };
        generate.run(Example::command()).unwrap();
        assert!(dir.path().join("example.1").exists());
        assert!(dir.path().join("example-completions.1").exists());
    }

    #[test]
    fn man_pages_for_a_missing_directory_name_it() {
        let generate = GenerateCommand::Man {
            dir: "/nowhere/at/all".into(),
        };
        let error = generate.run(Example::command()).unwrap_err();
        assert_eq!(error.code(), "man-write");
        assert!(error.message().contains("/nowhere/at/all"));
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error() {
        let error = Example::try_parse_from(["example", "--no-such-flag"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.number()));
    }

    #[derive(Debug, Parser)]
    #[command(name = "example")]
    struct Example {
        #[command(subcommand)]
        _command: GenerateCommand,
    }
}
