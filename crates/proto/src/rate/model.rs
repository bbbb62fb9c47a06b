//! How fast the link is, learned from acknowledgements.
//!
//! What the sender needs is the rate at which the link takes packets off the modem's queue: a little less keeps the queue
//! empty, a little more fills it. Two signals tell. While packets stand in the queue, what comes out of it is the link's
//! rate, neither more nor less; while they do not, the link carries at least what was sent. Whether they do shows in the
//! round trip: the least of a round, above the least of the last 10 to 20 seconds, is the time that even the luckiest packet
//! stood in line.
//!
//! Losses tell little on a radio link and are listened to only where they are many. So this is a model in the manner of BBR
//! (draft-ietf-ccwg-bbr) and of delay-based control as in LEDBAT (RFC 6817), held to what a keystroke does not notice.
//!
//! | phase | paced to | until |
//! |---|---|---|
//! | startup | nothing: the window doubles each round | a queue shows, or the rate grows no more |
//! | drain | less, so that the queue is gone a round later | the queue is gone; if it never goes: compete |
//! | cruise | [`CRUISE`] | a while later: probe; a queue shows: drain |
//! | probe | a few milliseconds of queue above the estimate, twice as much each time that it did no harm | a queue shows |
//! | compete | as a loss-based sender would: the queue is somebody else's | the queue is gone |

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{Rate, window::LeastLately};

/// Between probes, this part of the estimate is used: what stands in the queue by chance goes away.
const CRUISE: f64 = 0.98;
/// How long a cruise lasts until the next probe: twice as long each time that a probe found nothing, and at least so many
/// rounds.
const CRUISE_FOR: Duration = Duration::from_secs(1);
const CRUISE_LONGEST: Duration = Duration::from_secs(6);
const CRUISE_ROUNDS: u32 = 4;
/// A queue that a probe may build where the link has no more to give.
const PROBE_QUEUE: Duration = Duration::from_millis(3);
const PROBE_LEAST: f64 = 0.005;
/// The most that probes come to build, or a quarter of the round trip, whichever is longer. Once more for each four that did
/// no harm: a link that has become much faster is soon found out.
const PROBE_MOST: Duration = Duration::from_millis(10);
/// What is no queue: the ticks of timers, and small packets that were faster than full ones are, here and on the way back.
const JITTER: Duration = Duration::from_millis(3);
const JITTER_BYTES: u64 = PACKET * 3 / 2;
/// A queue that shows, over the jitter.
const SEEN: Duration = Duration::from_millis(2);
/// A queue that is drained. Less may be the other direction's.
const HIGH: Duration = Duration::from_millis(10);
/// Packets by which a round trip must have grown since a probe began.
const RISEN: u64 = PACKET;
/// A queue that never goes is somebody else's, if it is at least this long.
const FOREIGN: Duration = Duration::from_millis(25);
/// The most that a drain takes off the rate.
const DRAIN_MOST: f64 = 0.5;
/// What is left of the estimate each round that a drain takes too long, and after a probe that found nothing.
const STILL_THERE: f64 = 0.995;
/// Rounds that a drain may take until the queue must be somebody else's.
const DRAIN_ROUNDS: u32 = 8;
/// Rounds without growth after which the startup has found what there is to find.
const STALE_ROUNDS: u32 = 3;
/// From this part of the packets on, losses mean that the link is too full.
const MANY_LOST: f64 = 0.15;
/// Arrivals that took so many times as long as the sending are no chance of a packet more or less.
const HELD_UP: f64 = 1.04;
/// What is sent is the estimate if it is at least this part of it.
const USED: f64 = 0.8;
/// The least that a round lasts: shorter ones would count the acknowledgements rather than the packets.
const ROUND: Duration = Duration::from_millis(100);
const STARTUP_ROUND: Duration = Duration::from_millis(25);
const ROUND_PACKETS: u64 = 10;
/// How long the least round trip is believed, at least.
const BELIEVED: Duration = Duration::from_secs(10);
/// A peer that acknowledges may take so long (RFC 9000 section 18.2), and what it holds back needs room in the window.
const ACK_DELAY: Duration = Duration::from_millis(25);
/// A full packet, in bytes: how much a sender that competes adds each round trip.
const PACKET: u64 = 1500;

/// Follows the rate of a link.
#[derive(Debug, Clone)]
pub struct RateModel {
    /// Above this the link is not thin, and nobody is held back.
    thin: Rate,
    /// What was said of the link; it may carry less.
    given: Option<Rate>,
    estimate: Option<Rate>,
    phase: Phase,
    least: LeastLately,
    /// What the round before carried.
    before: Option<Rate>,
    /// The least round trip of a round, on average over a cruise.
    usual: Option<Duration>,
    /// How long the next cruise lasts, at least; by chance up to half as long again.
    cruise_for: Duration,
    dice: SmallRng,
    /// The newest packet whose arrival is known, by when it was sent.
    newest: Option<Instant>,
    round: Round,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Startup {
        stale: u32,
    },
    Drain {
        since: Instant,
        rounds: u32,
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

/// What was learned since some moment.
#[derive(Debug, Clone)]
struct Round {
    began: Instant,
    /// When its first packet was sent, or the last one before.
    sent: Option<Instant>,
    delivered: u64,
    lost: u64,
    least: Option<Duration>,
    app_limited: bool,
}

impl Round {
    fn new(began: Instant, sent: Option<Instant>) -> Self {
        Self {
            began,
            sent,
            delivered: 0,
            lost: 0,
            least: None,
            app_limited: false,
        }
    }
}

/// What a round tells.
#[derive(Debug, Clone, Copy)]
struct Lesson {
    /// What arrived.
    carried: Rate,
    /// It came out slower than it was sent: a queue grew, and what came out of it is what the link carries.
    held_up: bool,
    /// Whether the sender sent what it was allowed to.
    used: bool,
    /// How long even the luckiest packet stood in line.
    queue: Duration,
    lost: bool,
    many_lost: bool,
    round_trip: Duration,
}

impl RateModel {
    /// A model of a link of which nothing is known. Links that carry more than `thin` are left alone. The seed is to be
    /// another one at each end: two that probe at the same times would each take the other's queue for its own.
    pub fn new(thin: Rate, seed: u64, now: Instant) -> Self {
        Self {
            thin,
            given: None,
            estimate: None,
            phase: Phase::Startup { stale: 0 },
            least: LeastLately::new(BELIEVED, now),
            before: None,
            usual: None,
            cruise_for: CRUISE_FOR,
            dice: SmallRng::seed_from_u64(seed),
            newest: None,
            round: Round::new(now, None),
        }
    }

    /// The link is said to carry so much. It is never taken to carry more, but less if it does.
    pub fn set_given(&mut self, given: Option<Rate>, now: Instant) {
        self.given = given;
        if let Some(rate) = given {
            self.estimate = Some(rate);
            self.phase = Phase::Cruise {
                until: now + CRUISE_FOR,
                rounds: 0,
            };
        }
    }

    /// A packet has arrived; `bytes` are all that it takes on the link. Whether the sender had nothing more to send counts
    /// only as long as it is not paced by what this says. To be called for each packet of an acknowledgement, then
    /// [`Self::handle_acks_end`].
    pub fn handle_ack(&mut self, sent: Instant, bytes: u64, app_limited: bool) {
        self.round.delivered += bytes;
        self.round.app_limited |= app_limited;
        self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
    }

    /// So many bytes of packets were lost.
    pub fn handle_loss(&mut self, bytes: u64) {
        self.round.lost += bytes;
    }

    /// The acknowledgement is at its end.
    pub fn handle_acks_end(&mut self, now: Instant) {
        let Some(newest) = self.newest else { return };
        let round_trip = now.saturating_duration_since(newest);
        self.least.see(round_trip, now);
        let round = &mut self.round;
        round.least = Some(round.least.map_or(round_trip, |least| least.min(round_trip)));
        let Some(sent) = round.sent else {
            self.round = Round::new(now, Some(newest));
            return;
        };
        if now.saturating_duration_since(self.round.began) < self.round_length() {
            return;
        }
        let lesson = self.lesson(now, newest, sent);
        self.round = Round::new(now, Some(newest));
        if let Some(lesson) = lesson {
            self.learn(lesson, now);
        }
    }

    /// What to pace to; `None` if nobody need be held back.
    pub fn pacing(&self) -> Option<Rate> {
        let estimate = self.thin_estimate()?;
        let round_trip = self.round_trip() + self.round_length();
        Some(match self.phase {
            Phase::Startup { .. } => return None,
            Phase::Drain { queue, .. } => {
                // All of it, also what may be chance.
                let whole = queue + self.jitter() / 2;
                let less = whole.div_duration_f64(round_trip).clamp(1.0 - CRUISE, DRAIN_MOST);
                estimate.scaled(1.0 - less)
            }
            Phase::Cruise { .. } => estimate.scaled(CRUISE),
            Phase::Probe { step, .. } => {
                let least = PROBE_QUEUE.div_duration_f64(round_trip).max(PROBE_LEAST);
                let more = least * f64::from(1_u32 << step.min(16));
                let most = PROBE_MOST.max(self.round_trip() / 4).div_duration_f64(round_trip);
                estimate.scaled(1.0 + more.min(most * f64::from(1 + step / 4)).min(1.0))
            }
            Phase::Compete { rate } => rate,
        })
    }

    /// How many bytes may be in flight, where a loss-based controller says `other`: on a link that is thin enough for the
    /// window never to be what holds packets back, on others what the controller says.
    pub fn window_beside(&self, other: u64) -> u64 {
        let Some(estimate) = self.thin_estimate() else {
            return other;
        };
        let slack = ROUND_PACKETS * PACKET;
        let whole = |round_trip: Duration| estimate.bytes_in(round_trip + ACK_DELAY);
        match self.phase {
            Phase::Startup { .. } => (2 * whole(self.round_trip()) + slack).max(other),
            // What the carrier holds already may not stand in the link's queue.
            Phase::Drain { .. } => whole(self.round_trip()) + slack / 2,
            Phase::Cruise { .. } | Phase::Probe { .. } => 2 * whole(self.round_trip()) + slack,
            Phase::Compete { .. } => 2 * whole(self.round.least.unwrap_or_default().max(self.round_trip())) + slack,
        }
    }

    /// What the link carries, as far as that is known.
    pub fn estimate(&self) -> Option<Rate> {
        self.estimate
    }

    /// The round trip without a queue, as far as that is known.
    pub fn least_round_trip(&self) -> Option<Duration> {
        self.least.get()
    }

    fn thin_estimate(&self) -> Option<Rate> {
        self.estimate.filter(|estimate| *estimate <= self.thin)
    }

    fn round_trip(&self) -> Duration {
        self.least.get().unwrap_or_default()
    }

    fn jitter(&self) -> Duration {
        let packets = self.estimate.map(|rate| rate.time_for(JITTER_BYTES));
        JITTER.max(packets.unwrap_or_default())
    }

    fn round_length(&self) -> Duration {
        let packets = self.estimate.map(|rate| rate.time_for(ROUND_PACKETS * PACKET));
        match self.phase {
            Phase::Startup { .. } => self.round_trip().max(STARTUP_ROUND),
            _ => self.round_trip().max(ROUND).max(packets.unwrap_or_default()),
        }
    }

    /// What the round that is over tells, unless the sender paused in it.
    fn lesson(&self, now: Instant, newest: Instant, sent: Instant) -> Option<Lesson> {
        let round = &self.round;
        let sending = newest.saturating_duration_since(sent);
        let arriving = now.saturating_duration_since(round.began);
        // Acknowledgements that come in a bunch make no link faster than what was sent.
        let carried = Rate::of(round.delivered, sending.max(arriving))?;
        let used = match self.pacing() {
            Some(pacing) => Rate::of(round.delivered, sending).is_some_and(|rate| rate >= pacing.scaled(USED)),
            None => !round.app_limited,
        };
        let round_trip = round.least?;
        let of_lost = round.lost as f64 / (round.lost + round.delivered) as f64;
        Some(Lesson {
            carried,
            held_up: arriving > sending.mul_f64(HELD_UP),
            used,
            queue: round_trip.saturating_sub(self.round_trip() + self.jitter()),
            lost: round.lost > 0,
            many_lost: of_lost > MANY_LOST,
            round_trip,
        })
    }

    fn learn(&mut self, lesson: Lesson, now: Instant) {
        // A packet more in one round is one less in the next, so that the lesser of two is no chance.
        let carried_twice = self
            .before
            .replace(lesson.carried)
            .unwrap_or(lesson.carried)
            .min(lesson.carried);
        let Some(before) = self.estimate else {
            self.estimate = Some(lesson.carried);
            return;
        };
        let full = lesson.queue >= SEEN || lesson.many_lost;
        self.phase = match self.phase {
            Phase::Startup { stale } => {
                // A queue that is short beside the round trip goes by itself on a link that is not thin.
                let queue = lesson.queue > HIGH.max(self.round_trip() / 8);
                let grown = lesson.carried >= before.scaled(1.25);
                let stale = if grown || !lesson.used { 0 } else { stale + 1 };
                let found = (queue && lesson.used) || lesson.many_lost || stale >= STALE_ROUNDS;
                if found && before > self.thin && queue && stale >= STALE_ROUNDS {
                    // It was fast once, and is no more.
                    self.estimate = Some(lesson.carried);
                    drain(lesson.queue, now)
                } else {
                    self.estimate = Some(before.max(lesson.carried));
                    if found && self.thin_estimate().is_some() {
                        drain(lesson.queue, now)
                    } else {
                        Phase::Startup { stale }
                    }
                }
            }
            phase => {
                self.estimate = Some(if !full {
                    before.max(carried_twice)
                } else if lesson.used && lesson.held_up {
                    follow(before, lesson.carried)
                } else {
                    before
                });
                if let Phase::Drain { rounds: 2.., .. } = phase
                    && lesson.queue >= HIGH
                {
                    // It should be gone by now: the link carries a little less than that.
                    self.estimate = self.estimate.map(|estimate| estimate.scaled(STILL_THERE));
                }
                if self.estimate.is_some_and(|estimate| estimate < before.scaled(0.9)) {
                    // A link that changes is asked more often.
                    self.cruise_for = CRUISE_FOR;
                }
                self.next(phase, lesson, full, now)
            }
        };
        self.estimate = self
            .estimate
            .map(|estimate| estimate.min(self.given.unwrap_or(estimate)));
        if self.estimate.is_some_and(|estimate| estimate > self.thin) {
            self.phase = Phase::Startup { stale: 0 };
        }
    }

    fn next(&mut self, phase: Phase, lesson: Lesson, full: bool, now: Instant) -> Phase {
        let longer = self.dice.random_range(1.0..1.5);
        let cruise = Phase::Cruise {
            until: now + self.cruise_for.mul_f64(longer),
            rounds: 0,
        };
        match phase {
            Phase::Drain { since, rounds, queue } => {
                let fallen = lesson.queue <= queue / 2;
                if lesson.queue < SEEN || (rounds >= 1 && lesson.queue < HIGH) {
                    cruise
                } else if fallen {
                    drain(lesson.queue, now)
                } else if rounds < DRAIN_ROUNDS {
                    let rounds = rounds + 1;
                    Phase::Drain { since, rounds, queue }
                } else if lesson.queue >= FOREIGN {
                    Phase::Compete {
                        rate: self.estimate.unwrap_or(lesson.carried),
                    }
                } else {
                    cruise
                }
            }
            Phase::Cruise { .. } | Phase::Probe { .. } if lesson.queue >= HIGH || lesson.many_lost => {
                drain(lesson.queue, now)
            }
            Phase::Cruise { until, rounds } => {
                let usual = self.usual.filter(|_| rounds > 0);
                let usual = usual.map_or(lesson.round_trip, |usual| (usual * 3 + lesson.round_trip) / 4);
                self.usual = Some(usual);
                if rounds >= CRUISE_ROUNDS && now >= until && lesson.used && !full {
                    Phase::Probe { since: now, step: 0 }
                } else {
                    let rounds = rounds + 1;
                    Phase::Cruise { until, rounds }
                }
            }
            Phase::Probe { .. } if !lesson.used => cruise,
            Phase::Probe { step, .. } if full || lesson.round_trip >= self.risen() => {
                self.cruise_for = if step > 2 {
                    CRUISE_FOR
                } else {
                    (self.cruise_for * 2).min(CRUISE_LONGEST)
                };
                // If chance has set it too high, this is how it comes down; a probe that carries more sets it right again.
                self.estimate = self.estimate.map(|estimate| estimate.scaled(STILL_THERE));
                // What the probe built goes again, with what it went on to build until it was noticed.
                let built = lesson.round_trip.saturating_sub(self.usual.unwrap_or_default());
                drain(built + PROBE_QUEUE * 2, now)
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
                    let more = Rate::of(PACKET, lesson.round_trip).unwrap_or(rate);
                    rate.scaled(1.0 + more.bytes_per_second() as f64 / rate.bytes_per_second() as f64)
                },
            },
            startup @ Phase::Startup { .. } => startup,
        }
    }

    /// A round trip that has a queue in it which was not there in the cruise.
    fn risen(&self) -> Duration {
        let packet = self.estimate.map(|rate| rate.time_for(RISEN));
        self.usual.unwrap_or_default() + JITTER.max(packet.unwrap_or_default())
    }
}

fn drain(queue: Duration, now: Instant) -> Phase {
    Phase::Drain {
        since: now,
        rounds: 0,
        queue,
    }
}

/// The link is full, and what it carries is what it can. Small differences are chance, or a queue on the way back.
fn follow(before: Rate, carried: Rate) -> Rate {
    let ratio = carried.bytes_per_second() as f64 / before.bytes_per_second() as f64;
    if (0.85..1.15).contains(&ratio) { before } else { carried }
}
