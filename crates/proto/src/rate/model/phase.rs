//! What the model does, and when it goes over to something else.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::{CRUISE_FOR, HIGH, JITTER, Rate, RateModel, SEEN, STILL_THERE};
use crate::rate::round::Lesson;

/// Cruises last for twice as long each time that a probe found nothing, and for at least so many rounds.
const CRUISE_LONGEST: Duration = Duration::from_secs(6);
const CRUISE_ROUNDS: u32 = 4;
/// A queue that a probe may build where the link has no more to give.
pub(super) const PROBE_QUEUE: Duration = Duration::from_millis(2);
/// What a probe adds to packets that stand in line by chance shows at this part of a packet.
const RISEN_PACKETS: f64 = 0.75;
/// A queue that never goes is somebody else's, if it is at least this long.
const FOREIGN: Duration = Duration::from_millis(25);
/// What a queue that shows in a cruise takes off the estimate; twice as much each time that cruises before it were cut short
/// too, so often: an estimate that is too high by a tenth would otherwise take half a minute to come down.
const TOO_HIGH: f64 = 0.005;
const TOO_HIGH_DOUBLED: u32 = 2;
/// What a drain takes off at least while the carrier lets out what it held before it was held to anything, so that this comes
/// to an end.
const BACKLOG_QUEUE: Duration = Duration::from_millis(20);
/// Rounds that a drain may take until the queue must be somebody else's.
const DRAIN_ROUNDS: u32 = 8;
/// Rounds that a link must carry the same in, with a queue in each, to be taken for thin.
pub(super) const SAME_ROUNDS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Startup {
        /// What rounds with a queue have carried.
        carried: [Option<Rate>; SAME_ROUNDS],
        /// Rounds without one since.
        empty: u32,
    },
    Drain {
        /// Since the queue last fell to a half.
        rounds: u32,
        /// What it was then, or the most that it came to be since.
        from: Duration,
        queue: Duration,
    },
    Cruise {
        until: Instant,
        rounds: u32,
    },
    Probe {
        since: Instant,
        step: u32,
    },
    Compete {
        rate: Rate,
    },
}

pub(super) const NO_QUEUES: [Option<Rate>; SAME_ROUNDS] = [None; SAME_ROUNDS];
pub(super) const STARTUP: Phase = Phase::Startup {
    carried: NO_QUEUES,
    empty: 0,
};

impl RateModel {
    /// The phase after a round; `full` says that a queue shows.
    pub(super) fn next(&mut self, phase: Phase, lesson: Lesson, full: bool, now: Instant) -> Phase {
        let longer = self.dice.random_range(1.0..1.5);
        let cruise = Phase::Cruise {
            until: now + self.cruise_for.mul_f64(longer),
            rounds: 0,
        };
        match phase {
            // What the carrier holds already keeps to the window alone. Until that is gone there is no telling whose queue it is.
            Phase::Drain { from, .. } if lesson.backlog => Phase::Drain {
                rounds: 0,
                from,
                queue: lesson.queue.max(BACKLOG_QUEUE),
            },
            Phase::Drain { rounds, from, .. } => {
                let queue = lesson.queue;
                if queue < SEEN || (rounds >= 1 && queue < HIGH) {
                    cruise
                } else if queue <= from / 2 {
                    drain(queue)
                } else if rounds < DRAIN_ROUNDS {
                    Phase::Drain {
                        rounds: rounds + 1,
                        from: from.max(queue),
                        queue,
                    }
                } else if lesson.queue >= FOREIGN {
                    Phase::Compete {
                        rate: self.estimate.unwrap_or(lesson.carried),
                    }
                } else {
                    cruise
                }
            }
            Phase::Cruise { .. } | Phase::Probe { .. } if lesson.queue >= HIGH || lesson.many_lost => {
                let early = matches!(phase, Phase::Cruise { until, .. } if now < until);
                self.cut_short = if early {
                    TOO_HIGH_DOUBLED.min(self.cut_short + 1)
                } else {
                    0
                };
                let off = TOO_HIGH * f64::from(1_u32 << self.cut_short);
                self.estimate = self.estimate.map(|estimate| estimate.scaled(1.0 - off));
                drain(lesson.queue)
            }
            Phase::Cruise { until, rounds } => {
                if now >= until {
                    self.cut_short = 0;
                }
                let usual = self.usual.filter(|_| rounds > 0);
                let usual = usual.map_or(lesson.stood, |usual| (usual * 3 + lesson.stood) / 4);
                self.usual = Some(usual);
                let over = rounds >= CRUISE_ROUNDS && now >= until && lesson.used && !full;
                // A queue that stands although less is sent says that the link carries that, and no more. One that is still there
                // after it was drained is none.
                let stands = over && !self.stands && usual >= JITTER.max(self.packet_time());
                if over {
                    self.stands = stands;
                }
                if stands {
                    self.estimate = self.estimate.map(|estimate| estimate.scaled(1.0 - TOO_HIGH));
                    drain(usual)
                } else if over {
                    Phase::Probe { since: now, step: 0 }
                } else {
                    let rounds = rounds + 1;
                    Phase::Cruise { until, rounds }
                }
            }
            Phase::Probe { .. } if !lesson.used => cruise,
            Phase::Probe { step, .. } if full || lesson.stood >= self.risen() => {
                self.cruise_for = if step > 2 {
                    CRUISE_FOR
                } else {
                    (self.cruise_for * 2).min(CRUISE_LONGEST)
                };
                // If chance has set it too high, this is how it comes down; a probe that carries more sets it right again.
                self.estimate = self.estimate.map(|estimate| estimate.scaled(STILL_THERE));
                // What the probe built is to go again, with what it went on to build until that was noticed.
                let built = lesson.stood.saturating_sub(self.usual.unwrap_or_default());
                drain(built + PROBE_QUEUE * 2)
            }
            Phase::Probe { since, step } => {
                // Only now has what was sent since then been acknowledged for a whole round.
                if now.saturating_duration_since(since) >= self.round_trip() + self.round_length() {
                    Phase::Probe {
                        since: now,
                        step: step + 1,
                    }
                } else {
                    Phase::Probe { since, step }
                }
            }
            Phase::Compete { .. } if !full => cruise,
            Phase::Compete { rate } => Phase::Compete {
                rate: if lesson.lost {
                    rate.scaled(0.7)
                } else {
                    let more = Rate::of(self.packet, lesson.round_trip).unwrap_or(rate);
                    rate.scaled(1.0 + more.bytes_per_second() as f64 / rate.bytes_per_second() as f64)
                },
            },
            startup @ Phase::Startup { .. } => startup,
        }
    }

    /// Packets that take so much longer than the least stand in a queue that was not there in the cruise.
    fn risen(&self) -> Duration {
        self.usual.unwrap_or_default() + SEEN.max(self.packet_time().mul_f64(RISEN_PACKETS))
    }
}

/// So much stands in line, and is to go.
pub(super) fn drain(queue: Duration) -> Phase {
    Phase::Drain {
        rounds: 0,
        from: queue,
        queue,
    }
}
