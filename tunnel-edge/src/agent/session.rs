//! One session with the gateway, from the dial to its end.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_carrier::{Carrier, Driver, Notice, Opened, Rejected, Tunnel, quic};
use tunnel_identity::{UnixTime, tls::Alpn};
use tunnel_model::{LossCause, Reason, Refusal, SessionId};
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use super::{
    Settings, Shared,
    dial::{DIAL_AGAIN, dial, replacement},
    health::{Dead, keep_healthy},
    network::{Network, source_towards},
    silence::SHORTEST,
    streams,
};
use crate::{
    SOFTWARE, host_name,
    journal::{self, Moved},
};

/// How long a ping may stay unanswered.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
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

/// There is no session, and why not.
pub(super) struct Failed {
    pub(super) rejected: Rejected,
    pub(super) cause: LossCause,
}

impl From<Refusal> for Failed {
    /// Of a gateway that was reached.
    fn from(refusal: Refusal) -> Self {
        Rejected::from(refusal).into()
    }
}

impl From<Rejected> for Failed {
    fn from(rejected: Rejected) -> Self {
        let cause = journal::of_greeting(&rejected.refusal);
        Self { rejected, cause }
    }
}

impl From<quic::DialError> for Failed {
    fn from(error: quic::DialError) -> Self {
        Self {
            cause: journal::of_dial(&error, |gateway| source_towards(gateway).is_some()),
            rejected: error.to_refusal().into(),
        }
    }
}

/// The edge's first words on a carrier of this number.
pub(crate) fn hello(session: SessionId, carrier: u64) -> Hello {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session,
        carrier,
        continues: false,
        resume_for: Config::default().resume_for,
        software: SOFTWARE.to_owned(),
        name: host_name(),
        unix_millis: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    }
}

/// How an edge runs its sessions.
pub(crate) fn session_config() -> Config {
    Config {
        keepalive: Some(SHORTEST),
        // Idle pings are those of the health, which learn.
        idle_pings: false,
        patience: PATIENCE,
        ..Config::default()
    }
}

/// A session that outlives its carriers, and those that were dialled for it.
pub(super) struct Kept {
    name: SessionId,
    dialled: u64,
    /// The next connection, if that is there already, and the epoch of the settings that it was dialled with.
    next: Option<(u64, quinn::Connection)>,
    opened: Opened,
}

impl Kept {
    fn new() -> Self {
        Self {
            name: SessionId::random(&mut rand::rng()),
            dialled: 0,
            next: None,
            opened: Tunnel::new(Side::Edge, session_config()),
        }
    }

    /// How long to wait at the most before the gateway is dialled; as long as one likes if nothing waits for that.
    pub(super) fn patience(&self) -> Duration {
        match (&self.next, self.has_streams()) {
            (Some(_), _) => Duration::ZERO,
            (None, true) => DIAL_AGAIN,
            (None, false) => Duration::MAX,
        }
    }

    /// Whether streams wait for another carrier.
    fn has_streams(&self) -> bool {
        self.opened.tunnel.open_streams() > 0
    }
}

/// Ends a session that nobody wants any more.
pub(super) fn forget(kept: &mut Option<Kept>, why: &Refusal) {
    if let Some(kept) = kept.take() {
        kept.opened.tunnel.close(why);
    }
}

/// Ends a session that has waited as long as it would.
pub(super) fn forget_expired(kept: &mut Option<Kept>) {
    if kept.as_ref().is_some_and(|kept| kept.opened.tunnel.is_expired()) {
        *kept = None;
    }
}

/// A session with a carrier that was greeted and has not been used.
pub(super) struct Session {
    /// What it was opened with.
    settings: Arc<Settings>,
    kept: Kept,
    driver: Driver,
}

/// Dials the gateway and greets it, for the session that is kept if there is one; what is left of that is there again if this
/// fails.
pub(super) async fn connect(shared: &Shared, kept: &mut Option<Kept>) -> Result<Session, Failed> {
    let tls = shared.identity.tls(Alpn::Tunnel)?;
    let settings = Arc::clone(&shared.settings.borrow());
    let session = kept.get_or_insert_with(Kept::new);
    let connection = match session.next.take() {
        Some((epoch, connection)) if epoch == settings.epoch => connection,
        _ => dial(shared, &settings, &tls, session.has_streams()).await?,
    };
    session.dialled += 1;
    let hello = hello(session.name, session.dialled);
    let carrier = Carrier::dial(connection.clone(), hello, PATIENCE).await?;
    let gateway = carrier.negotiated.peer.clone();
    let mut session = kept.take().unwrap_or_else(Kept::new);
    let forgotten = !gateway.continues && session.opened.tunnel.was_connected();
    if let Some(cause) = shared.journal.back(forgotten, shared.identity.now()) {
        shared.metrics.link_back(cause);
    }
    if forgotten {
        // It was restarted, or has waited as long as it would.
        let forgotten = Refusal::new(Reason::CarrierLost, "the gateway does not have this session any more");
        session.opened.tunnel.close(&forgotten);
        session.opened = Tunnel::new(Side::Edge, session_config());
    }
    shared
        .identity
        .learn(&connection, UnixTime::from_secs(gateway.unix_millis / 1000))
        .await;
    shared.state.send_modify(|state| state.name = Some(gateway.name));
    let driver = session.opened.tunnel.attach(carrier)?;
    let offered = session.opened.tunnel.offer(&settings.offer());
    offered.map_err(|error| Refusal::new(Reason::BadRequest, error.to_string()))?;
    Ok(Session {
        settings,
        kept: session,
        driver,
    })
}

impl Session {
    /// Serves until the carrier is lost, and gives the session back if it outlives that; or until the gateway asks to go
    /// elsewhere: then the streams that run go on by themselves.
    pub(super) async fn serve(self, shared: &Arc<Shared>, network: &mut Network) -> (Over, Option<Kept>) {
        let Self {
            settings,
            mut kept,
            driver,
        } = self;
        let tunnel = kept.opened.tunnel.clone();
        let (stopping, cutting) = (shared.tasks.stopping(), shared.tasks.cutting());
        let alive = OnceLock::new();
        let mut changes = shared.settings.subscribe();
        // Settings that changed while the session was opened are news to it.
        changes.mark_changed();
        let generation = AtomicU64::new(settings.generation);
        let mut current = settings;
        let mut served = false;
        let meter = driver.meter();
        let mut driver = shared.tasks.spawn(driver.run());
        tell_journal(shared, &tunnel);
        let dialled_with = Arc::clone(&current);
        let mut health = std::pin::pin!(async {
            tokio::select! {
                dead = keep_healthy(shared, &tunnel, network, &alive, &generation) => (dead, None),
                next = replacement(shared, &dialled_with, &tunnel) => (silent(), Some((dialled_with.epoch, next))),
            }
        });
        // What is known better here than its reason says.
        let mut cause = None;
        let (mut leaving, mut given_up) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = &mut driver => break Ended::by(ended.unwrap_or_else(|_| panicked())),
                Some(incoming) = kept.opened.incoming.recv() => {
                    served = true;
                    shared.tasks.spawn(streams::serve(Arc::clone(shared), incoming));
                }
                Some(notice) = kept.opened.notices.recv() => if let Some(ended) = hear(notice, shared, &tunnel) {
                    break ended;
                },
                _ = changes.changed() => {
                    let settings = Arc::clone(&changes.borrow_and_update());
                    if settings.epoch != current.epoch && !leaving {
                        move_away(&tunnel);
                        break Ended::lingering(moving(), None, LossCause::Reconfigured);
                    }
                    offer_anew(&tunnel, &current, &settings);
                    note_generation(shared, &generation, settings.generation);
                    current = settings;
                }
                (dead, next) = &mut health, if !given_up => {
                    (given_up, kept.next) = (true, next);
                    cause = Some(dead.cause);
                    tunnel.give_up_carrier(&dead.refusal);
                }
                () = stopping.cancelled(), if !leaving => {
                    leaving = true;
                    cause = Some(LossCause::EdgeStopped);
                    tunnel.drain(stopped(), None);
                }
                () = cutting.cancelled() => {
                    tunnel.close(&stopped());
                    cause = Some(LossCause::EdgeStopped);
                    break Ended::by(stopped());
                }
            }
        };
        let Ended {
            why,
            retry_after,
            lingers,
        } = ended;
        if lingers.is_some() {
            shared.tasks.spawn(linger(tunnel.clone(), driver, cutting));
        }
        let cause = lingers.or(cause);
        let moved = Moved {
            sent: meter.sent_bytes(),
            received: meter.received_bytes(),
        };
        shared.lost(cause.unwrap_or_else(|| journal::of_end(&why)), &why, moved);
        let lasted = alive.get().map(Instant::elapsed);
        shared.metrics.session_ended(lasted, why.reason);
        shared.check.failed(why.message.clone());
        let over = Over {
            why,
            retry_after,
            proved: served || lasted.is_some_and(|lasted| lasted >= PROVED),
        };
        let goes_on = lingers.is_none() && tunnel.over().is_none();
        (over, goes_on.then_some(kept))
    }
}

/// Why nothing more is done with a carrier.
struct Ended {
    why: Refusal,
    retry_after: Option<Duration>,
    /// It is left alone until its streams have ended, for this cause.
    lingers: Option<LossCause>,
}

impl Ended {
    fn by(why: Refusal) -> Self {
        Self {
            why,
            retry_after: None,
            lingers: None,
        }
    }

    fn lingering(why: Refusal, retry_after: Option<Duration>, cause: LossCause) -> Self {
        Self {
            why,
            retry_after,
            lingers: Some(cause),
        }
    }
}

/// What the gateway says of the session as a whole.
fn hear(notice: Notice, shared: &Shared, tunnel: &Tunnel) -> Option<Ended> {
    match notice {
        Notice::GoAway { refusal, retry_after } => {
            let streams = tunnel.open_streams();
            info!(reason = %refusal.reason, error = %refusal.message, streams, "the gateway is leaving");
            return Some(Ended::lingering(refusal, retry_after, LossCause::GatewayLeft));
        }
        Notice::Journaled(number) => {
            if shared.journal.told(number) {
                tell_journal(shared, tunnel);
            }
        }
        Notice::Offer(_) | Notice::Journal(_) => {}
    }
    None
}

/// These settings are in force.
fn note_generation(shared: &Shared, current: &AtomicU64, generation: u64) {
    current.store(generation, Ordering::Relaxed);
    shared.state.send_modify(|state| state.generation = generation);
}

/// Lets the session end with its streams.
fn move_away(tunnel: &Tunnel) {
    let streams = tunnel.open_streams();
    info!(streams, "the configuration names other gateways");
    tunnel.drain(moving(), None);
}

/// Tells the gateway of losses of the link that it does not know of; the next page goes out when it keeps this one.
fn tell_journal(shared: &Shared, tunnel: &Tunnel) {
    let losses = shared.journal.untold();
    if !losses.is_empty() {
        tunnel.journal(&losses);
    }
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

/// Lets the streams of a session end that takes no new ones; the gateway closes it after the last.
async fn linger(tunnel: Tunnel, driver: JoinHandle<Refusal>, cutting: CancellationToken) {
    let why = match cutting.run_until_cancelled(driver).await {
        Some(ended) => ended.unwrap_or_else(|_| panicked()),
        None => stopped(),
    };
    // Nobody dials for it any more.
    tunnel.close(&why);
}

fn stopped() -> Refusal {
    Refusal::new(Reason::Draining, "the edge is stopping")
}

fn moving() -> Refusal {
    Refusal::new(Reason::Draining, "the edge goes to another gateway")
}

fn silent() -> Dead {
    Dead {
        refusal: Refusal::new(
            Reason::CarrierLost,
            "the link fell silent, and another connection came through",
        ),
        cause: LossCause::Timeout,
    }
}

fn panicked() -> Refusal {
    Refusal::new(Reason::Internal, "the session's task failed")
}
