//! `nodes`: the edges that have joined.

use hyper::Method;
use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat, Table},
};

use super::{
    NodesCommand,
    args::LabelEdit,
    gateway::{Gateway, segment},
};
use crate::admin::api::{Connection, Done, EditLabels, NodeDetail, NodeHistory, NodeList, NodeView};

pub(super) async fn run(command: NodesCommand, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    let path = |node: &str| format!("/v1/nodes/{}", segment(node));
    match command {
        NodesCommand::Ls => format.emit(&gateway.get::<NodeList>("/v1/nodes").await?, list),
        NodesCommand::Show { node } => format.emit(&gateway.get::<NodeDetail>(&path(&node)).await?, detail),
        NodesCommand::History { node } => {
            let path = path(&node) + "/history";
            format.emit(&gateway.get::<NodeHistory>(&path).await?, history)
        }
        NodesCommand::Label { node, edits } => {
            let path = path(&node) + "/labels";
            let edit = edit(edits);
            format.emit(
                &gateway
                    .request::<_, NodeDetail>(Method::PATCH, &path, Some(&edit))
                    .await?,
                detail,
            )
        }
        NodesCommand::Rm { node } => {
            let Done {} = gateway.request(Method::DELETE, &path(&node), None::<&()>).await?;
            output::message(&format!("node {node} is removed"));
            Ok(())
        }
        NodesCommand::Revoke { node } => {
            let path = path(&node) + "/revoke";
            let Done {} = gateway.request(Method::POST, &path, None::<&()>).await?;
            output::message(&format!("node {node} is revoked"));
            Ok(())
        }
    }
}

fn edit(edits: Vec<LabelEdit>) -> EditLabels {
    let mut edit = EditLabels::default();
    for change in edits {
        match change {
            LabelEdit::Set(key, value) => edit.set.push((key, value)),
            LabelEdit::Remove(key) => edit.remove.push(key),
        }
    }
    edit
}

fn list(list: &NodeList) -> Table {
    let mut table = Table::new(["name", "state", "since", "carrier", "reason", "labels", "agent"]);
    for node in &list.nodes {
        table.row([
            node.name.as_str(),
            state(node),
            &node.since,
            node.carrier.as_deref().unwrap_or(""),
            node.reason.as_deref().unwrap_or(""),
            &node.labels.to_string(),
            &node.agent_version,
        ]);
    }
    table
}

fn detail(detail: &NodeDetail) -> Table {
    let node = &detail.node;
    let mut table = Table::new(["field", "value"]);
    table
        .row(["name", node.name.as_str()])
        .row(["id", &node.id.to_string()])
        .row(["state", state(node)])
        .row(["since", &node.since])
        .row(["reason", node.reason.as_deref().unwrap_or("")])
        .row(["carrier", node.carrier.as_deref().unwrap_or("")])
        .row(["labels", &node.labels.to_string()])
        .row(["agent", &node.agent_version])
        .row(["joined", &node.enrolled_at])
        .row(["revoked", node.revoked_at.as_deref().unwrap_or("")]);
    for service in &node.services {
        table.row(["service", &format!("{} at {}", service.name, service.target)]);
    }
    for subnet in &node.subnets {
        table.row(["advertises", &subnet.to_string()]);
    }
    for certificate in &detail.certificates {
        table.row([
            "certificate",
            &format!("{} to {}", certificate.serial, certificate.expires_at),
        ]);
    }
    table
}

fn history(history: &NodeHistory) -> Table {
    let mut table = Table::new(["begun", "lasted", "cause", "sent", "received", "message"]);
    for loss in &history.losses {
        table.row([
            &loss.begun_at,
            &format!("{:.1} s", loss.lasted_seconds),
            loss.cause.as_str(),
            &format!("{} bytes", loss.sent_bytes),
            &format!("{} bytes", loss.received_bytes),
            &loss.message,
        ]);
    }
    table
}

fn state(node: &NodeView) -> &'static str {
    match node.state {
        _ if node.revoked_at.is_some() => "revoked",
        Connection::Online => "online",
        Connection::Offline => "offline",
    }
}
