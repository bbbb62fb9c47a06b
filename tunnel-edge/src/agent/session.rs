//! One session with the gateway, from the dial to its end.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use tunnel_carrier::{Driver, Incoming, Notice, Rejected, Tunnel};
use tunnel_identity::{UnixTime, tls::Alpn};
use tunnel_model::{Reason, Refusal, SessionId};
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use super::{Settings, Shared, network::Network, streams};
use crate::{SOFTWARE, host_name};

/// The longest silence on the link: below the shortest timeout of UDP that NATs are known to have (RFC 4787 section 4.3
/// asks for two minutes, many give thirty seconds).
const KEEPALIVE: Duration = Duration::from_secs(25);
/// How long a ping may stay unanswered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the old socket has to answer on a new network before a fresh one is tried.
const MIGRATION: Duration = Duration::from_secs(2);
/// A session that has lasted this long was no accident.
const PROVED: Duration = Duration::from_secs(30);

/// How a session, or an attempt at one, ended.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) why: Refusal,
    pub(super) retry_after: Option<Duration>,
    /// It was of use, so that the next attempt need not be held back for those that failed before.
    pub(super) proved: bool,
}

impl Over {
    pub(super) fn failed(rejected: Rejected) -> Self {
        Self {
            why: rejected.refusal,
            retry_after: rejected.retry_after,
            proved: false,
        }
    }
}

/// The edge's first words.
pub(crate) fn hello(session: SessionId) -> Hello {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session,
        software: SOFTWARE.to_owned(),
        name: host_name(),
        unix_millis: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    }
}

/// How an edge runs its sessions.
pub(crate) fn session_config() -> Config {
    Config {
        keepalive: Some(KEEPALIVE),
        patience: PATIENCE,
        ..Config::default()
    }
}

/// A session that was greeted and has not been used.
pub(super) struct Session {
    /// What it was opened with.
    settings: Arc<Settings>,
    tunnel: Tunnel,
    driver: Driver,
    incoming: mpsc::Receiver<Incoming>,
    notices: mpsc::Receiver<Notice>,
}

/// Dials the gateway and greets it.
pub(super) async fn connect(shared: &Shared) -> Result<Session, Rejected> {
    let tls = shared.identity.tls(Alpn::Tunnel)?;
    let settings = Arc::clone(&shared.settings.borrow());
    let dialled = shared.dialer.dial(&settings.gateways, tls).await;
    let connection = dialled.map_err(|error| error.to_refusal())?;
    let established =
        Tunnel::establish(connection.clone(), Side::Edge, session_config(), hello(shared.session)).await?;
    let gateway = established.negotiated.peer;
    shared
        .identity
        .learn(&connection, UnixTime::from_secs(gateway.unix_millis / 1000))
        .await;
    shared.state.send_modify(|state| state.name = Some(gateway.name));
    let offered = established.tunnel.offer(&settings.offer());
    offered.map_err(|error| Refusal::new(Reason::BadRequest, error.to_string()))?;
    Ok(Session {
        settings,
        tunnel: established.tunnel,
        driver: established.driver,
        incoming: established.incoming,
        notices: established.notices,
    })
}

impl Session {
    /// Serves until the session ends, or until the gateway asks to go elsewhere: then the streams that run go on by
    /// themselves.
    pub(super) async fn serve(mut self, shared: &Arc<Shared>, network: &mut Network) -> Over {
        let (stopping, cutting) = (shared.tasks.stopping(), shared.tasks.cutting());
        let alive = OnceLock::new();
        let mut changes = shared.settings.subscribe();
        // Settings that changed while the session was opened are news to it.
        changes.mark_changed();
        let generation = AtomicU64::new(self.settings.generation);
        let mut current = Arc::clone(&self.settings);
        let mut served = false;
        let mut driver = shared.tasks.spawn(self.driver.run());
        let mut health = std::pin::pin!(keep_healthy(shared, &self.tunnel, network, &alive, &generation));
        let (mut leaving, mut given_up) = (false, false);
        let (why, retry_after) = loop {
            tokio::select! {
                ended = &mut driver => break (ended.unwrap_or_else(|_| panicked()), None),
                Some(incoming) = self.incoming.recv() => {
                    served = true;
                    shared.tasks.spawn(streams::serve(Arc::clone(shared), incoming));
                }
                Some(notice) = self.notices.recv() => match notice {
                    Notice::GoAway { refusal, retry_after } => {
                        let streams = self.tunnel.status().streams;
                        info!(reason = %refusal.reason, error = %refusal.message, streams, "the gateway is leaving");
                        shared.tasks.spawn(linger(self.tunnel.clone(), driver, cutting));
                        break (refusal, retry_after);
                    }
                    Notice::Offer(_) => {}
                },
                _ = changes.changed() => {
                    let settings = Arc::clone(&changes.borrow_and_update());
                    if settings.epoch != current.epoch && !leaving {
                        move_away(&self.tunnel);
                        shared.tasks.spawn(linger(self.tunnel.clone(), driver, cutting));
                        break (moving(), None);
                    }
                    offer_anew(&self.tunnel, &current, &settings);
                    generation.store(settings.generation, Ordering::Relaxed);
                    shared.state.send_modify(|state| state.generation = settings.generation);
                    current = settings;
                }
                dead = &mut health, if !given_up => {
                    given_up = true;
                    self.tunnel.close(&dead);
                }
                () = stopping.cancelled(), if !leaving => {
                    leaving = true;
                    self.tunnel.drain(stopped(), None);
                }
                () = cutting.cancelled() => {
                    self.tunnel.close(&stopped());
                    break (stopped(), None);
                }
            }
        };
        let lasted = alive.get().map(Instant::elapsed);
        shared.metrics.session_ended(lasted, why.reason);
        shared.check.failed(why.message.clone());
        Over {
            why,
            retry_after,
            proved: served || lasted.is_some_and(|lasted| lasted >= PROVED),
        }
    }
}

/// Lets the session end with its streams.
fn move_away(tunnel: &Tunnel) {
    let streams = tunnel.status().streams;
    info!(streams, "the configuration names other gateways");
    tunnel.drain(moving(), None);
}

/// Tells the gateway what is offered now, if that is something else.
fn offer_anew(tunnel: &Tunnel, before: &Settings, now: &Settings) {
    let offer = now.offer();
    if offer == before.offer() {
        return;
    }
    // A configuration that was read has been found to offer no more than it may.
    if let Err(error) = tunnel.offer(&offer) {
        warn!(%error, "the gateway is not told what is offered now");
    }
}

/// Pings so often that no NAT forgets the flow, and at once when the network changed. Returns only if the session is to
/// be given up.
async fn keep_healthy(
    shared: &Shared,
    tunnel: &Tunnel,
    network: &mut Network,
    alive: &OnceLock<Instant>,
    generation: &AtomicU64,
) -> Refusal {
    let gateway = tunnel.status().remote;
    network.settle_on(gateway);
    loop {
        match timeout(PATIENCE, tunnel.ping()).await {
            Ok(Ok(rtt)) => {
                shared.metrics.pong(rtt);
                shared.check.ready();
                if alive.set(Instant::now()).is_ok() {
                    let now = shared.identity.now();
                    shared.state.send_modify(|state| {
                        state.connected(tunnel.clone(), generation.load(Ordering::Relaxed), rtt, now)
                    });
                }
            }
            // The session's own keepalive decides whether the peer is gone.
            Ok(Err(refusal)) => shared.check.failed(refusal.message),
            Err(_) => shared.check.failed("the gateway does not answer"),
        }
        tokio::select! {
            () = sleep(KEEPALIVE) => {}
            () = network.moved(gateway) => {
                if let Err(refusal) = migrate(shared, tunnel, gateway).await {
                    return refusal;
                }
            }
        }
    }
}

/// Makes the session go on from another local address. The socket is bound to none, so that its next packet leaves from
/// the new one and QUIC migrates; where the old socket is stuck, a new one takes its place under the connection.
async fn migrate(shared: &Shared, tunnel: &Tunnel, gateway: SocketAddr) -> Result<(), Refusal> {
    info!(%gateway, "the local network changed");
    if let Ok(answer) = timeout(MIGRATION, tunnel.ping()).await {
        return answer.map(drop);
    }
    debug!("no answer from the new network, taking a new socket");
    let lost = |message: String| Refusal::new(Reason::CarrierLost, message);
    shared
        .dialer
        .rebind()
        .map_err(|error| lost(format!("the network changed and there is no new socket: {error}")))?;
    match timeout(PATIENCE, tunnel.ping()).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(lost("the network changed and the gateway does not answer".to_owned())),
    }
}

/// Lets the streams of a session end that takes no new ones; the gateway closes it after the last.
async fn linger(tunnel: Tunnel, driver: JoinHandle<Refusal>, cutting: CancellationToken) {
    if cutting.run_until_cancelled(driver).await.is_none() {
        tunnel.close(&stopped());
    }
}

fn stopped() -> Refusal {
    Refusal::new(Reason::Draining, "the edge is stopping")
}

fn moving() -> Refusal {
    Refusal::new(Reason::Draining, "the edge goes to another gateway")
}

fn panicked() -> Refusal {
    Refusal::new(Reason::Internal, "the session's task failed")
}
