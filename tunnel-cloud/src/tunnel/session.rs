//! The life of one node's session.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_carrier::{
    Established, Incoming, Notice, Rejected, Tunnel,
    quic::{self, Accepted},
};
use tunnel_identity::{Expiry, IdentityError, NodeIdentity};
use tunnel_model::{NodeRecord, Reason, Refusal};
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use super::{
    Context, now,
    outbound::{self, Opener},
};
use crate::{
    audit::{
        Refused,
        record::{Event, Node, Why},
    },
    directory::Stay,
};

/// Admits a node, keeps its session, and notes its end.
pub(super) async fn run(context: Arc<Context>, accepted: Accepted, cutting: CancellationToken) {
    let from = accepted.connection.remote_address();
    let record = match who(&context, &accepted) {
        Ok(record) => record,
        Err(refusal) => {
            warn!(%from, reason = %refusal.reason, detail = refusal.message, "node refused");
            context.registry.metrics().node_refused(refusal.reason);
            let event = Event::SessionRefused {
                client: from,
                why: Why::from(&refusal),
            };
            context.audit.refusal(Refused::Node, &event);
            quic::close(&accepted.connection, &refusal);
            return;
        }
    };
    let hello = Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: context.run,
        software: concat!("tunnel-cloud ", env!("CARGO_PKG_VERSION")).to_owned(),
        name: record.name.to_string(),
        unix_millis: now().secs() * 1000,
    };
    let established = match Tunnel::establish(accepted.connection, Side::Gateway, Config::default(), hello).await {
        Ok(established) => established,
        Err(Rejected { refusal, .. }) => {
            warn!(node = %record.name, %from, reason = %refusal.reason, detail = refusal.message, "no session");
            return;
        }
    };

    let Established { tunnel, driver, .. } = established;
    if context.registry.admit(record.id, tunnel.clone()) {
        warn!(node = %record.name, %from, "a newer session took over; if this goes on, two machines share one certificate");
    }
    let agent = established.negotiated.peer.software;
    // Whoever revokes a node marks it first and looks for its session then: one of the two sees the other.
    let Some(stay) = context.directory.online(record.id, agent.clone(), now()) else {
        tunnel.close(&revoked());
        context.registry.leave(record.id, &tunnel);
        return;
    };
    info!(node = %record.name, %from, agent, "node online");

    let opener = Opener {
        id: record.id,
        name: record.name.clone(),
        from,
    };
    let watching = watch(&context, &opener, &stay, established.notices, established.incoming);
    let end = tokio::select! {
        end = driver.run() => end,
        never = watching => match never {},
        () = cutting.cancelled() => Refusal::new(Reason::Draining, "the gateway has stopped"),
    };
    tunnel.close(&end);
    if end.reason == Reason::Revoked {
        let node = Node {
            node: record.name.clone(),
            node_id: record.id,
            client: from,
        };
        context.audit.note_durably(Event::SessionRevoked(node)).await;
    }
    context.directory.offline(stay, end.reason, now());
    context.registry.leave(record.id, &tunnel);
    context.registry.metrics().session_ended(end.reason);
    info!(node = %record.name, reason = %end.reason, detail = end.message, "session ended");
}

fn who(context: &Context, accepted: &Accepted) -> Result<NodeRecord, Refusal> {
    let gone = |node, _: &_| context.directory.is_revoked(node);
    let identity = NodeIdentity::from_chain(&accepted.chain, context.root(), now(), Expiry::Full, &gone)
        .map_err(|error| certificate_refused(&error))?;
    let record = context
        .directory
        .read(|all| all.get(identity.node).cloned())
        .ok_or_else(revoked)?;
    let limit = usize::try_from(context.limits.nodes.get()).unwrap_or(usize::MAX);
    if context.registry.len() >= limit && context.registry.get(record.id).is_none() {
        let message = format!("{limit} nodes are connected, as many as this gateway takes (key \"limits.nodes\")");
        return Err(Refusal::new(Reason::Overloaded, message));
    }
    Ok(record)
}

/// What a node is told whose certificate is not accepted.
pub(super) fn certificate_refused(error: &IdentityError) -> Refusal {
    match error {
        IdentityError::Revoked => revoked(),
        _ => Refusal::new(Reason::Unauthenticated, format!("{error} [{}]", error.code())),
    }
}

/// What a node is told that may not come back.
pub(crate) fn revoked() -> Refusal {
    Refusal::new(
        Reason::Revoked,
        "this node was revoked or removed; clear its state directory and join again with a new token",
    )
}

/// Takes what the node says and asks while its session runs.
async fn watch(
    context: &Arc<Context>,
    opener: &Opener,
    stay: &Stay,
    mut notices: mpsc::Receiver<Notice>,
    mut incoming: mpsc::Receiver<Incoming>,
) -> std::convert::Infallible {
    loop {
        tokio::select! {
            Some(notice) = notices.recv() => match notice {
                Notice::Offer(offer) => context.directory.declare(stay, offer),
                Notice::GoAway { refusal, .. } => {
                    info!(node = %opener.name, reason = %refusal.reason, detail = refusal.message, "node is leaving");
                }
            },
            Some(wanted) = incoming.recv() => {
                context.tasks.spawn(outbound::serve(Arc::clone(context), opener.clone(), wanted));
            },
            else => std::future::pending().await,
        }
    }
}
