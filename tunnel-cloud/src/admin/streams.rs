//! Streams that are open.

use axum::{Json, body::Bytes, extract::State};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_model::{Reason, Refusal};

use super::{
    AppState,
    api::{Kill, Killed, StreamList, StreamView},
    error::{Answer, bad_request, read},
};
use crate::dial::Grant;

pub(super) async fn list(State(app): State<AppState>) -> Answer<StreamList> {
    let streams = app.gateway()?.grants.list();
    Ok(Json(StreamList {
        streams: streams.iter().map(|grant| view(grant)).collect(),
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

fn view(grant: &Grant) -> StreamView {
    StreamView {
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
