//! The running gateway: everything bound, then every loop started.

mod issuers;
mod sessions;
mod watch;
mod ways;

use std::{io, net::SocketAddr, sync::Arc, time::SystemTime};

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tracing::warn;
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    admin::{self as admin_socket, AdminListener},
    error::{CliError, Exit},
    memory::MemoryGuard,
    metrics::Metrics,
    probes::Probes,
    readiness::Readiness,
    shutdown::Tasks,
};
use tunnel_identity::{UnixTime, tls};
use tunnel_ingress::{IngressMetrics, Tls};

use self::{issuers::Issuers, sessions::LiveSessions, ways::Ways};
use crate::{
    admin::{self, AppState, api::Listening},
    audit::record::Event,
    config::Config,
    dial::{DialMetrics, Gateway},
    oidc::Oidc,
    reload::Reloader,
    state::State,
    tunnel::{self, Context, Registry, TunnelMetrics},
    users::{Authenticator, Users},
};

/// Connections at once to the metrics and admin listeners: a few scrapers and operators.
const MAX_LOCAL_CONNECTIONS: usize = 64;

/// A gateway that has been started. Its tasks end with the [`Tasks`] they were given to.
pub struct Running {
    /// Where it listens.
    pub listening: Listening,
    /// Store, directory, users and keys.
    pub state: Arc<State>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// Whether it works, by round trips of its own.
    pub readiness: Readiness,
    /// What reads its configuration again.
    pub reloader: Arc<Reloader>,
}

/// Opens the state, binds every listener and starts every loop. On an error, nothing is left running but what `tasks`
/// will end.
pub async fn start(config: Config, tasks: &Tasks) -> Result<Running, CliError> {
    let state = Arc::new(State::open(&config).await?);
    let now = UnixTime::from(SystemTime::now());
    watch::rotate_if_due(&state.keys, &config, now)?;
    let credential = state.keys.gateway().map_err(key_error)?;
    let root = state.authority.root().clone();
    let tls = tls::server_config(&credential, &root).map_err(unusable)?;
    let proxy_tls = Tls::new(&credential, &root).map_err(unusable)?;

    let reset_key = credential.key().derive(b"tunnel quic stateless reset v1");
    let edges = tunnel::Doors::bind(config.listen.public, &tls, &reset_key)
        .map_err(|e| cannot_listen("listen.public", config.listen.public, &e))?;
    let proxy = tunnel_ingress::listen(config.listen.proxy)
        .map_err(|error| cannot_listen("listen.proxy", config.listen.proxy, &error))?;
    let ports = ways::bind(&config)?;
    let probes = TcpListener::bind(config.listen.metrics)
        .await
        .map_err(|error| cannot_listen("listen.metrics", config.listen.metrics, &error))?;
    let commands = AdminListener::bind(&config.admin)?;
    let local =
        |key, address: io::Result<SocketAddr>| address.map_err(|e| cannot_listen(key, config.listen.public, &e));
    let listening = ports.places(&Listening {
        public: local("listen.public", edges.local_addr())?,
        proxy: local("listen.proxy", proxy.local_addr())?,
        metrics: local("listen.metrics", probes.local_addr())?,
        sni: Vec::new(),
        http: Vec::new(),
        forwards: Vec::new(),
    });

    let metrics = Metrics::new("tunnel_cloud");
    metrics.register_build(env!("CARGO_PKG_VERSION"));
    let accepting = AcceptMetrics::new(&metrics);
    let registry = Arc::new(Registry::new(TunnelMetrics::new(&metrics)));
    let readiness = Readiness::new();

    let memory = MemoryGuard::new(config.limits.memory_mib.map(|mib| u64::from(mib.get()) * 1024 * 1024));
    tasks.spawn_aside(memory.clone().watch());

    state.audit.attach(&metrics, readiness.unlogged_check("audit log"));
    let version = env!("CARGO_PKG_VERSION");
    state.audit.note(Event::GatewayStarted { version });
    tasks.spawn_critical("audit log", Arc::clone(&state.audit).keep(tasks.flushing()));

    let saving = Arc::clone(&state);
    let flushing = tasks.flushing();
    tasks.spawn_critical("directory writer", async move { saving.directory.save(flushing).await });
    check_issuers(&config, &state.users)?;
    let oidc = Arc::new(Oidc::new(&config.oidc, &metrics)?);
    oidc.start(&readiness, tasks);
    let gateway = Arc::new(Gateway::new(
        &config,
        &state,
        Authenticator::new(Arc::clone(&state.users), Arc::clone(&oidc)),
        Arc::new(proxy_tls),
        Arc::clone(&registry),
        memory.clone(),
        DialMetrics::new(&metrics),
    ));
    let context = Context {
        directory: Arc::clone(&state.directory),
        store: Arc::clone(&state.store),
        registry: Arc::clone(&registry),
        authority: Arc::clone(&state.authority),
        limits: config.limits.clone(),
        memory,
        audit: Arc::clone(&state.audit),
        gateway: Arc::clone(&gateway),
        tasks: tasks.clone(),
    };
    tasks.spawn_critical("edge listener", tunnel::serve(edges, Arc::new(context), tasks.clone()));
    if config.rules.is_empty() {
        warn!("the configuration has no rule, so nobody reaches anything; write one (key \"rule\")");
    }
    let connections = usize::try_from(config.limits.proxy_connections.get()).unwrap_or(usize::MAX);
    let ways = Ways {
        gateway: Arc::downgrade(&gateway),
        connections,
        accepting: accepting.clone(),
        metrics: IngressMetrics::new(&metrics).with_packets(&metrics),
        tasks: tasks.clone(),
        served: Arc::default(),
    };
    ways.serve_proxy(&gateway, proxy);
    ways.serve(&gateway, ports);
    let probing = Probes {
        metrics,
        readiness: readiness.clone(),
        live: Arc::new(|| true),
    };
    let probes = Acceptor::new(probes, MAX_LOCAL_CONNECTIONS, &accepting, "metrics");
    tasks.spawn_critical("metrics", probing.serve(probes, tasks.flushing()));
    let mut reloader = Reloader::new(&config, Arc::clone(&gateway))?;
    reloader.add(ways.clone());
    reloader.add(Issuers::new(
        oidc,
        &gateway,
        Arc::clone(&state.users),
        &readiness,
        tasks,
    ));
    let reloader = Arc::new(reloader);
    let app = AppState {
        config: Arc::new(config),
        state: Arc::clone(&state),
        sessions: Some(Arc::new(LiveSessions::new(
            Arc::clone(&registry),
            listening.clone(),
            ways,
        ))),
        gateway: Some(gateway),
        reloader: Some(Arc::clone(&reloader)),
    };
    let commands = Acceptor::new(commands, MAX_LOCAL_CONNECTIONS, &accepting, "admin");
    let router = TowerToHyperService::new(admin::router(app));
    tasks.spawn_critical("admin socket", admin_socket::serve(commands, router, tasks.flushing()));
    tasks.spawn_aside(watch::watch(
        readiness.clone(),
        listening.clone(),
        root,
        Arc::clone(&state),
    ));

    Ok(Running {
        listening,
        state,
        registry,
        readiness,
        reloader,
    })
}

fn cannot_listen(key: &'static str, address: SocketAddr, error: &io::Error) -> CliError {
    let message = format!("cannot listen on {address} (key {key:?}): {error}");
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another process has it; stop that one, or change the key",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; take a higher one, or grant CAP_NET_BIND_SERVICE"
        }
        _ => "is the address one of this machine?",
    };
    CliError::new(Exit::Failure, "listen", message).with_hint(hint)
}

/// Finds no issuer one of whose users would pass for one of the gateway's own.
pub(crate) fn check_issuers(config: &Config, users: &Users) -> Result<(), CliError> {
    let users = users.list();
    if let Some(user) = users.iter().find(|user| Oidc::claims_name(&config.oidc, &user.name)) {
        let message = format!("the user {} begins as those of an issuer of tokens do", user.name);
        return Err(CliError::new(Exit::Failure, "user-name-reserved", message)
            .with_hint("set another `username_prefix` in the table `oidc`, or remove the user"));
    }
    Ok(())
}

fn unusable(error: rustls::Error) -> CliError {
    let message = format!("the gateway's certificate is unusable: {error}");
    CliError::new(Exit::Failure, "gateway-tls", message)
}

fn key_error(error: tunnel_identity::FileError) -> CliError {
    CliError::new(Exit::Failure, error.code(), error.to_string())
}
