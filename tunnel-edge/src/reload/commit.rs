//! Commit-confirm: a configuration that may cut the edge off is on trial until it has proved itself, or else goes.
//!
//! A state machine without a clock, a file or a socket: events come in with the time, what is to be done comes out.

use std::time::{Duration, Instant};

/// How long a configuration may take to bring a session up and a ping back.
pub const TRIAL: Duration = Duration::from_secs(60);

/// What a change puts at risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// Nothing: it only adds.
    None,
    /// What the gateway may reach shrinks, perhaps by what the operator came through.
    Reach,
    /// The gateway itself may be out of reach.
    Gateway,
}

/// Whose word confirms a configuration on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The gateway's: a round trip through a session.
    RoundTrip,
    /// The operator's.
    Operator,
}

/// How far the configuration in force is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It stays.
    Confirmed,
    /// It goes at this time, unless it is confirmed before.
    Pending {
        /// The end of the trial.
        until: Instant,
        /// Who can confirm it.
        by: By,
    },
    /// The last one went, and the one before is in force, which was confirmed.
    RolledBack,
}

/// What happens to the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Another one was put in force.
    Applied {
        /// What it puts at risk.
        risk: Risk,
        /// Whether there was a session before.
        connected: bool,
        /// For how long the operator wants to be able to lose touch.
        confirm_within: Option<Duration>,
    },
    /// The confirmed one was put in force again.
    Reverted,
    /// The gateway has answered through a session with the one in force.
    Answered,
    /// The operator confirms.
    Confirmed,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Remember the configuration in force as the confirmed one.
    Commit,
    /// Put the confirmed one in force.
    RollBack,
}

/// The machine.
#[derive(Debug)]
pub struct Commit {
    phase: Phase,
}

impl Commit {
    /// A configuration that is there to stay, or the one that took the place of one that had to go.
    pub fn new(rolled_back: bool) -> Self {
        Self {
            phase: if rolled_back {
                Phase::RolledBack
            } else {
                Phase::Confirmed
            },
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Pending { until, .. } => Some(until),
            Phase::Confirmed | Phase::RolledBack => None,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, now: Instant) -> Action {
        let (phase, action) = match (self.phase, event) {
            (
                _,
                Event::Applied {
                    confirm_within: Some(within),
                    ..
                },
            ) => (pending(now, within, By::Operator), Action::None),
            // The operator's own trial goes on over what else is edited meanwhile.
            (
                Phase::Pending {
                    until,
                    by: By::Operator,
                },
                Event::Applied { .. },
            ) => (
                Phase::Pending {
                    until,
                    by: By::Operator,
                },
                Action::None,
            ),
            (Phase::Pending { .. }, Event::Applied { .. })
            | (
                _,
                Event::Applied {
                    risk: Risk::Gateway, ..
                },
            )
            | (
                _,
                Event::Applied {
                    risk: Risk::Reach,
                    connected: true,
                    ..
                },
            ) => (pending(now, TRIAL, By::RoundTrip), Action::None),
            (_, Event::Applied { .. } | Event::Reverted) => (Phase::Confirmed, Action::Commit),
            (Phase::Pending { until, .. }, Event::Tick) if now >= until => (Phase::RolledBack, Action::RollBack),
            (Phase::Pending { by: By::RoundTrip, .. }, Event::Answered) | (Phase::Pending { .. }, Event::Confirmed) => {
                (Phase::Confirmed, Action::Commit)
            }
            (phase, Event::Answered | Event::Confirmed | Event::Tick) => (phase, Action::None),
        };
        self.phase = phase;
        action
    }
}

fn pending(now: Instant, within: Duration, by: By) -> Phase {
    let until = now + within;
    Phase::Pending { until, by }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_only_adds_is_confirmed_at_once() {
        let (mut commit, now) = (Commit::new(false), Instant::now());
        assert_eq!(commit.handle(applied(Risk::None), now), Action::Commit);
        assert_eq!((commit.phase(), commit.deadline()), (Phase::Confirmed, None));
    }

    #[test]
    fn each_event_in_each_phase_does_what_the_table_says() {
        let now = Instant::now();
        let early = now + MINUTE / 2;
        let late = now + 2 * MINUTE;
        let trial = |by| Phase::Pending {
            until: now + MINUTE,
            by,
        };
        let (auto, manual) = (trial(By::RoundTrip), trial(By::Operator));
        let again = Phase::Pending {
            until: early + MINUTE,
            by: By::RoundTrip,
        };
        for (before, event, at, after, action) in [
            (auto, Event::Answered, early, Phase::Confirmed, Action::Commit),
            (auto, Event::Confirmed, early, Phase::Confirmed, Action::Commit),
            (auto, Event::Reverted, early, Phase::Confirmed, Action::Commit),
            (auto, Event::Tick, early, auto, Action::None),
            (auto, Event::Tick, late, Phase::RolledBack, Action::RollBack),
            (auto, applied(Risk::None), early, again, Action::None),
            (manual, Event::Answered, early, manual, Action::None),
            (manual, Event::Confirmed, early, Phase::Confirmed, Action::Commit),
            (manual, Event::Tick, late, Phase::RolledBack, Action::RollBack),
            (manual, applied(Risk::Gateway), early, manual, Action::None),
            (Phase::Confirmed, Event::Answered, early, Phase::Confirmed, Action::None),
            (
                Phase::Confirmed,
                Event::Confirmed,
                early,
                Phase::Confirmed,
                Action::None,
            ),
            (Phase::Confirmed, Event::Tick, late, Phase::Confirmed, Action::None),
            (Phase::Confirmed, applied(Risk::Reach), early, again, Action::None),
            (Phase::Confirmed, applied(Risk::Gateway), early, again, Action::None),
            (Phase::RolledBack, Event::Tick, late, Phase::RolledBack, Action::None),
            (
                Phase::RolledBack,
                Event::Answered,
                late,
                Phase::RolledBack,
                Action::None,
            ),
            (Phase::RolledBack, applied(Risk::Gateway), early, again, Action::None),
            (
                Phase::RolledBack,
                applied(Risk::None),
                early,
                Phase::Confirmed,
                Action::Commit,
            ),
            (
                Phase::RolledBack,
                Event::Reverted,
                early,
                Phase::Confirmed,
                Action::Commit,
            ),
        ] {
            let mut commit = Commit { phase: before };
            let done = commit.handle(event, at);
            assert_eq!((commit.phase(), done), (after, action), "{before:?} {event:?}");
        }
    }

    #[test]
    fn an_operator_who_asks_for_a_trial_gets_it_whatever_the_change() {
        let (mut commit, now) = (Commit::new(true), Instant::now());
        let event = Event::Applied {
            risk: Risk::None,
            connected: true,
            confirm_within: Some(2 * MINUTE),
        };
        assert_eq!(commit.handle(event, now), Action::None);
        assert_eq!(commit.deadline(), Some(now + 2 * MINUTE));
        assert_eq!(commit.handle(Event::Tick, now + 2 * MINUTE), Action::RollBack);
    }

    /// An edge that is not connected cannot be cut off by allowing less.
    #[test]
    fn allowing_less_without_a_session_is_confirmed_at_once() {
        let event = Event::Applied {
            risk: Risk::Reach,
            connected: false,
            confirm_within: None,
        };
        assert_eq!(Commit::new(false).handle(event, Instant::now()), Action::Commit);
    }

    fn applied(risk: Risk) -> Event {
        Event::Applied {
            risk,
            connected: true,
            confirm_within: None,
        }
    }
}
