//! `status` and `backup`.

use std::path::Path;

use hyper::Method;
use tunnel_daemon::{
    error::{CliError, Exit},
    output::{self, OutputFormat, Table},
};

use super::gateway::Gateway;
use crate::admin::api::{Backup, Done, Status};

pub(super) async fn run(gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    format.emit(&gateway.get::<Status>("/v1/status").await?, table)
}

fn table(status: &Status) -> Table {
    let listen = &status.gateway.listen;
    let mut table = Table::new(["field", "value"]);
    table
        .row(["version", &status.version])
        .row(["cluster", &status.cluster.to_string()])
        .row(["zone", &status.zone.to_string()])
        .row(["started", &status.gateway.started_at])
        .row(["public", &listen.public.to_string()])
        .row(["proxy", &listen.proxy.to_string()])
        .row(["metrics", &listen.metrics.to_string()])
        .row(["nodes online", &status.nodes.online.to_string()])
        .row(["nodes offline", &status.nodes.offline.to_string()])
        .row(["nodes revoked", &status.nodes.revoked.to_string()])
        .row(["streams", &status.gateway.streams.to_string()]);
    for (class, streams) in &status.streams_by_class {
        table.row([&format!("streams, {class}"), &streams.to_string()]);
    }
    table.row(["authority expires", &status.authority_expires_at]);
    table
}

pub(super) async fn backup(gateway: &Gateway, path: &Path) -> Result<(), CliError> {
    // The gateway has a working directory of its own.
    let path = std::path::absolute(path)
        .map_err(|error| CliError::new(Exit::Usage, "backup-path", format!("{path:?} is no path: {error}")))?;
    let wanted = Backup { path };
    let Done {} = gateway.request(Method::POST, "/v1/backup", Some(&wanted)).await?;
    output::message(&format!("the store is copied to {}", wanted.path.display()));
    Ok(())
}
