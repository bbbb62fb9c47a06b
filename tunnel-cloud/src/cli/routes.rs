//! `routes`: which node leads to which subnet.

use hyper::Method;
use tunnel_daemon::{
    error::CliError,
    output::{OutputFormat, Table},
};
use tunnel_model::Subnet;

use super::{RoutesCommand, gateway::Gateway};
use crate::admin::api::{ChangeRoute, RouteList, RouteState};

pub(super) async fn run(command: RoutesCommand, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    let list = match command {
        RoutesCommand::Ls => gateway.get("/v1/routes").await?,
        RoutesCommand::Approve { node, subnet } => change(gateway, "approve", node, subnet).await?,
        RoutesCommand::Revoke { node, subnet } => change(gateway, "revoke", node, subnet).await?,
    };
    format.emit(&list, table)
}

/// Makes a change; returns what the routes are then.
async fn change(gateway: &Gateway, what: &str, node: String, subnet: Subnet) -> Result<RouteList, CliError> {
    let wanted = ChangeRoute { node, subnet };
    let path = format!("/v1/routes/{what}");
    gateway.request(Method::POST, &path, Some(&wanted)).await
}

fn table(list: &RouteList) -> Table {
    let mut table = Table::new(["node", "subnet", "state", "approved"]);
    for route in &list.routes {
        let state = match route.state {
            RouteState::Advertised => "advertised",
            RouteState::Approved if route.ambiguous => "approved, ambiguous",
            RouteState::Approved => "approved",
            RouteState::Withdrawn => "withdrawn",
        };
        let approved = route.approved_at.as_deref().unwrap_or("");
        table.row([route.node.as_str(), &route.subnet.to_string(), state, approved]);
    }
    table
}
