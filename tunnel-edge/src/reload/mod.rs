//! Another configuration for an agent that runs.
//!
//! A file is taken whole or not at all. What a running agent can take is in force at once for whatever is opened; what needs
//! a restart is named. What may cut the edge off is on trial ([`Commit`]): it goes by itself unless it proves itself, also
//! if the agent is restarted in between, for the last confirmed file is kept in the state directory.
//!
//! Streams that run are judged by a configuration once it stays, confirmed or come back to: what is cut cannot be brought
//! back, and the operator on trial may be behind one of them.
//!
//! | module | what |
//! |---|---|
//! | `commit` | the trial, as a state machine |
//! | `change` | what differs, and what that puts at risk |
//! | `record` | the last confirmed file |

mod change;
mod commit;
mod record;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};
use tunnel_daemon::{
    error::{CliError, Exit},
    logs::Level,
};

use self::{
    change::{Change, effective, risk},
    record::{Record, RecordFile},
};
use crate::{
    agent::{Agent, Phase as AgentPhase},
    config::Config,
};

pub use commit::{Action, By, Commit, Event, Phase, Risk, TRIAL};

/// The longest trial that an operator can ask for.
pub const LONGEST_TRIAL: Duration = Duration::from_secs(24 * 3600);

/// A configuration, and the text of the file it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    text: String,
    /// What it means.
    pub config: Config,
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, CliError> {
        let (config, text) = Config::load_with_text(path)?;
        Ok(Self { text, config })
    }

    fn from_text(text: String, path: &Path) -> Result<Self, CliError> {
        let config = Config::from_text(&text, path)?;
        Ok(Self { text, config })
    }
}

/// What an agent starts with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The configuration to start with.
    pub loaded: Loaded,
    /// The file has one that was never confirmed, so this is the one before.
    pub rolled_back: bool,
}

impl Start {
    /// Reads the file; or the last confirmed one, if an earlier run had this very file on trial and it did not pass.
    ///
    /// # Errors
    /// Where there is no file that means anything.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let loaded = Loaded::read(path)?;
        let file = RecordFile::of(&loaded.config.state);
        let record = file.read().unwrap_or_else(|error| {
            warn!(path = %file.path().display(), %error, "the last confirmed configuration cannot be read");
            None
        });
        let before = record.filter(|record| record.unconfirmed.as_deref() == Some(&*loaded.text));
        match before.map(|record| Loaded::from_text(record.confirmed, path)) {
            Some(Ok(confirmed)) => Ok(Self {
                loaded: confirmed,
                rolled_back: true,
            }),
            Some(Err(error)) => {
                warn!(%error, "the last confirmed configuration is not one of this version");
                Ok(Self {
                    loaded,
                    rolled_back: false,
                })
            }
            None => Ok(Self {
                loaded,
                rolled_back: false,
            }),
        }
    }
}

/// How far the configuration in force is trusted, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Where it stands.
    pub state: Trust,
    /// While it is pending: who can confirm it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_by: Option<String>,
    /// While it is pending: after how many seconds it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// How far a configuration is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// It stays.
    Confirmed,
    /// It goes unless it is confirmed in time.
    Pending,
    /// The file has one that was not confirmed in time; the one before is in force.
    RolledBack,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The keys that are in force now.
    pub applied: Vec<String>,
    /// The keys that a restart will put in force.
    pub restart: Vec<String>,
    /// How far the configuration is trusted.
    pub configuration: Configuration,
}

/// Changes the configuration of one running agent. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Reloader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    agent: Agent,
    path: PathBuf,
    record: RecordFile,
    /// Held across a whole change, so that there is one at a time.
    inner: Mutex<Inner>,
    /// Rises with each change of the trial.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    commit: Commit,
    confirmed: Loaded,
    /// What is in force.
    current: Loaded,
    /// The generation of its settings.
    generation: u64,
}

impl Reloader {
    /// For an agent that was started with this. `path` is the file that is read again.
    pub fn new(agent: Agent, path: &Path, start: Start) -> Self {
        if start.rolled_back {
            warn!(
                file = %path.display(),
                "the configuration was not confirmed before the last end, the one before is in force; edit the file and reload"
            );
        }
        let (rolled_back, text) = (start.rolled_back, start.loaded.text.clone());
        let shared = Shared {
            agent,
            path: path.to_owned(),
            record: RecordFile::of(&start.loaded.config.state),
            inner: Mutex::new(Inner {
                commit: Commit::new(start.rolled_back),
                confirmed: start.loaded.clone(),
                current: start.loaded,
                generation: 0,
            }),
            changed: watch::Sender::new(0),
        };
        let reloader = Self {
            shared: Arc::new(shared),
        };
        if !rolled_back && let Err(error) = reloader.keep(&text, None) {
            warn!(%error, "a reload will not be able to try a configuration out");
        }
        reloader
    }

    /// Reads the file again and puts it in force, for good or on trial.
    ///
    /// # Errors
    /// The file means nothing, or the last confirmed one cannot be kept; then everything stays as it is.
    pub async fn reload(&self, confirm_within: Option<Duration>) -> Result<Reloaded, CliError> {
        let mut inner = self.shared.inner.lock().await;
        let outcome = self.change(&mut inner, confirm_within).await;
        match &outcome {
            Ok(done) => info!(
                applied = done.applied.join(","),
                restart = done.restart.join(","),
                "configuration reloaded"
            ),
            Err(error) => warn!(%error, "the configuration is refused, the old one goes on"),
        }
        outcome
    }

    async fn change(&self, inner: &mut Inner, confirm_within: Option<Duration>) -> Result<Reloaded, CliError> {
        let new = Loaded::read(&self.shared.path)?;
        let level = Level::read(&new.config.log)?;
        let change = Change::between(&inner.current.config, &new.config);
        let now = effective(&inner.current.config, &new.config);
        let reverted = now == inner.confirmed.config;
        let is_new = !change.applied.is_empty();
        let event = match reverted {
            true => Event::Reverted,
            false => Event::Applied {
                risk: risk(&inner.confirmed.config, &now),
                connected: self.shared.agent.state().borrow().phase == AgentPhase::Connected,
                confirm_within,
            },
        };
        if is_new || reverted {
            if !reverted {
                // Before it is in force: whatever happens then, the next start finds the way back.
                self.keep(&inner.confirmed.text, Some(&new.text)).map_err(|error| {
                    CliError::new(Exit::Failure, "reload-record", error)
                        .with_hint("make room or give the agent its state directory, then reload again")
                })?;
            }
            if is_new {
                level.apply();
                inner.generation = self.shared.agent.apply(&now).await;
            }
            inner.current = Loaded {
                text: new.text,
                config: now,
            };
            self.advance(inner, event).await;
        }
        let names = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        Ok(Reloaded {
            applied: names(change.applied),
            restart: names(change.restart),
            configuration: configuration(&inner.commit),
        })
    }

    /// Makes the configuration on trial the confirmed one.
    ///
    /// # Errors
    /// Code `nothing-to-confirm` if none is on trial.
    pub async fn confirm(&self) -> Result<Configuration, CliError> {
        let mut inner = self.shared.inner.lock().await;
        if inner.commit.deadline().is_none() {
            let message = match inner.commit.phase() {
                Phase::RolledBack => "the configuration was not confirmed in time and is not in force any more",
                _ => "no configuration is on trial",
            };
            return Err(CliError::new(Exit::Failure, "nothing-to-confirm", message)
                .with_hint("`tunnel-edge reload --confirm-within 120s` starts a trial"));
        }
        self.advance(&mut inner, Event::Confirmed).await;
        Ok(configuration(&inner.commit))
    }

    /// How far the configuration in force is trusted.
    pub async fn configuration(&self) -> Configuration {
        configuration(&self.shared.inner.lock().await.commit)
    }

    /// Ends trials: by their time, or by the gateway's answer. Runs as long as the agent.
    pub async fn watch(self) -> Result<(), Infallible> {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let (phase, generation) = {
                let inner = self.shared.inner.lock().await;
                changed.borrow_and_update();
                (inner.commit.phase(), inner.generation)
            };
            let Phase::Pending { until, by } = phase else {
                // The sender lives in self: waiting cannot fail.
                let _ = changed.changed().await;
                continue;
            };
            let event = tokio::select! {
                () = self.shared.agent.answered(generation), if by == By::RoundTrip => Event::Answered,
                () = sleep_until(Instant::from_std(until)) => Event::Tick,
                _ = changed.changed() => continue,
            };
            let mut inner = self.shared.inner.lock().await;
            if inner.generation == generation {
                self.advance(&mut inner, event).await;
            }
        }
    }

    async fn advance(&self, inner: &mut Inner, event: Event) {
        let now = Instant::now().into_std();
        match inner.commit.handle(event, now) {
            Action::None => {}
            Action::Commit => {
                inner.confirmed = inner.current.clone();
                if let Err(error) = self.keep(&inner.confirmed.text, None) {
                    warn!(%error, "a restart will not find this configuration confirmed");
                }
                info!("configuration confirmed");
                self.shared.agent.enforce();
            }
            Action::RollBack => {
                inner.current = inner.confirmed.clone();
                if let Ok(level) = Level::read(&inner.current.config.log) {
                    level.apply();
                }
                inner.generation = self.shared.agent.apply(&inner.current.config).await;
                warn!(
                    file = %self.shared.path.display(),
                    "configuration rolled back: it was not confirmed in time, the one before is in force; edit the file and reload"
                );
                // What only the other one allowed.
                self.shared.agent.enforce();
            }
        }
        if let Phase::Pending { until, by } = inner.commit.phase() {
            let seconds = until.saturating_duration_since(now).as_secs();
            info!(
                by = by_name(by),
                seconds, "configuration pending: it goes unless it is confirmed in time"
            );
        }
        self.shared.changed.send_modify(|changes| *changes += 1);
    }

    fn keep(&self, confirmed: &str, unconfirmed: Option<&str>) -> Result<(), String> {
        let record = Record {
            confirmed: confirmed.to_owned(),
            unconfirmed: unconfirmed.map(str::to_owned),
        };
        let file = &self.shared.record;
        file.write(&record)
            .map_err(|error| format!("cannot write {}: {error}", file.path().display()))
    }
}

fn by_name(by: By) -> &'static str {
    match by {
        By::RoundTrip => "round trip",
        By::Operator => "operator",
    }
}

fn configuration(commit: &Commit) -> Configuration {
    let (state, pending) = match commit.phase() {
        Phase::Confirmed => (Trust::Confirmed, None),
        Phase::RolledBack => (Trust::RolledBack, None),
        Phase::Pending { until, by } => (Trust::Pending, Some((until, by))),
    };
    let left = |until: std::time::Instant| until.saturating_duration_since(Instant::now().into_std()).as_secs();
    Configuration {
        state,
        confirmed_by: pending.map(|(_, by)| by_name(by).to_owned()),
        seconds_left: pending.map(|(until, _)| left(until)),
    }
}
