//! What is learned in a round: the time in which a window of packets is sent and acknowledged.

use std::time::{Duration, Instant};

use super::{Rate, delays::Ways};

/// From this part of the packets on, losses mean that the link is too full.
const MANY_LOST: f64 = 0.15;
/// Arrivals that took so many times as long as the sending are no chance of a packet more or less.
const HELD_UP: f64 = 1.04;
/// What is sent is what was allowed if it is at least this part of it.
const USED: f64 = 0.8;

/// What was learned since some moment.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) began: Instant,
    /// When its first packet was sent, or the last one before.
    pub(super) sent: Option<Instant>,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// Bytes of packets behind which there was nothing to send.
    pub(super) app_limited: u64,
}

/// What a round tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lesson {
    /// What arrived.
    pub(super) carried: Rate,
    /// It came out slower than it was sent: a queue grew, and what came out of it is what the link carries.
    pub(super) held_up: bool,
    /// Whether the sender sent what it was allowed to.
    pub(super) used: bool,
    /// How much longer than the least even the luckiest packet took.
    pub(super) stood: Duration,
    /// How much of that is no chance: it stood in line.
    pub(super) queue: Duration,
    /// More was waiting in the carrier than the window let out.
    pub(super) backlog: bool,
    pub(super) lost: bool,
    pub(super) many_lost: bool,
    pub(super) round_trip: Duration,
}

impl Round {
    pub(super) fn new(began: Instant, sent: Option<Instant>) -> Self {
        Self {
            began,
            sent,
            delivered: 0,
            lost: 0,
            app_limited: 0,
        }
    }

    /// What the round that is over tells, unless the sender paused in it. `allowed` is what was paced to, and `jitter` how much
    /// longer a packet takes by chance.
    pub(super) fn lesson(
        &self,
        newest: Instant,
        allowed: Option<Rate>,
        ways: Ways,
        jitter: Duration,
        now: Instant,
    ) -> Option<Lesson> {
        let sending = newest.saturating_duration_since(self.sent?);
        let arriving = ways.arriving(now.saturating_duration_since(self.began));
        // Acknowledgements that come in a bunch make no link faster than what was sent.
        let carried = Rate::of(self.delivered, sending.max(arriving))?;
        let used = match allowed {
            Some(allowed) => Rate::of(self.delivered, sending).is_some_and(|rate| rate >= allowed.scaled(USED)),
            None => self.app_limited <= self.delivered / 4 * 3,
        };
        let of_lost = self.lost as f64 / (self.lost + self.delivered) as f64;
        Some(Lesson {
            carried,
            held_up: arriving > sending.mul_f64(HELD_UP),
            used,
            queue: ways.stood.saturating_sub(jitter),
            stood: ways.stood,
            backlog: self.app_limited <= self.delivered / 2,
            lost: self.lost > 0,
            many_lost: of_lost > MANY_LOST,
            round_trip: ways.round_trip,
        })
    }
}
