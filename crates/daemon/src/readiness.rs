//! Is the process of use? Named checks, each reported by whoever did the real round trip.
//!
//! A check is not a flag that says "connected": the part of the process that it belongs to reports [`Check::ready`]
//! after it has got a true answer (an echo through the tunnel, a row from the store) and [`Check::failed`] with the
//! reason when it did not. Until the first report a check is not ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

/// The checks of a process; clones share them.
#[derive(Clone, Debug)]
pub struct Readiness {
    checks: Arc<watch::Sender<BTreeMap<&'static str, State>>>,
}

/// The handle with which one part of the process reports.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    logged: bool,
    checks: Arc<watch::Sender<BTreeMap<&'static str, State>>>,
}

#[derive(Clone, Debug)]
struct State {
    /// Why not, unless ready.
    fault: Option<String>,
    since: SystemTime,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether every check is ready, and there is one at all.
    pub ready: bool,
    /// All checks, by name.
    pub checks: Vec<CheckReport>,
}

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// Whether its last round trip succeeded.
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Since when it is or is not ready (RFC 3339, UTC). A new reason for the same state does not restart it.
    pub since: String,
}

impl Readiness {
    /// No checks, hence not ready.
    pub fn new() -> Self {
        Self {
            checks: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }

    /// Adds a check, not ready until it is first reported. Each change of it is a line of the log.
    pub fn check(&self, name: &'static str) -> Check {
        self.add(name, true)
    }

    /// As [`Self::check`], for a part of the process that logs its changes of state itself: one change is one line.
    pub fn unlogged_check(&self, name: &'static str) -> Check {
        self.add(name, false)
    }

    fn add(&self, name: &'static str, logged: bool) -> Check {
        let checks = Arc::clone(&self.checks);
        let check = Check { name, logged, checks };
        check.report(Some("not checked yet".to_owned()));
        check
    }

    /// The state of all checks.
    pub fn report(&self) -> Report {
        let checks = self.checks.borrow();
        Report {
            ready: all_ready(&checks),
            checks: checks.iter().map(|(name, state)| state.report(name)).collect(),
        }
    }

    /// Returns once all checks are ready, at once if they are already.
    pub async fn wait_ready(&self) {
        // The sender lives in self: waiting cannot fail.
        let _ = self.checks.subscribe().wait_for(all_ready).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// A round trip succeeded.
    pub fn ready(&self) {
        self.report(None);
    }

    /// A round trip failed, or can no longer be made.
    pub fn failed(&self, reason: impl Into<String>) {
        self.report(Some(reason.into()));
    }

    fn report(&self, fault: Option<String>) {
        self.checks.send_if_modified(|checks| {
            let now = SystemTime::now();
            let Some(state) = checks.get_mut(self.name) else {
                checks.insert(self.name, State { fault, since: now });
                return true;
            };
            if state.fault == fault {
                return false;
            }
            match &fault {
                None if self.logged => tracing::info!(check = self.name, "check ready"),
                Some(reason) if self.logged && state.fault.is_none() => {
                    tracing::warn!(check = self.name, %reason, "check failed");
                }
                _ => {}
            }
            let since = if state.fault.is_none() == fault.is_none() {
                state.since
            } else {
                now
            };
            *state = State { fault, since };
            true
        });
    }
}

impl State {
    fn report(&self, name: &str) -> CheckReport {
        CheckReport {
            name: name.to_owned(),
            ready: self.fault.is_none(),
            reason: self.fault.clone(),
            since: OffsetDateTime::from(self.since).format(&Rfc3339).unwrap_or_default(),
        }
    }
}

fn all_ready(checks: &BTreeMap<&'static str, State>) -> bool {
    !checks.is_empty() && checks.values().all(|state| state.fault.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_check_has_succeeded() {
        let readiness = Readiness::new();
        assert!(!readiness.report().ready, "nothing was checked");
        let (store, tunnel) = (readiness.check("store"), readiness.check("tunnel"));
        store.ready();
        assert!(!readiness.report().ready, "the tunnel was not checked yet");
        tunnel.ready();
        assert!(readiness.report().ready);
        tunnel.failed("no echo in 5 s");

        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.checks[0].reason, None);
        assert_eq!(report.checks[1].reason.as_deref(), Some("no echo in 5 s"));
    }

    #[test]
    fn a_new_reason_for_the_same_state_does_not_restart_its_time() {
        let readiness = Readiness::new();
        let tunnel = readiness.check("tunnel");
        let first = readiness.report().checks[0].since.clone();
        tunnel.failed("no route");
        tunnel.failed("no echo");
        assert_eq!(readiness.report().checks[0].since, first);
        tunnel.ready();
        assert_ne!(readiness.report().checks[0].since, first);
    }

    #[tokio::test]
    async fn whoever_waits_for_readiness_is_woken() {
        let readiness = Readiness::new();
        let tunnel = readiness.check("tunnel");
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_ready().await }
        });
        tunnel.failed("still no echo");
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        tunnel.ready();
        waiter.await.unwrap();
    }
}
