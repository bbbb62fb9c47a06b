//! The machine that a node runs on, and when it lets the node run.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

const US: Duration = Duration::from_micros(1);

/// Lets a node run for a while, then others, then the node again.
#[derive(Debug)]
pub(crate) struct Host {
    load: Option<Load>,
    /// From when to when it runs.
    turn: Range<Instant>,
    /// When the work that it has done is done.
    free: Instant,
}

/// What else a machine does.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// How long the node runs, and waits, at once.
    runs: Range<Duration>,
    waits: Range<Duration>,
    /// What a packet costs, sent or received.
    packet: Duration,
    dice: SmallRng,
}

impl Load {
    /// Little else to do: timers are late by a millisecond or two now and then.
    pub(crate) fn light(seed: u64) -> Self {
        Self {
            runs: US * 500..US * 20_000,
            waits: US * 50..US * 3_000,
            packet: US * 20,
            dice: SmallRng::seed_from_u64(seed),
        }
    }

    /// Other processes hold the node up for 5 to 100 ms at once, by the seed.
    pub(crate) fn heavy(seed: u64) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed);
        let run = dice.random_range(1_000..20_000);
        let wait = dice.random_range(6_000..100_000);
        Self {
            runs: US * (run / 2)..US * (run * 2),
            waits: US * 5_000..US * wait,
            packet: US * dice.random_range(3..30),
            dice,
        }
    }
}

impl Host {
    /// Has nothing else to do.
    pub(crate) fn idle(now: Instant) -> Self {
        Self {
            load: None,
            turn: now..now,
            free: now,
        }
    }

    pub(crate) fn shared(load: Load, now: Instant) -> Self {
        Self {
            load: Some(load),
            ..Self::idle(now)
        }
    }

    /// Whether the node may do something now.
    pub(crate) fn runs(&mut self, now: Instant) -> bool {
        let Some(load) = &mut self.load else { return true };
        while self.turn.end <= now {
            let begin = self.turn.end + load.dice.random_range(load.waits.clone());
            self.turn = begin..begin + load.dice.random_range(load.runs.clone());
        }
        self.runs_from() <= now
    }

    pub(crate) fn runs_from(&self) -> Instant {
        self.turn.start.max(self.free)
    }

    /// It does what a packet takes.
    pub(crate) fn work(&mut self, now: Instant) {
        if let Some(load) = &self.load {
            self.free = self.free.max(now) + load.packet;
        }
    }
}
