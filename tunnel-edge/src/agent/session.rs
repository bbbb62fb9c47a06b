//! One session with the gateway: what is kept of it from one carrier to the next, and how it gets one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tunnel_carrier::{Carrier, CarrierKind, Connection, DialError, Driver, Opened, Rejected, Tunnel};
use tunnel_identity::{UnixTime, tls::Alpn};
use tunnel_model::{LossCause, Reason, Refusal, SessionId};
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use super::{
    Settings, Shared,
    dial::{DIAL_AGAIN, Waiting, dial},
    fallback::Returns,
    network::source_towards,
    silence::SHORTEST,
};
use crate::{SOFTWARE, host_name, journal};

/// How long a ping may stay unanswered.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

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

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
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
    pub(super) name: SessionId,
    pub(super) dialled: u64,
    /// The next connection, if that is there already, and the epoch of the settings that it was dialled with.
    pub(super) next: Option<(u64, Connection)>,
    pub(super) returns: Returns,
    pub(super) opened: Opened,
}

impl Kept {
    fn new() -> Self {
        Self {
            name: SessionId::random(&mut rand::rng()),
            dialled: 0,
            next: None,
            returns: Returns::default(),
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
    pub(super) settings: Arc<Settings>,
    pub(super) kept: Kept,
    pub(super) driver: Driver,
    pub(super) kind: CarrierKind,
}

/// Dials the gateway and greets it, for the session that is kept if there is one; what is left of that is there again if this
/// fails.
pub(super) async fn connect(shared: &Shared, kept: &mut Option<Kept>) -> Result<Session, Failed> {
    let tls = shared.identity.tls(Alpn::Tunnel)?;
    let settings = Arc::clone(&shared.settings.borrow());
    let session = kept.get_or_insert_with(Kept::new);
    let connection = match session.next.take() {
        Some((epoch, connection)) if epoch == settings.epoch => connection,
        _ => {
            let waiting = Waiting {
                streams: session.has_streams(),
                rtt: None,
            };
            dial(shared, &settings, &tls, waiting).await?
        }
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
    // Before it is attached, so that this is the first that the gateway hears.
    session.opened.tunnel.set_rates(settings.rate.up, settings.rate.down);
    let driver = session.opened.tunnel.attach(carrier)?;
    let offered = session.opened.tunnel.offer(&settings.offer());
    offered.map_err(|error| Refusal::new(Reason::BadRequest, error.to_string()))?;
    Ok(Session {
        settings,
        kept: session,
        driver,
        kind: connection.kind(),
    })
}
