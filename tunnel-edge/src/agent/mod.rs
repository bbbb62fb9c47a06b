//! The agent: one node's lasting relation with its gateway.
//!
//! Two tasks live as long as the agent. One connects, serves the session until it ends, waits and connects again; the
//! other keeps the certificate valid. Each stream is a task of its own. All belong to the [`Tasks`] of the home that the
//! agent was started in, so that several agents can live in one process.

mod accounts;
mod dial;
mod encoded;
mod fallback;
mod flows;
mod health;
mod network;
mod renewal;
mod retry;
mod serve;
mod session;
mod settings;
mod silence;
mod state;
mod status;
mod streams;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tunnel_carrier::{Dialer, Tunnel, quic, tls::ProxiesError};
use tunnel_daemon::{
    accept::AcceptMetrics,
    metrics::Metrics,
    readiness::{Check, Readiness},
    shutdown::{self, Deadlines, Ended, ShutdownError, SignalSource, Tasks},
};
use tunnel_identity::{UnixTime, Validity};
use tunnel_ingress::IngressMetrics;
use tunnel_model::{Class, LossCause, Reason, Refusal};

pub(crate) use self::session::{hello, session_config};
use self::{
    accounts::Accounts,
    encoded::Encodings,
    network::Network,
    retry::Retry,
    session::{Failed, Over},
    silence::Networks,
};
pub use self::{
    settings::Settings,
    state::{Phase, State},
    status::Status,
};
use crate::{
    config::{Config, Listener},
    identity::{Identity, LoadError},
    journal::{Journal, Moved},
    metrics::EdgeMetrics,
    outbound::{self, RemoteService, proxy},
    proxies::ProxySetting,
};

/// How long a ping that somebody asked for may take.
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait after a ping that failed.
const PING_AGAIN: Duration = Duration::from_secs(1);
/// How long the last packets may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// An agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] LoadError),
    /// The environment names a proxy that cannot be used.
    #[error(transparent)]
    Proxies(#[from] ProxiesError),
    /// There is no socket to dial from.
    #[error("cannot bind UDP port {port}: {source}")]
    Bind {
        /// The port that was configured; 0 is any.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A listener cannot have its address.
    #[error("cannot listen on {address} for {service}: {source}")]
    Listen {
        /// The address that was configured.
        address: SocketAddr,
        /// What it would have led to.
        service: RemoteService,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy cannot have its address.
    #[error("cannot listen on {address} for the proxy: {source}")]
    Proxy {
        /// The address that was configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// What of a process an agent uses.
#[derive(Debug, Clone)]
pub struct Home {
    /// Where its tasks belong; when these stop, the agent drains.
    pub tasks: Tasks,
    /// What it counts.
    pub metrics: EdgeMetrics,
    /// What its listeners count.
    pub accepts: AcceptMetrics,
    /// What its proxy counts.
    pub ingress: IngressMetrics,
    /// Told about each round trip through the tunnel.
    pub check: Check,
}

impl Home {
    /// A home for an agent that shares its process with others: of its own in everything.
    pub fn alone() -> Self {
        let metrics = Metrics::new("tunnel_edge");
        Self {
            tasks: Tasks::new(),
            metrics: EdgeMetrics::new(&metrics),
            accepts: AcceptMetrics::new(&metrics),
            ingress: IngressMetrics::new(&metrics),
            check: Readiness::new().unlogged_check("tunnel"),
        }
    }
}

/// A running agent. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

/// What the agent's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    identity: Identity,
    settings: watch::Sender<Arc<Settings>>,
    /// Rises whenever streams that run are to be judged by the settings in force.
    enforced: watch::Sender<u64>,
    dialer: Dialer,
    state: watch::Sender<State>,
    /// The last certificate that the gateway did not accept, by its validity.
    rejected: watch::Sender<Option<Validity>>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: EdgeMetrics,
    journal: Journal,
    accounts: Accounts,
    encodings: Encodings,
    networks: Mutex<Networks>,
    /// Where it listens for local clients, in the configuration's order.
    listening: Vec<SocketAddr>,
    /// Where its proxy is.
    proxy: Option<SocketAddr>,
    check: Check,
}

impl Agent {
    /// Starts an agent that shares nothing with others in this process. Needs a tokio runtime.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_in(config, Home::alone())
    }

    /// Starts an agent as a part of a process.
    pub fn start_in(config: &Config, home: Home) -> Result<Self, StartError> {
        Self::start_with(config, Identity::load(&config.state)?, home)
    }

    pub(crate) fn start_with(config: &Config, identity: Identity, home: Home) -> Result<Self, StartError> {
        let port = config.local_port;
        let proxies = ProxySetting::proxies(config.link_proxy.as_ref())?;
        let dialer = Dialer::bind(port, proxies).map_err(|source| StartError::Bind { port, source })?;
        let dialer = dialer.only(config.link_carrier.map(Into::into));
        let bind = |listener: &Listener| {
            outbound::bind(listener, &home.accepts).map_err(|source| StartError::Listen {
                address: listener.listen,
                service: listener.service.clone(),
                source,
            })
        };
        let listeners = config.listeners.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let bind_proxy = |config| {
            proxy::bind(config, &home.accepts).map_err(|source| StartError::Proxy {
                address: config.listen,
                source,
            })
        };
        let proxy = config.proxy.as_ref().map(bind_proxy).transpose()?;
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::new(identity.now())),
            accounts: Accounts::open(&config.state, identity.now()),
            identity,
            settings: watch::Sender::new(Arc::new(Settings::new(config))),
            enforced: watch::Sender::new(0),
            dialer,
            rejected: watch::Sender::new(None),
            tasks: home.tasks,
            metrics: home.metrics,
            journal: Journal::open(&config.state),
            encodings: Encodings::new(),
            networks: Mutex::new(Networks::open(&config.state)),
            listening: listeners.iter().map(|bound| bound.address).collect(),
            proxy: proxy.as_ref().map(|bound| bound.address),
            check: home.check,
        });
        let tasks = &shared.tasks;
        tasks.spawn_critical("agent", live(Arc::clone(&shared)));
        for bound in listeners {
            tasks.spawn_critical("listener", outbound::run(Arc::clone(&shared), bound));
        }
        if let Some(bound) = proxy {
            tasks.spawn_critical("proxy", proxy::run(Arc::clone(&shared), bound, home.ingress));
        }
        tasks.spawn_aside(renewal::keep_renewed(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// What it is doing, and each change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Where it listens for local clients, in the configuration's order.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.shared.listening
    }

    /// Where its proxy for local clients is, if there is one.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.shared.proxy
    }

    /// Figures of the moment.
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// Puts another configuration in force, as far as a running agent can, and returns the generation of its settings.
    /// Streams that run go on until [`Self::enforce`]. Where none of its gateways is the one that is connected to, the
    /// agent lets the session end with its streams and connects anew.
    pub async fn apply(&self, config: &Config) -> u64 {
        let before = Arc::clone(&self.shared.settings.borrow());
        let reconnect = before.gateways != config.gateways && !self.is_connected_to(config).await;
        let mut generation = 0;
        self.shared.settings.send_modify(|settings| {
            *settings = Arc::new(settings.follow(config, reconnect));
            generation = settings.generation;
        });
        generation
    }

    /// Cuts the streams whose targets the settings in force do not allow.
    pub fn enforce(&self) {
        self.shared.enforced.send_modify(|times| *times += 1);
    }

    async fn is_connected_to(&self, config: &Config) -> bool {
        let tunnel = self.shared.state.borrow().tunnel.clone();
        let Some(tunnel) = tunnel else { return false };
        let Some(remote) = tunnel.status().map(|status| status.remote) else {
            return false;
        };
        let same = |found: &SocketAddr| {
            (found.ip().to_canonical(), found.port()) == (remote.ip().to_canonical(), remote.port())
        };
        // What cannot be resolved is not what is connected to.
        let found = quic::resolve(&config.gateways).await.unwrap_or_default();
        found.iter().any(same)
    }

    /// Returns once the gateway has answered through a session with the settings of this generation or a later one.
    pub async fn answered(&self, generation: u64) {
        let mut state = self.state();
        loop {
            let settled = |state: &State| state.phase == Phase::Connected && state.generation >= generation;
            // The sender lives in self: waiting cannot fail.
            let _ = state.wait_for(settled).await;
            if self.ping().await.is_ok() {
                return;
            }
            sleep(PING_AGAIN).await;
        }
    }

    /// Returns once the gateway has answered through the tunnel; never if the agent stops before.
    pub async fn connected(&self) {
        let mut state = self.state();
        // The sender lives in self: waiting cannot fail.
        let _ = state.wait_for(|state| state.phase == Phase::Connected).await;
    }

    /// A round trip to the gateway through the tunnel.
    pub async fn ping(&self) -> Result<Duration, Refusal> {
        let tunnel = self.shared.tunnel()?;
        let late = || Refusal::new(Reason::IdleTimeout, "the gateway did not answer in time");
        timeout(PING_DEADLINE, tunnel.ping())
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// Tells the gateway, lets streams end until the deadline, and ends. For an agent in a home of its own; a process
    /// that stops as a whole runs [`shutdown::run`] instead.
    pub async fn shutdown(&self, deadlines: Deadlines) -> Result<Ended, ShutdownError> {
        self.shared.tasks.stop();
        shutdown::run(&self.shared.tasks, NoSignals, deadlines).await
    }
}

impl Shared {
    /// What is known of the networks that this machine was in.
    fn networks(&self) -> MutexGuard<'_, Networks> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes in the journal that there is no link.
    fn lost(&self, cause: LossCause, why: &Refusal, moved: Moved) {
        self.journal.lost(cause, &why.message, moved, self.identity.now());
    }

    /// The session, or why there is none.
    pub(crate) fn tunnel(&self) -> Result<Tunnel, Refusal> {
        let state = self.state.borrow();
        state.tunnel.clone().ok_or_else(|| {
            let not_yet = || Refusal::new(Reason::NodeOffline, "the agent has not reached its gateway yet");
            state.why.clone().unwrap_or_else(not_yet)
        })
    }

    /// The same, for a stream of a class whose budget is not spent.
    pub(crate) fn tunnel_for(&self, class: Class) -> Result<Tunnel, Refusal> {
        self.admit(class)?;
        self.tunnel()
    }

    /// Whether a stream of this class may be opened today.
    pub(crate) fn admit(&self, class: Class) -> Result<(), Refusal> {
        let budget = self.settings.borrow().budget;
        self.accounts.admit(class, &budget, self.identity.now())
    }

    /// Since when there is no session, by the corrected clock.
    pub(crate) fn away_since(&self) -> UnixTime {
        let state = self.state.borrow();
        state.away_since.unwrap_or(state.since)
    }

    /// What is in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }
}

/// Connects, serves, waits, again and again, until the home stops.
async fn live(shared: Arc<Shared>) -> Result<(), Infallible> {
    let stopping = shared.tasks.stopping();
    let mut network = Network::watch();
    let mut retry = Retry::new();
    let mut validity = shared.identity.validity();
    let mut settings = shared.settings.subscribe();
    // The session, while it has no carrier.
    let mut kept = None;
    loop {
        settings.mark_unchanged();
        let shown = *validity.borrow_and_update();
        shared
            .state
            .send_modify(|state| state.connecting(shared.identity.now()));
        let connected = tokio::select! {
            connected = session::connect(&shared, &mut kept) => connected,
            // The gateway that is being dialled may not be the right one any more.
            _ = settings.changed() => continue,
            () = stopping.cancelled() => break,
        };
        let over = match connected {
            Ok(session) => {
                let (over, goes_on) = session.serve(&shared, &mut network).await;
                kept = goes_on;
                over
            }
            Err(Failed { rejected, cause }) => {
                shared.lost(cause, &rejected.refusal, Moved::default());
                shared.metrics.session_ended(None, rejected.refusal.reason);
                shared.check.failed(rejected.refusal.message.clone());
                Over::failed(rejected)
            }
        };
        if stopping.is_cancelled() {
            break;
        }
        if over.why.reason == Reason::Unauthenticated {
            shared.rejected.send_replace(Some(shown));
        }
        if over.proved {
            retry.reset();
        }
        if retry::is_lasting(over.why.reason) && over.why.reason != Reason::Unauthenticated {
            // It will not be let in before somebody has mended that; with another certificate it may be, in a moment.
            session::forget(&mut kept, &over.why);
        }
        session::forget_expired(&mut kept);
        let mut delay = retry.after(&over.why, over.retry_after, &mut rand::rng());
        if let Some(kept) = &kept {
            delay = delay.min(kept.patience());
        }
        let lasting = retry::is_lasting(over.why.reason);
        let now = shared.identity.now();
        shared.state.send_modify(|state| state.waiting(over.why, delay, now));
        let gateway = shared.state.borrow().gateway.unwrap_or(SOMEWHERE);
        tokio::select! {
            () = sleep(delay) => {}
            // What could not be reached may be reachable from here; what was refused may be let in with this.
            () = network.moved(gateway), if !lasting => {}
            _ = validity.changed() => {}
            _ = settings.changed() => retry.reset(),
            () = stopping.cancelled() => break,
        }
    }
    let why = Refusal::new(Reason::Draining, "the edge is stopping");
    session::forget(&mut kept, &why);
    // It may be back as another version tomorrow; unless there was no link anyway.
    shared.lost(LossCause::EdgeStopped, &why, Moved::default());
    shared.accounts.close();
    // The farewell is worth a moment, not more: whoever does not hear it finds out by the silence.
    let _ = timeout(FAREWELL, shared.dialer.wait_idle()).await;
    shared.state.send_modify(|state| state.stopped(shared.identity.now()));
    Ok(())
}

/// An address behind the default route (TEST-NET-2 of RFC 5737), for an agent that has not reached a gateway yet. Nothing
/// is sent there.
const SOMEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9);

/// An agent that is one of many in a process is stopped by its owner alone.
struct NoSignals;

impl SignalSource for NoSignals {
    async fn recv(&mut self) -> &'static str {
        std::future::pending().await
    }
}
