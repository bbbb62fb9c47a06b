//! How fast the link is, learned from acknowledgements.
//!
//! What the sender needs is the rate at which the link takes packets off the modem's queue: a little less keeps the queue
//! empty, a little more fills it. Two signals tell. While packets stand in the queue, what comes out of it is the link's
//! rate, neither more nor less; while they do not, the link carries at least what was sent. Whether they do shows in how long
//! they take to the peer: the least of a round, above the least of the last 10 to 20 seconds, is the time that even the luckiest
//! packet stood in line ([`Delays`]).
//!
//! Losses tell little on a radio link and are listened to only where they are many. So this is a model in the manner of BBR
//! (draft-ietf-ccwg-bbr) and of delay-based control as in LEDBAT (RFC 6817), held to what a keystroke does not notice.
//!
//! | phase | paced to | until |
//! |---|---|---|
//! | startup | nothing: the window is the other controller's, and at least a tenth more than what was carried | a queue shows in three rounds that carry about the same, and nothing tells of another cause |
//! | drain | less, so that the queue is gone a round later | the queue is gone, and so is what the carrier held; if it never goes: compete |
//! | cruise | a little less than the estimate | a while later: probe; a queue shows, or stands all along: drain |
//! | probe | a few milliseconds of queue above the estimate, more each time that it did no harm | a queue shows |
//! | compete | as a loss-based sender would: the queue is somebody else's | the queue is gone |
//!
//! A machine that is busy makes round trips longer too, and carries about the same in each, and to hold it to that would make
//! it slower for nothing. Two things tell it from a link: packets that were sent and acknowledged together prove now and then
//! that the link carries far more ([`Trains`]), and its round trips jump up and down ([`Doubts`]). In doubt the link is let go,
//! for longer each time.

mod pace;
mod phase;
mod room;
mod startup;

use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::SmallRng};

use self::phase::{Phase, STARTUP};
use super::{
    Rate,
    delays::Delays,
    doubts::Doubts,
    losses::Losses,
    round::{Lesson, Round},
    train::Trains,
};

/// How long a cruise lasts until the next probe, at first.
const CRUISE_FOR: Duration = Duration::from_secs(1);
/// What is no queue: the ticks of timers, and small packets that were faster than full ones are.
const JITTER: Duration = Duration::from_millis(3);
const JITTER_PACKETS: f64 = 1.5;
/// A queue that shows, over the jitter.
const SEEN: Duration = Duration::from_millis(2);
/// A queue that is drained. Less may be chance.
const HIGH: Duration = Duration::from_millis(10);
/// What is left of the estimate each round that a drain takes too long, and after a probe that found nothing.
const STILL_THERE: f64 = 0.995;
/// What is left of the estimate, at least, after a round of a drain in which the carrier let out what it held already: as much
/// as its window allows, which may be less than the link carries.
const BACKLOG_FALL: f64 = 0.8;
/// What is proven beyond that shows that it is not the link that holds us up.
const MORE: f64 = 1.3;
/// The least that a round lasts: shorter ones would count the acknowledgements rather than the packets.
const ROUND: Duration = Duration::from_millis(100);
const STARTUP_ROUND: Duration = Duration::from_millis(25);
const ROUND_PACKETS: u32 = 10;
/// A peer that acknowledges may take so long (RFC 9000 section 18.2), and what it holds back needs room in the window.
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Rounds without a loss after which gaps are a thing of the past.
const GAPS_FOR: u32 = 8;
/// A full packet, in bytes, until larger ones have arrived.
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
    delays: Delays,
    /// What the round before carried.
    before: Option<Rate>,
    /// The least round trip of the round before.
    last: Duration,
    /// How much longer than the least packets take in a cruise, on average.
    usual: Option<Duration>,
    /// How long the next cruise lasts, at least; by chance up to half as long again.
    cruise_for: Duration,
    /// Cruises in a row that a queue cut short.
    cut_short: u32,
    /// The last cruise that came to its end had a queue all along.
    stands: bool,
    dice: SmallRng,
    /// The largest packet that has arrived, in bytes.
    packet: u64,
    /// The newest packet whose arrival is known, by when it was sent.
    newest: Option<Instant>,
    round: Round,
    /// Rounds for which gaps are still to be reckoned with.
    gaps: u32,
    trains: Trains,
    doubts: Doubts,
    losses: Losses,
    /// Bytes that the acknowledgement named so far.
    arrived: u64,
    /// The round trip on average.
    smoothed: Option<Duration>,
}

impl RateModel {
    /// A model of a link of which nothing is known. Links that carry more than `thin` are left alone. The seed is to be
    /// another one at each end: two that probe at the same times would each take the other's queue for its own.
    pub fn new(thin: Rate, seed: u64, now: Instant) -> Self {
        Self {
            thin,
            given: None,
            estimate: None,
            phase: STARTUP,
            delays: Delays::new(now),
            before: None,
            last: Duration::ZERO,
            usual: None,
            cruise_for: CRUISE_FOR,
            cut_short: 0,
            stands: false,
            dice: SmallRng::seed_from_u64(seed),
            packet: PACKET,
            newest: None,
            round: Round::new(now, None),
            gaps: 0,
            trains: Trains::new(now),
            doubts: Doubts::new(now),
            losses: Losses::default(),
            arrived: 0,
            smoothed: None,
        }
    }

    /// The link is said to carry so much. It is never taken to carry more, but less if it does.
    pub fn set_given(&mut self, given: Option<Rate>, now: Instant) {
        self.given = given;
        self.estimate = given;
        self.phase = match given {
            None => STARTUP,
            Some(_) => Phase::Cruise {
                until: now + CRUISE_FOR,
                rounds: 0,
            },
        };
    }

    /// What the link is said to carry.
    pub fn given(&self) -> Option<Rate> {
        self.given
    }

    /// A packet has arrived; `bytes` are all that it takes on the link. Whether the sender had nothing more to send counts
    /// only as long as it is not paced by what this says. To be called for each packet of an acknowledgement, then
    /// [`Self::handle_acks_end`].
    pub fn handle_ack(&mut self, sent: Instant, bytes: u64, app_limited: bool) {
        self.round.delivered += bytes;
        self.arrived += bytes;
        self.packet = self.packet.max(bytes);
        if app_limited {
            self.round.app_limited += bytes;
        }
        self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
        self.trains.see(sent, bytes);
    }

    /// So many bytes of packets were lost.
    pub fn handle_loss(&mut self, bytes: u64) {
        self.round.lost += bytes;
        self.gaps = GAPS_FOR;
        self.losses.lost(bytes);
    }

    /// Whether what was lost of late is no more than a bad link loses, while nothing stands in line.
    pub fn losses_are_chance(&self) -> bool {
        self.losses.are_chance()
    }

    /// The acknowledgement is at its end.
    pub fn handle_acks_end(&mut self, now: Instant) {
        let Some(newest) = self.newest else { return };
        let round_trip = now.saturating_duration_since(newest);
        self.delays.handle_round_trip(round_trip, now);
        let smoothed = self
            .smoothed
            .map_or(round_trip, |smoothed| (smoothed * 7 + round_trip) / 8);
        self.smoothed = Some(smoothed);
        self.losses
            .carried(std::mem::take(&mut self.arrived), smoothed, self.round_trip());
        let proven = self.trains.end(round_trip, self.packet, now);
        if self.round.sent.is_none() {
            self.delays.end_round(now);
            self.round = Round::new(now, Some(newest));
            return;
        }
        if proven > self.estimate.map(|estimate| estimate.scaled(MORE)) && !matches!(self.phase, Phase::Startup { .. })
        {
            self.let_go(now);
        }
        if now.saturating_duration_since(self.round.began) < self.round_length() {
            return;
        }
        // A round that a probe began in has been sent at two rates.
        let allowed = self
            .pacing()
            .map(|pacing| self.estimate.map_or(pacing, |estimate| estimate.min(pacing)));
        let jitter = self.jitter();
        let lesson = self
            .delays
            .end_round(now)
            .and_then(|ways| self.round.lesson(newest, allowed, ways, jitter, now));
        self.round = Round::new(now, Some(newest));
        if let Some(lesson) = lesson {
            self.learn(lesson, now);
        }
    }

    /// A packet took so long to the peer, and what answered it so long back, each on top of a time that is the same for all
    /// ([`Transit`](crate::Transit)).
    pub fn handle_transit(&mut self, there: Duration, back: Duration, now: Instant) {
        self.delays.handle_transit(there, back, now);
    }

    /// It was not the link that made us wait.
    fn let_go(&mut self, now: Instant) {
        if self.given.is_none() {
            self.phase = STARTUP;
            self.doubts.let_go(now);
        }
    }

    fn thin_estimate(&self) -> Option<Rate> {
        self.estimate.filter(|estimate| *estimate <= self.thin)
    }

    fn round_trip(&self) -> Duration {
        self.delays.round_trip()
    }

    /// A few packets more or less.
    fn slack(&self) -> u64 {
        u64::from(ROUND_PACKETS) * self.packet
    }

    fn jitter(&self) -> Duration {
        JITTER.max(self.packet_time().mul_f64(JITTER_PACKETS))
    }

    /// How long the link takes for a packet.
    fn packet_time(&self) -> Duration {
        let time = self.estimate.map(|rate| rate.time_for(self.packet));
        time.unwrap_or_default()
    }

    fn round_length(&self) -> Duration {
        let packets = self.packet_time() * ROUND_PACKETS;
        match self.phase {
            Phase::Startup { .. } => self.last.max(STARTUP_ROUND),
            _ => self.round_trip().max(ROUND).max(packets),
        }
    }

    fn learn(&mut self, lesson: Lesson, now: Instant) {
        self.last = lesson.round_trip;
        if !lesson.lost {
            self.gaps = self.gaps.saturating_sub(1);
        }
        let round_before = self.before.replace(lesson.carried).unwrap_or(lesson.carried);
        // A packet more in one round is one less in the next, so that the lesser of two is no chance.
        let carried_twice = round_before.min(lesson.carried);
        let Some(before) = self.estimate else {
            self.estimate = Some(lesson.carried);
            return;
        };
        let full = lesson.queue >= SEEN || lesson.many_lost;
        self.phase = match self.phase {
            Phase::Startup { carried, empty } => self.start(before, carried, empty, lesson, now),
            phase => {
                let mut estimate = if !full {
                    before.max(carried_twice)
                } else if lesson.used && lesson.held_up {
                    follow(before, round_before.max(lesson.carried))
                } else {
                    before
                };
                if let Phase::Drain { rounds, .. } = phase {
                    if lesson.backlog {
                        estimate = estimate.max(before.scaled(BACKLOG_FALL));
                    } else if rounds >= 2 && lesson.queue >= HIGH {
                        // It should be gone by now: the link carries a little less than that.
                        estimate = estimate.scaled(STILL_THERE);
                    }
                }
                self.estimate = Some(estimate);
                if estimate < before.scaled(0.9) {
                    // A link that changes is asked more often.
                    self.cruise_for = CRUISE_FOR;
                }
                // While queues drain, at both ends perhaps, round trips go up and down by themselves.
                let drains = matches!(phase, Phase::Drain { .. });
                if !drains && self.doubts.see(lesson.round_trip) && self.given.is_none() {
                    self.let_go(now);
                    return;
                }
                self.next(phase, lesson, full, now)
            }
        };
        self.estimate = self
            .estimate
            .map(|estimate| estimate.min(self.given.unwrap_or(estimate)));
        if self.estimate.is_some_and(|estimate| estimate > self.thin) {
            self.phase = STARTUP;
        }
    }
}

/// The link is full, and what it carries is what it can. Small differences are chance, or a queue on the way back.
fn follow(before: Rate, carried: Rate) -> Rate {
    let ratio = carried.bytes_per_second() as f64 / before.bytes_per_second() as f64;
    if (0.85..1.15).contains(&ratio) { before } else { carried }
}
