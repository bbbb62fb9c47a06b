//! The command line.

mod operate;
mod run;

use std::{io::Read as _, path::PathBuf, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};
use tunnel_daemon::{
    cli::{ConfigCommand, GenerateCommand},
    config::{schema, show},
    error::{CliError, Exit},
    output::{self, OutputArg},
};
use tunnel_identity::{JoinToken, ParseTokenError};
use tunnel_model::NodeName;

use crate::{
    config::{Config, DEFAULT_PATH, RawConfig},
    join::{Plan, Stage, join},
    reload::LONGEST_TRIAL,
};

/// Makes this machine reachable through its gateway
#[derive(Debug, Parser)]
#[command(name = "tunnel-edge", version, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file
    #[arg(long, global = true, default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// How data is printed
    #[command(flatten)]
    pub output: OutputArg,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrol this machine with a join token, and write the configuration file
    Join {
        /// The token; `-` reads it from stdin, where other users of this machine cannot see it
        token: String,
        /// Where to keep the node's keys
        #[arg(long, default_value = "/var/lib/tunnel-edge", value_name = "DIR")]
        state: PathBuf,
        /// The node's name [default: the token's, else this machine's host name]
        #[arg(long)]
        name: Option<NodeName>,
    },
    /// Run the agent
    Run,
    /// Show what the running agent is doing
    Status,
    /// Show when there was no link to the gateway, why, and for how long; also while no agent runs
    History,
    /// Find out how far this machine gets: to the gateway, through the tunnel, to each service
    Check,
    /// Wait until the running agent is connected
    Wait {
        /// How long to wait, such as 30s, 5m or 1h
        #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
        timeout: Duration,
    },
    /// Make the running agent take the configuration file again; what may cut this machine off is on trial
    Reload {
        /// Go back to the configuration before unless `tunnel-edge confirm` is run within this time, such as 120s
        #[arg(long, value_parser = trial, value_name = "TIME")]
        confirm_within: Option<Duration>,
    },
    /// Keep the configuration that is on trial
    Confirm,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Completions and man pages
    #[command(flatten)]
    Generate(GenerateCommand),
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> Result<(), CliError> {
        let format = self.output.output;
        let load = || Config::load(&self.config).map_err(CliError::from);
        match self.command {
            Command::Join { token, state, name } => {
                let token = read_token(&token)?;
                let config = self.config;
                join_and_tell(Plan {
                    token,
                    config,
                    state,
                    name,
                })
                .await
            }
            Command::Run => run::run(&self.config).await,
            Command::Status => operate::status(&load()?, format).await,
            Command::History => operate::history(&load()?, format),
            Command::Check => operate::check(&load()?, format).await,
            Command::Wait { timeout } => operate::wait(&load()?, timeout, format).await,
            Command::Reload { confirm_within } => operate::reload(&load()?, confirm_within, format).await,
            Command::Confirm => operate::confirm(&load()?, format).await,
            Command::Config(ConfigCommand::Check) => {
                load()?;
                output::message(&format!("{} is good", self.config.display()));
                Ok(())
            }
            Command::Config(ConfigCommand::Show) => output::data(show(&load()?.to_raw(), format)?.trim_end()),
            Command::Config(ConfigCommand::Schema) => output::data(&schema::<RawConfig>()),
            Command::Generate(generate) => generate.run(Self::command()),
        }
    }
}

async fn join_and_tell(plan: Plan) -> Result<(), CliError> {
    let joined = join(&plan, |stage| output::message(&line(&stage))).await?;
    let config = plan.config.display();
    output::message(&format!(
        "{} has joined; start it with: tunnel-edge run --config {config}",
        joined.name
    ));
    Ok(())
}

fn line(stage: &Stage) -> String {
    let outcome = if stage.ok { "ok" } else { "failed" };
    let line = format!("{:8} {outcome:6} {:>6} ms", stage.name, stage.millis);
    // What failed is said once, by the error that follows.
    if stage.ok {
        format!("{line}  {}", stage.detail)
    } else {
        line
    }
}

fn read_token(text: &str) -> Result<JoinToken, CliError> {
    let mut from_stdin = String::new();
    let text = if text == "-" {
        let read = std::io::stdin().lock().take(16 * 1024).read_to_string(&mut from_stdin);
        read.map_err(|error| {
            CliError::new(
                Exit::Failure,
                "token-read",
                format!("cannot read the join token from stdin: {error}"),
            )
        })?;
        from_stdin.as_str()
    } else {
        text
    };
    text.trim().parse().map_err(|error: ParseTokenError| {
        let code = match error {
            ParseTokenError::NotAToken => "token-not-one",
            ParseTokenError::Newer => "token-newer",
            ParseTokenError::Cut => "token-cut",
            ParseTokenError::TooLong => "token-too-long",
            ParseTokenError::BadCharacter { .. } => "token-bad-character",
            ParseTokenError::Mistyped => "token-mistyped",
            ParseTokenError::BadContent => "token-bad-content",
        };
        CliError::new(Exit::Usage, code, error.to_string())
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("the units are s, m and h".to_owned()),
    };
    let count: u32 = digits
        .parse()
        .map_err(|_| "write a number and a unit, such as 30s".to_owned())?;
    Ok(Duration::from_secs(u64::from(count) * unit))
}

fn trial(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        within if within.is_zero() || within > LONGEST_TRIAL => Err("a trial takes from 1s to 24h".to_owned()),
        within => Ok(within),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("5m").unwrap(), Duration::from_secs(300));
        for bad in ["", "m", "5d", "-1s", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(trial("24h").is_ok() && trial("0s").is_err() && trial("25h").is_err());
    }
}
