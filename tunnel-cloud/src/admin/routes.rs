//! Routes: which node leads to which subnet.

use std::time::SystemTime;

use axum::{Json, body::Bytes, extract::State};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::UnixTime;

use super::{
    AppState,
    api::{ChangeRoute, RouteList, RouteView},
    error::{Answer, read},
    nodes::find,
};
use crate::directory::{ApproveError, RouteEntry};

pub(super) async fn list(State(app): State<AppState>) -> Json<RouteList> {
    Json(RouteList {
        routes: app.state.directory.routes().into_iter().map(view).collect(),
    })
}

pub(super) async fn approve(State(app): State<AppState>, body: Bytes) -> Answer<RouteList> {
    let ChangeRoute { node, subnet } = read(&body)?;
    let id = find(&app.state.directory, &node)?.record.id;
    let now = UnixTime::from(SystemTime::now());
    app.state.directory.approve_route(id, subnet, now).await?;
    tracing::info!(node, %subnet, "route approved");
    Ok(list(State(app)).await)
}

pub(super) async fn revoke(State(app): State<AppState>, body: Bytes) -> Answer<RouteList> {
    let ChangeRoute { node, subnet } = read(&body)?;
    let id = find(&app.state.directory, &node)?.record.id;
    if !app.state.directory.revoke_route(id, subnet).await? {
        let message = format!("{subnet} is not approved for {node}");
        return Err(CliError::new(Exit::Failure, "unknown-route", message)
            .with_hint("`tunnel-cloud routes ls` lists the routes")
            .into());
    }
    tracing::info!(node, %subnet, "route revoked");
    Ok(list(State(app)).await)
}

fn view(route: RouteEntry) -> RouteView {
    RouteView {
        node: route.node,
        subnet: route.subnet,
        state: route.state,
        ambiguous: route.ambiguous,
        approved_at: route.approved_at.map(|at| UnixTime::from_secs(at).to_string()),
    }
}

impl From<ApproveError> for CliError {
    fn from(error: ApproveError) -> Self {
        match error {
            ApproveError::Store(error) => error.into(),
            ApproveError::NotAdvertised { .. } => Self::new(Exit::Failure, "route-not-advertised", error.to_string())
                .with_hint("add it to `advertise` in the node's edge.toml"),
            ApproveError::UnknownNode => Self::new(Exit::UnknownNode, "unknown-node", "the node is gone or revoked")
                .with_hint("`tunnel-cloud nodes ls` lists them"),
        }
    }
}
