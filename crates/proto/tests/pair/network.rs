//! A simulated carrier: a control stream and independent byte streams, with latency, loss, random cuts into segments,
//! and death with everything in flight.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::Side;

/// One of the byte streams of a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Channel {
    Control,
    /// The stream of the plan with this index.
    Stream(usize),
}

/// What one end of a byte stream hears from the other.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Bytes(Bytes),
    Fin,
    /// Overtakes what was written before it, which is lost.
    Reset(Reason),
}

/// What arrives at one side.
#[derive(Debug)]
pub(crate) enum Arrival {
    Piece(Channel, Piece),
    /// The carrier of this generation is dead.
    Lost(Refusal),
}

/// How a link behaves.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// What is added to the latency of each segment, at most.
    pub(crate) jitter: Duration,
    /// The share of segments that are lost; each comes again after a retransmission time.
    pub(crate) loss: f64,
    /// The longest segment, in bytes.
    pub(crate) segment: usize,
    /// As with yamux: who reads cannot tell a reset from an end.
    pub(crate) resets_look_like_ends: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(30),
            jitter: Duration::ZERO,
            loss: 0.0,
            segment: 1200,
            resets_look_like_ends: false,
        }
    }
}

/// Extra delays of one channel, so that a test can say what overtakes what.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    pub(crate) control_of_edge: Duration,
    pub(crate) control_of_gateway: Duration,
    pub(crate) streams: Duration,
}

pub(crate) struct Network {
    pub(crate) link: Link,
    pub(crate) delays: Delays,
    /// Everything sent vanishes and nobody is told.
    pub(crate) blackhole: bool,
    /// Counts carriers; what belongs to an older one never arrives.
    generation: u64,
    alive: bool,
    rng: StdRng,
    in_flight: BTreeMap<(Instant, u64), (u64, Side, Arrival)>,
    sequence: u64,
    /// When the last piece of each direction arrives: the next arrives no earlier.
    tails: HashMap<(Side, Channel), Instant>,
    reset: HashSet<(Side, Channel)>,
    /// Bytes that were written to the control stream, by sender.
    pub(crate) control_writes: Vec<(Instant, Side, Bytes)>,
}

impl Network {
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            delays: Delays::default(),
            blackhole: false,
            generation: 0,
            alive: false,
            rng: StdRng::seed_from_u64(seed),
            in_flight: BTreeMap::new(),
            sequence: 0,
            tails: HashMap::new(),
            reset: HashSet::new(),
            control_writes: Vec::new(),
        }
    }

    /// A new carrier takes the place of whatever was there.
    pub(crate) fn connect(&mut self) {
        self.kill();
        self.generation += 1;
        self.alive = true;
        self.blackhole = false;
        self.tails.clear();
        self.reset.clear();
    }

    /// The carrier dies with everything in flight. Nobody knows yet.
    pub(crate) fn kill(&mut self) {
        self.alive = false;
        self.in_flight
            .retain(|_, (_, _, arrival)| matches!(arrival, Arrival::Lost(_)));
    }

    /// Lets a side learn after some time that the carrier of now is dead.
    pub(crate) fn tell(&mut self, to: Side, refusal: Refusal, at: Instant) {
        self.arrange(to, Arrival::Lost(refusal), at);
    }

    pub(crate) fn send(&mut self, from: Side, channel: Channel, bytes: &[u8], now: Instant) {
        if channel == Channel::Control {
            self.control_writes.push((now, from, Bytes::copy_from_slice(bytes)));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = self.rng.random_range(1..=self.link.segment).min(rest.len());
            let (segment, behind) = rest.split_at(length);
            rest = behind;
            self.send_in_order(from, channel, Piece::Bytes(Bytes::copy_from_slice(segment)), now);
        }
    }

    pub(crate) fn finish(&mut self, from: Side, channel: Channel, now: Instant) {
        self.send_in_order(from, channel, Piece::Fin, now);
    }

    pub(crate) fn reset(&mut self, from: Side, channel: Channel, reason: Reason, now: Instant) {
        let at = now + self.delay(from, channel);
        self.send_piece(from, channel, Piece::Reset(reason), at);
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|((at, _), _)| *at)
    }

    /// What has arrived by `now` and belongs to the carrier of now.
    pub(crate) fn arrived(&mut self, now: Instant) -> Option<(Side, Arrival)> {
        loop {
            let entry = self.in_flight.first_entry().filter(|e| e.key().0 <= now)?;
            let (generation, to, arrival) = entry.remove();
            if generation != self.generation {
                continue;
            }
            let Arrival::Piece(channel, piece) = arrival else {
                return Some((to, arrival));
            };
            if self.reset.contains(&(to, channel)) {
                continue;
            }
            let piece = match piece {
                Piece::Reset(reason) => {
                    self.reset.insert((to, channel));
                    if self.link.resets_look_like_ends {
                        Piece::Fin
                    } else {
                        Piece::Reset(reason)
                    }
                }
                other => other,
            };
            return Some((to, Arrival::Piece(channel, piece)));
        }
    }

    fn send_in_order(&mut self, from: Side, channel: Channel, piece: Piece, now: Instant) {
        let drawn = now + self.delay(from, channel);
        let tail = self.tails.entry((from, channel)).or_insert(drawn);
        *tail = drawn.max(*tail);
        let at = *tail;
        self.send_piece(from, channel, piece, at);
    }

    fn send_piece(&mut self, from: Side, channel: Channel, piece: Piece, at: Instant) {
        if self.alive && !self.blackhole {
            self.arrange(other(from), Arrival::Piece(channel, piece), at);
        }
    }

    fn arrange(&mut self, to: Side, arrival: Arrival, at: Instant) {
        self.sequence += 1;
        self.in_flight
            .insert((at, self.sequence), (self.generation, to, arrival));
    }

    fn delay(&mut self, from: Side, channel: Channel) -> Duration {
        let extra = match (channel, from) {
            (Channel::Control, Side::Edge) => self.delays.control_of_edge,
            (Channel::Control, Side::Gateway) => self.delays.control_of_gateway,
            (Channel::Stream(_), _) => self.delays.streams,
        };
        let mut delay = self.link.latency + self.link.jitter.mul_f64(self.rng.random_range(0.0..=1.0)) + extra;
        let mut retransmission = self.link.latency * 2 + Duration::from_millis(50);
        for _ in 0..3 {
            if !self.rng.random_bool(self.link.loss) {
                break;
            }
            delay += retransmission;
            retransmission *= 2;
        }
        delay
    }
}

pub(crate) fn other(side: Side) -> Side {
    match side {
        Side::Edge => Side::Gateway,
        Side::Gateway => Side::Edge,
    }
}
