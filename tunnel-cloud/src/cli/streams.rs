//! `streams`: what is open.

use hyper::Method;
use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat, Table},
};

use super::{KillArgs, StreamsCommand, gateway::Gateway};
use crate::admin::api::{Kill, Killed, StreamList};

pub(super) async fn run(command: StreamsCommand, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    match command {
        StreamsCommand::Ls => format.emit(&gateway.get::<StreamList>("/v1/streams").await?, table),
        StreamsCommand::Kill(KillArgs { id, principal, node }) => {
            let kill = Kill { id, principal, node };
            let killed: Killed = gateway.request(Method::POST, "/v1/streams/kill", Some(&kill)).await?;
            match format {
                OutputFormat::Table => {
                    let s = if killed.streams == 1 { "" } else { "s" };
                    output::message(&format!("{} stream{s} cut", killed.streams));
                    Ok(())
                }
                OutputFormat::Json => output::data(&output::to_json(&killed)?),
            }
        }
    }
}

fn table(list: &StreamList) -> Table {
    let mut table = Table::new([
        "id",
        "principal",
        "node",
        "target",
        "class",
        "way",
        "since",
        "up",
        "down",
        "state",
        "trace",
    ]);
    for stream in &list.streams {
        let state = match &stream.waiting_since {
            Some(since) => format!("{} since {since}", stream.state.as_str()),
            None => stream.state.as_str().to_owned(),
        };
        table.row([
            &stream.id.to_string(),
            stream.principal.as_str(),
            stream.node.as_str(),
            &stream.target,
            stream.class.as_str(),
            &stream.way,
            &stream.since,
            &stream.bytes_up.to_string(),
            &stream.bytes_down.to_string(),
            &state,
            &stream.trace.to_string(),
        ]);
    }
    table
}
