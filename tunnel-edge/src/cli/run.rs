//! `tunnel-edge run`: the agent as a process.

use std::{convert::Infallible, path::Path, sync::Arc};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    admin::AdminListener,
    error::{CliError, Exit},
    logs,
    metrics::Metrics,
    probes::Probes,
    readiness::Readiness,
    sdnotify,
    shutdown::{self, Deadlines, Signals, Tasks},
};
use tunnel_ingress::IngressMetrics;

use crate::{
    VERSION, admin,
    agent::{Agent, Home, Phase},
    fault::{load_error, start_error},
    metrics::EdgeMetrics,
    reload::{Reloader, Start},
};

/// An operator's commands are few and short.
const ADMIN_CONNECTIONS: usize = 16;
/// Those who scrape and probe.
const PROBE_CONNECTIONS: usize = 16;

pub(super) async fn run(path: &Path) -> Result<(), CliError> {
    let start = Start::read(path)?;
    let config = &start.loaded.config.clone();
    logs::init(&config.log)?;
    let signals = Signals::install()
        .map_err(|error| CliError::new(Exit::Failure, "signals", format!("cannot handle signals: {error}")))?;
    let hangup = signal(SignalKind::hangup())
        .map_err(|error| CliError::new(Exit::Failure, "signals", format!("cannot handle signals: {error}")))?;
    let tasks = Tasks::new();
    let metrics = Metrics::new("tunnel_edge");
    metrics.register_build(VERSION);
    let accepts = AcceptMetrics::new(&metrics);
    let readiness = Readiness::new();
    let home = Home {
        tasks: tasks.clone(),
        metrics: EdgeMetrics::new(&metrics),
        accepts: accepts.clone(),
        ingress: IngressMetrics::new(&metrics),
        check: readiness.unlogged_check("tunnel"),
    };

    let probes = match config.metrics {
        Some(address) => {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                CliError::new(
                    Exit::Failure,
                    "listen-bind",
                    format!("cannot listen on {address}: {error}"),
                )
                .with_hint("set listen.metrics to an address that is free, or leave it out")
            })?;
            Some(Acceptor::new(listener, PROBE_CONNECTIONS, &accepts, "metrics"))
        }
        None => None,
    };
    // The identity is read before the socket is bound, whose directory it lies in; and the socket keeps a second agent
    // from dialling with the same identity.
    let identity = crate::identity::Identity::load(&config.state).map_err(load_error)?;
    let admin = AdminListener::bind(config.socket())?;
    let agent = Agent::start_with(config, identity, home).map_err(start_error)?;

    let acceptor = Acceptor::new(admin, ADMIN_CONNECTIONS, &accepts, "admin");
    let reloader = Reloader::new(agent.clone(), path, start);
    let admin = admin::run(agent.clone(), reloader.clone(), acceptor, tasks.stopping());
    tasks.spawn_critical("admin", admin);
    tasks.spawn_aside(reloader.clone().watch());
    tasks.spawn_aside(reload_on_hangup(reloader, hangup));
    if let Some(acceptor) = probes {
        let probes = Probes {
            metrics,
            readiness,
            live: Arc::new(|| true),
        };
        tasks.spawn_critical("probes", probes.serve(acceptor, tasks.flushing()));
    }
    tasks.spawn_aside(sdnotify::watchdog(|| true));
    tasks.spawn_aside(tell_manager(agent));
    // Ready to serve is not ready to be reached: a machine without a network must still come up.
    sdnotify::ready("connecting");
    shutdown::run(&tasks, signals, Deadlines::default()).await?;
    Ok(())
}

/// Takes the configuration file again with each SIGHUP.
async fn reload_on_hangup(reloader: Reloader, mut hangup: Signal) -> Result<(), Infallible> {
    while hangup.recv().await.is_some() {
        // How it went is in the log.
        let _ = reloader.reload(None).await;
    }
    Ok(())
}

/// Shows in `systemctl status` where the agent stands.
async fn tell_manager(agent: Agent) -> Result<(), Infallible> {
    let mut state = agent.state();
    loop {
        let line = {
            let state = state.borrow_and_update();
            match (state.phase, &state.gateway, &state.why) {
                (Phase::Connected, Some(gateway), _) => format!("connected to {gateway}"),
                (Phase::Waiting, _, Some(why)) => format!("not connected: {why}"),
                _ => "connecting".to_owned(),
            }
        };
        sdnotify::status(&line);
        if state.changed().await.is_err() {
            return Ok(());
        }
    }
}
