//! One direction of a link: a queue, a transmitter and a wire.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use crate::config::LinkConfig;
use crate::fate::{Fate, Fates};
use crate::stats::LinkStats;

/// The most bytes one direction holds, whatever its settings: a link without a rate but with a long
/// delay would otherwise hold as much as its user can send. More counts as overflow.
pub const IN_TRANSIT_LIMIT_BYTES: u64 = 64 << 20;

/// What a [`Link`] carries.
pub trait Packet: Clone {
    /// Bytes that the packet takes on the wire, headers included.
    fn wire_len(&self) -> u64;
    /// The bytes that corruption may touch.
    fn payload_mut(&mut self) -> &mut [u8];
}

impl Packet for Vec<u8> {
    fn wire_len(&self) -> u64 {
        self.len() as u64
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// One direction of a link, without IO or clock.
///
/// Call [`handle_packet`](Self::handle_packet) for what enters; then, and whenever the time of
/// [`poll_timeout`](Self::poll_timeout) has come, [`poll_transmit`](Self::poll_transmit) until it
/// returns `None`. `now` must never go backwards.
///
/// A packet passes three places. It waits in a drop-tail queue, it occupies the transmitter for its
/// length at the link's rate, and it flies for the delay. Loss, corruption and the other accidents
/// happen in flight, so a lost packet has used up its share of the rate, as on a radio link.
#[derive(Debug)]
pub struct Link<P> {
    config: LinkConfig,
    fates: Fates,
    waiting: VecDeque<(P, Fate)>,
    waiting_bytes: u64,
    sending: Option<Sending<P>>,
    flying: BinaryHeap<Reverse<Flying<P>>>,
    flying_bytes: u64,
    /// When the last packet that kept its place in the order arrives.
    last_arrival: Option<Instant>,
    launched: u64,
    stats: LinkStats,
}

#[derive(Debug)]
struct Sending<P> {
    done: Instant,
    packet: P,
    fate: Fate,
}

impl<P: Packet> Link<P> {
    /// A link with nothing on it. `seed` decides every packet's fate.
    #[must_use]
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            fates: Fates::new(seed),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sending: None,
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            last_arrival: None,
            launched: 0,
            stats: LinkStats::default(),
        }
    }

    /// Changes the settings. What is being sent or flies already keeps the time it was given; what
    /// waits is sent at the new rate. A cut takes all of them.
    pub fn set(&mut self, config: LinkConfig) {
        self.config = config;
        if !config.up {
            self.stats.cut += self.in_transit();
            self.waiting.clear();
            self.waiting_bytes = 0;
            self.sending = None;
            self.flying.clear();
            self.flying_bytes = 0;
            self.last_arrival = None;
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What the link has done so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        LinkStats {
            in_transit: self.in_transit(),
            queued_bytes: self.waiting_bytes,
            ..self.stats
        }
    }

    /// A packet enters.
    pub fn handle_packet(&mut self, now: Instant, packet: P) {
        self.advance(now);
        let len = packet.wire_len();
        self.stats.offered_packets += 1;
        self.stats.offered_bytes += len;
        let fate = self.fates.draw(&self.config);
        if !self.config.up {
            self.stats.cut += 1;
        } else if len > self.config.mtu {
            self.stats.lost += 1;
        } else if self.flying_bytes + self.waiting_bytes + len > IN_TRANSIT_LIMIT_BYTES {
            self.stats.overflow += 1;
        } else if self.sending.is_none() {
            self.send(now, packet, fate);
            self.advance(now);
        } else if self.waiting_bytes + len <= self.config.queue {
            self.waiting_bytes += len;
            self.waiting.push_back((packet, fate));
        } else {
            self.stats.overflow += 1;
        }
    }

    /// The next packet that has arrived at the far end by `now`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<P> {
        self.advance(now);
        if self.flying.peek()?.0.at > now {
            return None;
        }
        let Reverse(Flying { packet, .. }) = self.flying.pop()?;
        let len = packet.wire_len();
        self.flying_bytes -= len;
        self.stats.delivered_packets += 1;
        self.stats.delivered_bytes += len;
        Some(packet)
    }

    /// When [`poll_transmit`](Self::poll_transmit) has to be called next, or `None` while the link
    /// is empty.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sent = self.sending.as_ref().map(|sending| sending.done);
        let arrives = self.flying.peek().map(|Reverse(flying)| flying.at);
        sent.into_iter().chain(arrives).min()
    }

    /// Moves every packet that the transmitter has finished by `now` onto the wire.
    fn advance(&mut self, now: Instant) {
        while let Some(sending) = self.sending.take_if(|sending| sending.done <= now) {
            if let Some((packet, fate)) = self.waiting.pop_front() {
                self.waiting_bytes -= packet.wire_len();
                self.send(sending.done, packet, fate);
            }
            self.launch(sending);
        }
    }

    fn send(&mut self, start: Instant, packet: P, fate: Fate) {
        let done = start + self.time_to_send(packet.wire_len());
        self.sending = Some(Sending { done, packet, fate });
    }

    fn time_to_send(&self, bytes: u64) -> Duration {
        let Some(rate) = self.config.rate else {
            return Duration::ZERO;
        };
        // Rounded up: a link is never faster than its rate.
        let nanos = (u128::from(bytes) * 8 * 1_000_000_000).div_ceil(u128::from(rate.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A packet has left the transmitter: its fate takes it.
    fn launch(&mut self, sending: Sending<P>) {
        let Sending { done, mut packet, fate } = sending;
        if fate.lost {
            self.stats.lost += 1;
            return;
        }
        if let Some(bit) = fate.flipped_bit {
            self.stats.corrupted += u64::from(flip(packet.payload_mut(), bit));
        }
        let at = if let Some(hold) = fate.held_back {
            self.stats.reordered += 1;
            done + fate.delay + hold
        } else {
            let at = self
                .last_arrival
                .map_or(done + fate.delay, |last| last.max(done + fate.delay));
            self.last_arrival = Some(at);
            at
        };
        if fate.duplicated {
            self.stats.duplicated += 1;
            self.fly(at, packet.clone());
        }
        self.fly(at, packet);
    }

    fn fly(&mut self, at: Instant, packet: P) {
        self.flying_bytes += packet.wire_len();
        let number = self.launched;
        self.launched += 1;
        self.flying.push(Reverse(Flying { at, number, packet }));
    }

    fn in_transit(&self) -> u64 {
        (self.waiting.len() + usize::from(self.sending.is_some()) + self.flying.len()) as u64
    }
}

/// A packet on the wire. Ordered by its time of arrival, then by when it left.
#[derive(Debug)]
struct Flying<P> {
    at: Instant,
    number: u64,
    packet: P,
}

impl<P> Ord for Flying<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<P> PartialOrd for Flying<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Flying<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Flying<P> {}

/// Flips one bit, and says whether there was one to flip.
fn flip(bytes: &mut [u8], bit: u64) -> bool {
    let bits = bytes.len() as u64 * 8;
    let Some(bit) = bit.checked_rem(bits) else {
        return false;
    };
    let byte = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at));
    byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
}

#[cfg(test)]
mod tests;
