//! What single acknowledgements prove.
//!
//! Packets that were sent one after the other and are acknowledged together have crossed the link between the first one's
//! sending and the acknowledgement. A machine that is busy makes this longer and never shorter, so that the link carries as
//! much as the best of them says, or more. What has to be taken off is the way without any queue.

use std::time::{Duration, Instant};

use super::{Rate, window::MostLately};

/// Fewer packets prove nothing.
const TRAIN: u64 = 8;
/// So many waited for no other packet of ours.
const ALONE: u64 = 2;
/// What the way may be off by: a part of it, within these.
const JITTER_PART: u32 = 16;
const JITTER: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(5)];
/// How long a proof counts, at least.
const PROVEN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct Trains {
    /// When the first packet of this acknowledgement was sent.
    first: Option<Instant>,
    bytes: u64,
    /// The least round trip of all. A queue of our own may be in it until a packet has travelled alone, so that until then it
    /// is not known.
    fastest: Option<Duration>,
    proven: MostLately,
}

impl Trains {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            first: None,
            bytes: 0,
            fastest: None,
            proven: MostLately::new(PROVEN, now),
        }
    }

    /// A packet is acknowledged.
    pub(super) fn see(&mut self, sent: Instant, bytes: u64) {
        self.bytes += bytes;
        self.first = Some(self.first.map_or(sent, |first| first.min(sent)));
    }

    /// The acknowledgement is at its end; what it proves.
    pub(super) fn end(&mut self, round_trip: Duration, packet: u64, now: Instant) -> Option<Rate> {
        let took = now.saturating_duration_since(self.first.take()?);
        let bytes = std::mem::take(&mut self.bytes);
        self.fastest = match self.fastest {
            Some(fastest) => Some(fastest.min(round_trip)),
            // Those of the handshake are acknowledged at once, too.
            None => Some(took).filter(|_| bytes <= ALONE * packet),
        };
        let fastest = self.fastest.filter(|_| bytes >= TRAIN * packet)?;
        let jitter = (fastest / JITTER_PART).clamp(JITTER[0], JITTER[1]);
        let rate = Rate::of(bytes, took.saturating_sub(fastest) + jitter)?;
        self.proven.see(rate, now);
        Some(rate)
    }

    /// Whether there may be proofs.
    pub(super) fn can_prove(&self) -> bool {
        self.fastest.is_some()
    }

    /// What has been proven lately.
    pub(super) fn proven(&self, now: Instant) -> Option<Rate> {
        self.proven.get(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: u64 = 1500;

    /// Packets that are sent at once and acknowledged together.
    fn train(trains: &mut Trains, packets: u64, sent: Instant, took: Duration) -> Option<u64> {
        for _ in 0..packets {
            trains.see(sent, PACKET);
        }
        trains.end(took, PACKET, sent + took).map(Rate::bits_per_second)
    }

    #[test]
    fn a_train_proves_what_it_took_beyond_the_way() {
        let start = Instant::now();
        let mut trains = Trains::new(start);
        assert_eq!(train(&mut trains, 1, start, 16 * MS), None);
        // 15 kB in 3 ms and the 1 ms that the way may be off by.
        assert_eq!(train(&mut trains, 10, start, 19 * MS), Some(30_000_000));
        assert_eq!(trains.proven(start).unwrap().bits_per_second(), 30_000_000);
        assert_eq!(trains.proven(start + PROVEN * 2), None);
    }

    #[test]
    fn a_few_packets_prove_nothing() {
        let start = Instant::now();
        let mut trains = Trains::new(start);
        train(&mut trains, 1, start, 16 * MS);
        assert_eq!(train(&mut trains, 7, start, 16 * MS), None);
    }

    #[test]
    fn nothing_is_proven_before_a_packet_has_travelled_alone() {
        let start = Instant::now();
        let mut trains = Trains::new(start);
        assert_eq!(train(&mut trains, 10, start, 40 * MS), None);
        assert!(!trains.can_prove());
        train(&mut trains, 2, start, 20 * MS);
        assert!(trains.can_prove());
    }
}
