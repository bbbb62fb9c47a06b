//! Streams that are open.

use axum::{Json, body::Bytes, extract::State};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::UnixTime;
use tunnel_model::{Identity, NodeName, NodeState, Reason, Refusal};

use super::{
    AppState,
    api::{Kill, Killed, StreamList, StreamState, StreamView},
    error::{Answer, bad_request, read},
};
use crate::dial::{Gateway, Grant};

pub(super) async fn list(State(app): State<AppState>) -> Answer<StreamList> {
    let gateway = app.gateway()?;
    let streams = gateway.grants.list();
    Ok(Json(StreamList {
        streams: streams.iter().map(|grant| view(gateway, grant)).collect(),
    }))
}

pub(super) async fn kill(State(app): State<AppState>, body: Bytes) -> Answer<Killed> {
    let wanted: Kill = read(&body)?;
    if wanted.id.is_none() && wanted.principal.is_none() && wanted.node.is_none() {
        return Err(bad_request("say which streams: a number, a principal or a node"));
    }
    let grants = &app.gateway()?.grants;
    let why = Refusal::new(Reason::Cancelled, "an administrator ended the stream");
    let meant = |grant: &Grant| {
        wanted.id.is_none_or(|id| id == grant.id)
            && wanted.node.as_ref().is_none_or(|node| *node == grant.destination.node)
            && wanted
                .principal
                .as_ref()
                .is_none_or(|who| *who == grant.principal.to_string())
    };
    let cut = |grant: &&std::sync::Arc<Grant>| meant(grant) && grants.cut(grant, why.clone());
    let streams = grants.list().iter().filter(cut).count();
    match (wanted.id, streams) {
        (Some(id), 0) => {
            let message = format!("no open stream has the number {id}");
            Err(CliError::new(Exit::Failure, "unknown-stream", message)
                .with_hint("`tunnel-cloud streams ls` lists them")
                .into())
        }
        _ => Ok(Json(Killed { streams })),
    }
}

fn view(gateway: &Gateway, grant: &Grant) -> StreamView {
    let waiting_since = waiting_since(gateway, grant);
    StreamView {
        state: match waiting_since {
            Some(_) => StreamState::Waiting,
            None => StreamState::Running,
        },
        waiting_since: waiting_since.map(|since| since.to_string()),
        id: grant.id,
        principal: grant.principal.to_string(),
        node: grant.destination.node.clone(),
        target: grant.destination.target.to_string(),
        class: grant.class,
        way: grant.way.as_str().to_owned(),
        since: grant.since.to_string(),
        bytes_up: grant.up(),
        bytes_down: grant.down(),
        trace: grant.trace,
    }
}

/// Since when a stream waits for a node at one of its ends to connect again.
pub(super) fn waiting_since(gateway: &Gateway, grant: &Grant) -> Option<UnixTime> {
    let caller = match &grant.principal.identity {
        Identity::Node { name, .. } => Some(name),
        _ => None,
    };
    let ends = [Some(&grant.destination.node), caller];
    ends.into_iter()
        .flatten()
        .filter_map(|node| offline_since(gateway, node))
        .min()
}

/// Since when a node has been offline whose session is kept.
fn offline_since(gateway: &Gateway, node: &NodeName) -> Option<UnixTime> {
    let since = gateway.directory.read(|all| {
        let node = all.by_name(node)?;
        match node.state {
            NodeState::Offline { since, .. } => Some((node.id, since)),
            NodeState::Online { .. } => None,
        }
    });
    let (id, since) = since?;
    let waits = gateway.registry.get(id).is_some_and(|tunnel| !tunnel.is_connected());
    waits.then(|| UnixTime::from_secs(since))
}
