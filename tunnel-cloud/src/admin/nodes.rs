//! Nodes.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::UnixTime;
use tunnel_model::{LinkLoss, NodeName, NodeState, Reason};

use super::{
    AppState,
    api::{CertificateView, Connection, Done, EditLabels, LossView, NodeDetail, NodeHistory, NodeList, NodeView, Pong},
    error::{Answer, ApiError, read, refused},
};
use crate::{
    directory::{LabelError, LiveDirectory},
    store::Node,
};

/// How long a node may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How alike a name must be (Jaro-Winkler) to be suggested instead of one that is not there.
const ALIKE: f64 = 0.8;

pub(super) async fn list(State(app): State<AppState>) -> Json<NodeList> {
    Json(NodeList {
        nodes: app
            .state
            .directory
            .list()
            .into_iter()
            .map(|node| view(&app, node))
            .collect(),
    })
}

pub(super) async fn show(State(app): State<AppState>, Path(name): Path<String>) -> Answer<NodeDetail> {
    let node = find(&app.state.directory, &name)?;
    let certificates = app.state.store.certificates(node.record.id).await?;
    Ok(Json(NodeDetail {
        node: view(&app, node),
        certificates: certificates
            .into_iter()
            .map(|certificate| CertificateView {
                serial: certificate.serial,
                issued_at: UnixTime::from_secs(certificate.issued_at).to_string(),
                expires_at: UnixTime::from_secs(certificate.not_after).to_string(),
            })
            .collect(),
    }))
}

pub(super) async fn history(State(app): State<AppState>, Path(name): Path<String>) -> Answer<NodeHistory> {
    let node = find(&app.state.directory, &name)?.record;
    let losses = app.state.store.losses(node.id).await?;
    Ok(Json(NodeHistory {
        node: node.name,
        losses: losses.into_iter().map(loss).collect(),
    }))
}

fn loss(loss: LinkLoss) -> LossView {
    LossView {
        number: loss.number,
        cause: loss.cause,
        begun_at: UnixTime::from_secs(loss.begun_millis / 1000).to_string(),
        lasted_seconds: loss.lasted.as_secs_f64(),
        sent_bytes: loss.sent,
        received_bytes: loss.received,
        message: loss.message,
    }
}

pub(super) async fn label(State(app): State<AppState>, Path(name): Path<String>, body: Bytes) -> Answer<NodeDetail> {
    let edit: EditLabels = read(&body)?;
    let id = find(&app.state.directory, &name)?.record.id;
    app.state.directory.edit_labels(id, &edit.set, &edit.remove).await?;
    tracing::info!(node = name, "labels changed");
    app.recheck();
    show(State(app), Path(name)).await
}

pub(super) async fn revoke(State(app): State<AppState>, Path(name): Path<String>) -> Answer<Done> {
    let id = find(&app.state.directory, &name)?.record.id;
    let now = UnixTime::from(SystemTime::now());
    if !app.state.directory.revoke(id, now).await? {
        return Err(unknown(&app.state.directory, &name));
    }
    app.disconnect(id, Reason::Revoked);
    tracing::info!(node = name, "node revoked");
    Ok(Json(Done {}))
}

pub(super) async fn remove(State(app): State<AppState>, Path(name): Path<String>) -> Answer<Done> {
    let id = find(&app.state.directory, &name)?.record.id;
    if !app.state.directory.remove(id).await? {
        return Err(unknown(&app.state.directory, &name));
    }
    app.disconnect(id, Reason::Revoked);
    tracing::info!(node = name, "node removed");
    Ok(Json(Done {}))
}

pub(super) async fn ping(State(app): State<AppState>, Path(name): Path<String>) -> Answer<Pong> {
    let name = find(&app.state.directory, &name)?.record.name;
    let sessions = app.sessions()?;
    let id = app.state.directory.reach(&name).map_err(|refusal| refused(&refusal))?;
    let round_trip = tokio::time::timeout(PING_TIMEOUT, sessions.ping(id))
        .await
        .map_err(|_| {
            let seconds = PING_TIMEOUT.as_secs();
            CliError::new(
                Exit::Timeout,
                "ping-timeout",
                format!("node {name} did not answer within {seconds} s"),
            )
            .with_hint("its link may be down without anybody having noticed yet")
        })?
        .map_err(|refusal| refused(&refusal))?;
    Ok(Json(Pong {
        node: name,
        round_trip_ms: round_trip.as_secs_f64() * 1000.0,
    }))
}

pub(super) fn find(directory: &LiveDirectory, name: &str) -> Result<Node, ApiError> {
    // What cannot be a name is the name of no node.
    let node = name.parse::<NodeName>().ok().and_then(|name| directory.get(&name));
    node.ok_or_else(|| unknown(directory, name))
}

fn unknown(directory: &LiveDirectory, name: &str) -> ApiError {
    let error = CliError::new(Exit::UnknownNode, "unknown-node", format!("no node is named {name:?}"));
    let alike = |node: &Node| strsim::jaro_winkler(name, node.record.name.as_str());
    let nodes = directory.list();
    let nearest = nodes.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|node| alike(node) >= ALIKE) {
        Some(node) => error.with_hint(format!("did you mean \"{}\"?", node.record.name)),
        None => error.with_hint("`tunnel-cloud nodes ls` lists them"),
    }
    .into()
}

fn view(app: &AppState, node: Node) -> NodeView {
    let (state, since, why) = match node.record.state {
        NodeState::Online { since } => (Connection::Online, since, None),
        NodeState::Offline { since, why } => (Connection::Offline, since, why),
    };
    let time = |seconds| UnixTime::from_secs(seconds).to_string();
    let carrier = app
        .sessions
        .as_ref()
        .and_then(|sessions| sessions.carrier(node.record.id));
    NodeView {
        name: node.record.name,
        id: node.record.id,
        state,
        since: time(since),
        reason: why.map(|why| why.to_string()),
        carrier: carrier.map(|kind| kind.to_string()),
        revoked_at: node.revoked_at.map(time),
        labels: node.record.labels,
        services: node.record.services,
        subnets: node.record.subnets,
        agent_version: node.record.agent_version,
        enrolled_at: time(node.enrolled_at),
    }
}

impl From<LabelError> for CliError {
    fn from(error: LabelError) -> Self {
        match error {
            LabelError::Store(error) => error.into(),
            LabelError::Label(_) => Self::new(Exit::Usage, "bad-label", error.to_string()),
            LabelError::UnknownNode => Self::new(Exit::UnknownNode, "unknown-node", "the node is gone or revoked")
                .with_hint("`tunnel-cloud nodes ls` lists them"),
        }
    }
}
