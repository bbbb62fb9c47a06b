//! The command line of `tunnel-cloud`.
//!
//! Commands that look at or change the gateway make requests of the admin API (`gateway`), whether a gateway runs or
//! not. Data goes to stdout, messages to stderr; exit codes are those of [`tunnel_daemon::error::Exit`].

mod args;
mod audit;
mod certificates;
mod forward;
mod gateway;
mod init;
mod lab;
mod nodes;
mod ping;
mod rights;
mod routes;
mod serve;
mod status;
mod streams;
mod tokens;
mod top;
mod users;

use clap::CommandFactory;
use tunnel_daemon::{
    cli::ConfigCommand,
    config as files,
    error::CliError,
    output::{self, OutputFormat},
};

pub use args::{
    AuditCommand, CertificateArgs, CertificateKey, Cli, Command, ForwardArgs, InitArgs, KillArgs, LabArgs,
    NodesCommand, PolicyCommand, RoutesCommand, StreamsCommand, TokenArgs, TokenCommand, UsersCommand,
};
pub use serve::serve;

use crate::config::{Config, RawConfig};
use gateway::Gateway;

/// Does what the command line says.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    let format = cli.output.output;
    let load = || Config::load(&cli.config);
    match cli.command {
        Command::Init(args) => init::run(&cli.config, args, format).await,
        Command::Serve => serve(load()?).await,
        Command::Lab(args) => lab::run(args, format).await,
        Command::Config { command } => config(command, &load, format),
        Command::Token { command } => tokens::run(command, &Gateway::find(load()?).await?, format).await,
        Command::Nodes { command } => nodes::run(command, &Gateway::find(load()?).await?, format).await,
        Command::Routes { command } => routes::run(command, &Gateway::find(load()?).await?, format).await,
        Command::Users { command } => users::run(command, &Gateway::find(load()?).await?, format).await,
        Command::Policy { command } => rights::policy(command, &Gateway::find(load()?).await?, format).await,
        Command::Explain { destination, subject } => {
            rights::explain(destination, subject, &Gateway::find(load()?).await?, format).await
        }
        Command::Streams { command } => streams::run(command, &Gateway::find(load()?).await?, format).await,
        Command::Top { once } => top::run(&Gateway::find(load()?).await?, once, format).await,
        Command::Reload => rights::reload(&Gateway::find(load()?).await?, format).await,
        Command::Status => status::run(&Gateway::find(load()?).await?, format).await,
        Command::Ping { node, count } => ping::run(&Gateway::find(load()?).await?, &node, count, format).await,
        Command::Forward(args) => forward::run(&Gateway::find(load()?).await?, args, format).await,
        Command::Backup { path } => status::backup(&Gateway::find(load()?).await?, &path).await,
        Command::Audit { command } => audit::run(command, &load()?, format),
        Command::Generate(generate) => generate.run(Cli::command()),
    }
}

fn config(
    command: ConfigCommand,
    load: &dyn Fn() -> Result<Config, files::ConfigError>,
    format: OutputFormat,
) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check => {
            load()?;
            output::message("the configuration is good");
            Ok(())
        }
        ConfigCommand::Show => output::data(files::show(&load()?, format)?.trim_end()),
        ConfigCommand::Schema => output::data(&files::schema::<RawConfig>()),
    }
}
