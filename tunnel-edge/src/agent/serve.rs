//! A session while it has a carrier: what happens to it, and how it goes from one carrier to a better one.

use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use tunnel_carrier::{Carrier, CarrierKind, Connection, Driver, Notice, Tunnel};
use tunnel_model::{LossCause, Reason, Refusal};
use tunnel_proto::Hello;

use super::{
    Settings, Shared,
    accounts::{self, Counted},
    dial::replacement,
    fallback::way_back,
    health::{Dead, keep_healthy},
    network::Network,
    session::{Kept, Over, PATIENCE, Session, hello},
    streams,
};
use crate::journal::{self, Moved};

/// A session that has lasted this long was no accident.
const PROVED: Duration = Duration::from_secs(30);

impl Session {
    /// Serves until the carrier is lost, and gives the session back if it outlives that; or until the gateway asks to go
    /// elsewhere: then the streams that run go on by themselves.
    pub(super) async fn serve(self, shared: &Arc<Shared>, network: &mut Network) -> (Over, Option<Kept>) {
        let Self {
            settings,
            mut kept,
            driver,
            kind,
        } = self;
        let tunnel = kept.opened.tunnel.clone();
        let mut changes = shared.settings.subscribe();
        // Settings that changed while the session was opened are news to it.
        changes.mark_changed();
        let alive = Alive {
            since: OnceLock::new(),
            generation: AtomicU64::new(settings.generation),
        };
        let mut serving = Serving {
            shared,
            alive: &alive,
            settings,
            changes,
            served: false,
            leaving: false,
            cause: None,
        };
        let mut carrier = Running::start(shared, driver, kind);
        tell_journal(shared, &tunnel);
        let ended = loop {
            kept.returns.carrier(carrier.kind);
            match serving.over(&mut carrier, &mut kept, network).await {
                Next::Over(ended) => break ended,
                // The old one ends by that, and nobody waits for it.
                Next::Carrier(driver, kind) => carrier = Running::start(shared, driver, kind),
                Next::Same => {}
            }
        };
        let Ended {
            why,
            retry_after,
            lingers,
        } = ended;
        let moved = Moved {
            sent: carrier.counted.meter.sent_bytes(),
            received: carrier.counted.meter.received_bytes(),
        };
        if lingers.is_some() {
            let cutting = shared.tasks.cutting();
            shared.tasks.spawn(linger(tunnel.clone(), carrier.driver, cutting));
        }
        let cause = lingers.or(serving.cause);
        shared.lost(
            cause.unwrap_or_else(|| journal::of_end(&why, carrier.kind)),
            &why,
            moved,
        );
        let lasted = alive.since.get().map(Instant::elapsed);
        shared.metrics.session_ended(lasted, why.reason);
        shared.check.failed(why.message.clone());
        let over = Over {
            why,
            retry_after,
            proved: serving.served || lasted.is_some_and(|lasted| lasted >= PROVED),
        };
        let goes_on = lingers.is_none() && tunnel.over().is_none();
        (over, goes_on.then_some(kept))
    }
}

/// A carrier that the session goes over.
struct Running {
    driver: JoinHandle<Refusal>,
    counted: Counted,
    kind: CarrierKind,
}

impl Running {
    fn start(shared: &Shared, driver: Driver, kind: CarrierKind) -> Self {
        Self {
            counted: Counted::new(driver.meter()),
            driver: shared.tasks.spawn(driver.run()),
            kind,
        }
    }
}

/// What is known of the session's life.
struct Alive {
    /// When the gateway first answered.
    since: OnceLock<Instant>,
    /// Of the settings in force.
    generation: AtomicU64,
}

/// What a session goes by while it has a carrier, or one after the other without a gap.
struct Serving<'a> {
    shared: &'a Arc<Shared>,
    alive: &'a Alive,
    settings: Arc<Settings>,
    changes: watch::Receiver<Arc<Settings>>,
    /// Somebody opened a stream.
    served: bool,
    leaving: bool,
    /// What is known better here than the reason of the end says.
    cause: Option<LossCause>,
}

/// What comes after a carrier.
enum Next {
    Over(Ended),
    /// A better one.
    Carrier(Driver, CarrierKind),
    /// Itself, once more.
    Same,
}

impl Serving<'_> {
    /// Serves over this carrier, and counts what it carries.
    async fn over(&mut self, carrier: &mut Running, kept: &mut Kept, network: &mut Network) -> Next {
        let next = self.until_over(carrier, kept, network).await;
        self.count(carrier, &kept.opened.tunnel);
        next
    }

    fn count(&self, carrier: &mut Running, tunnel: &Tunnel) {
        let shared = self.shared;
        let budget = shared.settings.borrow().budget;
        let now = shared.identity.now();
        shared.accounts.count(&mut carrier.counted, tunnel, &budget, now);
    }

    async fn until_over(&mut self, carrier: &mut Running, kept: &mut Kept, network: &mut Network) -> Next {
        let (shared, alive) = (self.shared, self.alive);
        let tunnel = kept.opened.tunnel.clone();
        let (stopping, cutting) = (shared.tasks.stopping(), shared.tasks.cutting());
        let dialled_with = Arc::clone(&self.settings);
        let mut health = pin!(async {
            tokio::select! {
                dead = keep_healthy(shared, &tunnel, network, &alive.since, &alive.generation) => (dead, None),
                next = replacement(shared, &dialled_with, &tunnel) => (silent(), Some((dialled_with.epoch, next))),
            }
        });
        let to_quic = carrier.kind == CarrierKind::Tls && shared.dialer.may_go_by(CarrierKind::Quic);
        let pause = to_quic.then(|| kept.returns.pause());
        let mut back = pin!(way_back(shared, &dialled_with.gateways, pause));
        let mut counting = interval(accounts::EVERY);
        let mut given_up = false;
        loop {
            tokio::select! {
                ended = &mut carrier.driver => return Next::Over(Ended::by(ended.unwrap_or_else(|_| panicked()))),
                Some(incoming) = kept.opened.incoming.recv() => {
                    self.served = true;
                    shared.tasks.spawn(streams::serve(Arc::clone(shared), incoming));
                }
                _ = counting.tick() => self.count(carrier, &tunnel),
                Some(notice) = kept.opened.notices.recv() => if let Some(ended) = hear(*notice, shared, &tunnel) {
                    return Next::Over(ended);
                },
                _ = self.changes.changed() => if let Some(ended) = self.change(&tunnel) {
                    return Next::Over(ended);
                },
                (dead, next) = &mut health, if !given_up => {
                    (given_up, kept.next) = (true, next);
                    self.cause = Some(dead.cause);
                    tunnel.give_up_carrier(&dead.refusal);
                }
                connection = &mut back, if !given_up && !self.leaving => {
                    kept.dialled += 1;
                    return go_on(&tunnel, connection, hello(kept.name, kept.dialled)).await;
                }
                () = stopping.cancelled(), if !self.leaving => {
                    self.leaving = true;
                    self.cause = Some(LossCause::EdgeStopped);
                    tunnel.drain(stopped(), None);
                }
                () = cutting.cancelled() => {
                    tunnel.close(&stopped());
                    self.cause = Some(LossCause::EdgeStopped);
                    return Next::Over(Ended::by(stopped()));
                }
            }
        }
    }

    /// Takes settings that have changed.
    fn change(&mut self, tunnel: &Tunnel) -> Option<Ended> {
        let settings = Arc::clone(&self.changes.borrow_and_update());
        if settings.epoch != self.settings.epoch && !self.leaving {
            move_away(tunnel);
            return Some(Ended::lingering(moving(), None, LossCause::Reconfigured));
        }
        offer_anew(tunnel, &self.settings, &settings);
        tunnel.set_rates(settings.rate.up, settings.rate.down);
        note_generation(self.shared, &self.alive.generation, settings.generation);
        self.settings = settings;
        None
    }
}

/// Has the session go on over a better connection, without a gap.
async fn go_on(tunnel: &Tunnel, connection: Connection, hello: Hello) -> Next {
    let kind = connection.kind();
    let attached = async {
        let carrier = Carrier::dial(connection, hello, PATIENCE).await?;
        if !carrier.negotiated.peer.continues {
            let refusal = Refusal::new(Reason::CarrierLost, "the gateway does not have this session any more");
            carrier.close(&refusal);
            return Err(refusal);
        }
        tunnel.attach(carrier)
    };
    match attached.await {
        Ok(driver) => {
            info!(carrier = %kind, streams = tunnel.open_streams(), "the session goes on");
            Next::Carrier(driver, kind)
        }
        Err(refusal) => {
            debug!(carrier = %kind, reason = %refusal.reason, error = %refusal.message, "the session does not go on there");
            Next::Same
        }
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
