//! `serve`: the gateway itself.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tunnel_daemon::{
    error::{CliError, Exit},
    logs, sdnotify,
    shutdown::{self, Deadlines, Signals, Tasks},
};

use crate::{
    audit::record::{Act, Event},
    config::Config,
    gateway,
};

/// Runs the gateway until it is told to stop.
pub async fn serve(config: Config) -> Result<(), CliError> {
    logs::init(&config.log)?;
    let signals = Signals::install()
        .map_err(|error| CliError::new(Exit::Failure, "signals", format!("cannot take over signals: {error}")))?;
    let mut hangups = signal(SignalKind::hangup())
        .map_err(|error| CliError::new(Exit::Failure, "signals", format!("cannot take over SIGHUP: {error}")))?;
    let tasks = Tasks::new();
    let running = gateway::start(config, &tasks).await?;
    let listening = running.listening;
    tracing::info!(
        public = %listening.public,
        proxy = %listening.proxy,
        metrics = %listening.metrics,
        "gateway up"
    );
    tasks.spawn_aside(sdnotify::watchdog(|| true));
    let (reloader, audit) = (running.reloader, Arc::clone(&running.state.audit));
    tasks.spawn_aside(async move {
        while hangups.recv().await.is_some() {
            let done = reloader.reload().await;
            audit.note_durably(Event::Admin(Act::reload_by_signal(&done))).await;
        }
    });
    tasks.spawn_aside(async move {
        running.readiness.wait_ready().await;
        sdnotify::ready("serving");
    });
    let ended = shutdown::run(&tasks, signals, Deadlines::default()).await;
    // Sessions that were cut have gone offline only now.
    running.state.directory.flush().await?;
    running.state.audit.note_durably(Event::GatewayStopped {}).await;
    ended.map(drop).map_err(CliError::from)
}
