//! The life of one node's session: admitted on its first carrier, kept while it has none, resumed on the next.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_carrier::{Arriving, Carrier, Incoming, Notice, Opened, Tunnel};
use tunnel_identity::{Expiry, IdentityError, NodeIdentity};
use tunnel_model::{LinkLoss, NodeRecord, Reason, Refusal};
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use super::{
    Arrived, Context, now,
    outbound::{self, Opener},
    registry::Live,
};
use crate::{
    audit::{
        Refused,
        record::{Event, Node, Why},
    },
    directory::Stay,
};

/// After how much silence an edge is asked for a sign of life while streams are open; by itself it says something sooner.
const KEEPALIVE: Duration = Duration::from_secs(45);
/// Carriers of one session that wait to take over; one that comes after them is turned away.
const MAX_NEXT: usize = 2;

/// Admits a node, and has its session begin, or go on, over this connection.
pub(super) async fn run(context: Arc<Context>, accepted: Arrived, cutting: CancellationToken) {
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
            accepted.connection.close(&refusal);
            return;
        }
    };
    let config = Config {
        keepalive: Some(KEEPALIVE),
        // An edge may be silent for as long as its network allows.
        idle_pings: false,
        ..Config::default()
    };
    let greeted = async {
        let arriving = Arriving::accept(accepted.connection, config.patience).await?;
        let session = arriving.hello.session;
        // Looked for under the node's own identity: nobody else's session can be had by naming it.
        let live = context.registry.session(record.id, session);
        let hello = Hello {
            min_version: VERSIONS.0,
            max_version: VERSIONS.1,
            features: Vec::new(),
            session,
            carrier: arriving.hello.carrier,
            continues: live.is_some(),
            resume_for: config.resume_for,
            software: concat!("tunnel-cloud ", env!("CARGO_PKG_VERSION")).to_owned(),
            name: record.name.to_string(),
            unix_millis: now().secs() * 1000,
        };
        let carrier = arriving.answer(hello, config.patience).await?;
        Ok::<_, Refusal>((session, live, carrier))
    };
    let (session, live, carrier) = match greeted.await {
        Ok(greeted) => greeted,
        Err(refusal) => {
            warn!(node = %record.name, %from, reason = %refusal.reason, detail = refusal.message, "no session");
            return;
        }
    };
    if let Some(live) = live {
        // Its own task takes it from here. If that has just ended, or has more than it can take, the edge dials again.
        if let Err(refused) = live.next.try_send(Box::new((carrier, from))) {
            let refusal = Refusal::new(
                Reason::CarrierLost,
                "the session does not take this connection; try again",
            );
            refused.into_inner().0.close(&refusal);
        }
        return;
    }
    let opened = Tunnel::new(Side::Gateway, config);
    let (next, carriers) = mpsc::channel(MAX_NEXT);
    let live = Live {
        tunnel: opened.tunnel.clone(),
        session,
        next,
    };
    if context.registry.admit(record.id, live) {
        warn!(node = %record.name, %from, "a newer session took over; if this goes on, two machines share one certificate");
    }
    let session = Session {
        context,
        record,
        opened,
        carriers,
        cutting,
    };
    session.keep(carrier, from).await;
}

/// One session, over one carrier after the other.
struct Session {
    context: Arc<Context>,
    record: NodeRecord,
    opened: Opened,
    carriers: mpsc::Receiver<Box<(Carrier, SocketAddr)>>,
    cutting: CancellationToken,
}

/// What a session does when a carrier is of no more use to it.
#[expect(clippy::large_enum_variant, reason = "each session has one, for a moment")]
enum Next {
    /// There is another.
    Carrier(Carrier, SocketAddr),
    /// It waits for one.
    Wait,
    Over(Refusal),
}

impl From<Box<(Carrier, SocketAddr)>> for Next {
    fn from(next: Box<(Carrier, SocketAddr)>) -> Self {
        let (carrier, from) = *next;
        Self::Carrier(carrier, from)
    }
}

impl Session {
    async fn keep(mut self, first: Carrier, mut from: SocketAddr) {
        let mut next = Next::Carrier(first, from);
        let end = loop {
            next = match next {
                Next::Carrier(carrier, there) => {
                    from = there;
                    self.serve(carrier, from).await
                }
                Next::Wait => self.wait().await,
                Next::Over(end) => break end,
            };
        };
        let Self {
            context,
            record,
            opened,
            ..
        } = self;
        opened.tunnel.close(&end);
        if end.reason == Reason::Revoked {
            let node = Node {
                node: record.name.clone(),
                node_id: record.id,
                client: from,
            };
            context.audit.note_durably(Event::SessionRevoked(node)).await;
        }
        context.registry.leave(record.id, &opened.tunnel);
        context.registry.metrics().session_ended(end.reason);
        info!(node = %record.name, reason = %end.reason, detail = end.message, "session ended");
    }

    /// Serves the node over this carrier until that is lost, or another takes over.
    async fn serve(&mut self, carrier: Carrier, from: SocketAddr) -> Next {
        let Self { context, record, .. } = self;
        let tunnel = &self.opened.tunnel;
        let (agent, resumed) = (
            carrier.negotiated.peer.software.clone(),
            carrier.negotiated.peer.carrier > 1,
        );
        let driver = match tunnel.attach(carrier) {
            Ok(driver) => driver,
            // A late one changes nothing: the session has a carrier, or waits for one.
            Err(refusal) => {
                warn!(node = %record.name, %from, reason = %refusal.reason, detail = refusal.message, "a carrier came too late");
                return tunnel.over().map_or(Next::Wait, Next::Over);
            }
        };
        // Whoever revokes a node marks it first and looks for its session then: one of the two sees the other.
        let Some(stay) = context.directory.online(record.id, agent.clone(), now()) else {
            return Next::Over(revoked());
        };
        let online = context.registry.metrics().online();
        info!(node = %record.name, %from, agent, resumed, "node online");
        let opener = Opener {
            id: record.id,
            name: record.name.clone(),
            from,
        };
        let watching = watch(
            context,
            &opener,
            tunnel,
            &stay,
            &mut self.opened.notices,
            &mut self.opened.incoming,
        );
        let end = tokio::select! {
            end = driver.run() => end,
            never = watching => match never {},
            // The directory hears of the next one without having heard of the end of this.
            Some(next) = self.carriers.recv() => return Next::from(next),
            () = self.cutting.cancelled() => Refusal::new(Reason::Draining, "the gateway has stopped"),
        };
        drop(online);
        context.directory.offline(stay, end.reason, now());
        if self.cutting.is_cancelled() {
            return Next::Over(end);
        }
        if let Some(over) = tunnel.over() {
            return Next::Over(over);
        }
        context.registry.metrics().link_lost(end.reason);
        let streams = tunnel.open_streams();
        info!(node = %record.name, reason = %end.reason, detail = end.message, streams, "node offline, its streams wait");
        Next::Wait
    }

    async fn wait(&mut self) -> Next {
        let stopping = self.context.tasks.stopping();
        tokio::select! {
            Some(next) = self.carriers.recv() => Next::from(next),
            over = self.opened.tunnel.expired() => Next::Over(over),
            () = stopping.cancelled() => Next::Over(Refusal::new(Reason::Draining, "the gateway has stopped")),
        }
    }
}

fn who(context: &Context, accepted: &Arrived) -> Result<NodeRecord, Refusal> {
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
    tunnel: &Tunnel,
    stay: &Stay,
    notices: &mut mpsc::Receiver<Box<Notice>>,
    incoming: &mut mpsc::Receiver<Incoming>,
) -> std::convert::Infallible {
    loop {
        tokio::select! {
            Some(notice) = notices.recv() => match *notice {
                Notice::Offer(offer) => {
                    context.registry.offered(opener.id, tunnel, &offer);
                    context.directory.declare(stay, offer);
                }
                Notice::Journal(losses) => {
                    // Streams must not wait for a disk.
                    context.tasks.spawn(keep_journal(Arc::clone(context), opener.clone(), tunnel.clone(), losses));
                }
                Notice::Journaled(_) => {}
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

/// Keeps what a node tells of its link's losses, and says so; the node tells again what was not kept.
async fn keep_journal(context: Arc<Context>, opener: Opener, tunnel: Tunnel, losses: Vec<LinkLoss>) {
    let Some(last) = losses.iter().map(|loss| loss.number).max() else {
        return;
    };
    let causes: Vec<_> = losses.iter().map(|loss| loss.cause).collect();
    match context.store.add_losses(opener.id, losses).await {
        Ok(()) => {
            causes
                .into_iter()
                .for_each(|cause| context.registry.metrics().journaled(cause));
            tunnel.journaled(last);
        }
        Err(error) => warn!(node = %opener.name, %error, "the losses of a node's link are not kept"),
    }
}
