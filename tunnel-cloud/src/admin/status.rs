//! How things are, and copies of the store.

use std::collections::BTreeMap;

use axum::{Json, body::Bytes, extract::State};
use tunnel_model::{Class, NodeState};

use super::{
    AppState,
    api::{Backup, Done, NodeCounts, Status},
    error::{Answer, bad_request, read},
};
use crate::{dial::Grants, directory::LiveDirectory, store::Node};

pub(super) async fn status(State(app): State<AppState>) -> Answer<Status> {
    let authority = &app.state.authority;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: authority.root().cluster(),
        zone: app.config.zone.clone(),
        nodes: count(&app.state.directory),
        authority_expires_at: authority.validity().not_after.to_string(),
        streams_by_class: app
            .gateway
            .as_ref()
            .map(|gateway| by_class(&gateway.grants))
            .unwrap_or_default(),
        gateway: app.sessions()?.status(),
    }))
}

pub(super) async fn backup(State(app): State<AppState>, body: Bytes) -> Answer<Done> {
    let Backup { path } = read(&body)?;
    if !path.is_absolute() {
        return Err(bad_request(format!("{path:?} is not an absolute path")));
    }
    app.state.store.backup(path.clone()).await?;
    tracing::info!(?path, "store copied");
    Ok(Json(Done {}))
}

fn count(directory: &LiveDirectory) -> NodeCounts {
    let is_online = |node: &&Node| matches!(node.record.state, NodeState::Online { .. });
    let nodes = directory.list();
    let revoked = nodes.iter().filter(|node| node.revoked_at.is_some()).count();
    let online = nodes.iter().filter(is_online).count();
    NodeCounts {
        online,
        offline: nodes.len() - online - revoked,
        revoked,
    }
}

fn by_class(grants: &Grants) -> BTreeMap<Class, usize> {
    let mut classes = BTreeMap::new();
    for grant in grants.list() {
        *classes.entry(grant.class).or_default() += 1;
    }
    classes
}
