//! The gateway's admin API: HTTP/JSON, versioned by path, served on a Unix socket to whoever may open it.
//!
//! A command in the absence of a running gateway calls the very same router in its own process, on the state that it
//! then owns alone; so there is one way to change anything. The answers are in [`api`].

pub mod api;
mod certificates;
mod error;
mod forwards;
mod nodes;
mod record;
mod rights;
mod routes;
mod sample;
mod status;
mod streams;
mod tokens;
mod users;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router, middleware,
    routing::{delete, get, patch, post},
};
use tunnel_carrier::CarrierKind;
use tunnel_daemon::error::{CliError, Exit};
use tunnel_model::{NodeId, Reason, Refusal};

use crate::{config::Config, dial::Gateway, reload::Reloader, state::State};

pub use error::{ApiError, exit_of};
pub use forwards::OpenForward;

/// What the API asks of the live sessions with nodes.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Measures a round trip to the agent of a node, through the tunnel.
    async fn ping(&self, node: NodeId) -> Result<Duration, Refusal>;

    /// What the session of a node goes over, if it has one that is connected.
    fn carrier(&self, node: NodeId) -> Option<CarrierKind>;

    /// Ends the session of a node, if it has one, and tells it why. Does not wait for the end.
    fn disconnect(&self, node: NodeId, why: Reason);

    /// Opens a forward, until what it returns is dropped.
    fn forward(&self, wanted: &api::CreateForward) -> Result<OpenForward, CliError>;

    /// How things are.
    fn status(&self) -> api::GatewayStatus;
}

/// What the API works on; clones share it.
#[derive(Clone)]
pub struct AppState {
    /// The configuration.
    pub config: Arc<Config>,
    /// Store, directory, users and keys.
    pub state: Arc<State>,
    /// The live sessions; `None` where no gateway runs.
    pub sessions: Option<Arc<dyn Sessions>>,
    /// Rights and open streams; `None` where no gateway runs.
    pub gateway: Option<Arc<Gateway>>,
    /// What reads the configuration again; `None` where no gateway runs.
    pub reloader: Option<Arc<Reloader>>,
}

/// The API.
pub fn router(app: AppState) -> Router {
    Router::new()
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{name}", get(nodes::show).delete(nodes::remove))
        .route("/v1/nodes/{name}/history", get(nodes::history))
        .route("/v1/nodes/{name}/labels", patch(nodes::label))
        .route("/v1/nodes/{name}/revoke", post(nodes::revoke))
        .route("/v1/nodes/{name}/ping", post(nodes::ping))
        .route("/v1/routes", get(routes::list))
        .route("/v1/routes/approve", post(routes::approve))
        .route("/v1/routes/revoke", post(routes::revoke))
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{name}", delete(users::remove))
        .route("/v1/users/{name}/certificates", post(certificates::issue))
        .route("/v1/policy/test", post(rights::test))
        .route("/v1/explain", post(rights::explain))
        .route("/v1/reload", post(rights::reload))
        .route("/v1/streams", get(streams::list))
        .route("/v1/streams/kill", post(streams::kill))
        .route("/v1/streams/sample", get(sample::take))
        .route("/v1/forwards", post(forwards::open))
        .route("/v1/status", get(status::status))
        .route("/v1/backup", post(status::backup))
        .fallback(unknown)
        .route_layer(middleware::from_fn_with_state(app.clone(), record::record))
        .with_state(app)
}

async fn unknown() -> ApiError {
    CliError::new(
        Exit::Failure,
        "admin-unknown-request",
        "this version of the gateway knows no such request",
    )
    .with_hint("use the command of the gateway's own version")
    .into()
}

/// What needs a running gateway was asked of none.
pub(crate) fn not_running() -> CliError {
    CliError::new(Exit::Failure, "gateway-not-running", "the gateway is not running")
        .with_hint("start it with `tunnel-cloud serve`")
}

impl AppState {
    fn sessions(&self) -> Result<&dyn Sessions, ApiError> {
        self.sessions.as_deref().ok_or_else(|| not_running().into())
    }

    fn gateway(&self) -> Result<&Gateway, ApiError> {
        self.gateway.as_deref().ok_or_else(|| not_running().into())
    }

    /// Judges open streams again, once a user or a node's labels have changed.
    fn recheck(&self) {
        if let Some(gateway) = &self.gateway {
            gateway.recheck();
        }
    }

    fn disconnect(&self, node: NodeId, why: Reason) {
        if let Some(sessions) = &self.sessions {
            sessions.disconnect(node, why);
        }
    }
}

#[cfg(test)]
mod tests;
