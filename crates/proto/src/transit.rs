//! How long packets take one way, beyond the least that they took.
//!
//! A round trip holds the queues of both directions, and whoever measures it cannot tell them apart. So an end that sends much
//! stamps a datagram now and then with the time on its clock, and the peer answers with the time of arrival on its own. The
//! difference of the two is the way there and what the clocks are apart: its relative transit time (RFC 3550 section 6.4.1), of
//! which differences say how queues grow and shrink (RFC 6817 section 2). No clock needs to be set for that.
//!
//! These are datagrams of flow 0, which is none, so that a peer which does not know them drops them:
//!
//! ```text
//! 00 01 stamp(4)               when it was sent
//! 00 02 stamp(4) arrival(4)    the stamp, and when it came
//! ```
//!
//! Times are microseconds modulo 2^32, in network order, since a moment that the end chose.

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{StreamId, encode_datagram};

/// The flow that these datagrams seem to belong to: no stream has this number.
pub const TRANSIT: StreamId = StreamId(0);

const STAMP: u8 = 1;
const ANSWER: u8 = 2;
/// One is stamped for each so many bytes that are written: a few small packets stand in no line, and would be doubled.
const WATCHED: usize = 4 * 1024;
/// What was written before a pause like this is on no link any more.
const PAUSE: Duration = Duration::from_secs(1);
/// How often one is stamped, at most.
const EVERY: Duration = Duration::from_millis(40);
/// How often the peer is answered, at most.
const ANSWER_EVERY: Duration = Duration::from_millis(5);
/// An answer that took longer tells nothing of now.
const LONGEST: Duration = Duration::from_secs(10);
/// Transit times are counted from so far below the first, because later ones may be shorter.
const BELOW: i64 = 1 << 32;

/// Stamps datagrams, answers the peer's, and reads what it answers.
#[derive(Debug)]
pub struct Transit {
    epoch: Instant,
    stamped: Option<Instant>,
    /// Bytes that were written since then, without a pause.
    written: usize,
    /// When somebody wrote last.
    wrote: Option<Instant>,
    /// Bytes that had gone out when one was last stamped for them.
    sent: u64,
    answered: Option<Instant>,
    /// What the clocks were apart by the first answer.
    apart: Option<u32>,
}

/// What a datagram was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    /// The peer asks, and is to get this datagram.
    Answer(Bytes),
    /// So long a packet of ours took, and what answered it, each on top of a time that is the same for all.
    Took {
        /// To the peer.
        there: Duration,
        /// Back from it.
        back: Duration,
    },
}

impl Transit {
    /// The clock counts from `epoch`.
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            stamped: None,
            written: 0,
            wrote: None,
            sent: 0,
            answered: None,
            apart: None,
        }
    }

    /// A datagram to be sent right now, if it is time for one: at the beginning, while nothing stands in line.
    pub fn stamp(&mut self, now: Instant) -> Option<Bytes> {
        is_due(&mut self.stamped, EVERY, now).then(|| datagram(STAMP, &[self.clock(now)]))
    }

    /// So many bytes were given to the carrier, and packets may begin to stand in line: now and then a datagram to be sent
    /// right now. It has to go ahead of what waits there.
    pub fn wrote(&mut self, bytes: usize, now: Instant) -> Option<Bytes> {
        if self.wrote.is_some_and(|at| now.saturating_duration_since(at) >= PAUSE) {
            self.written = 0;
        }
        self.wrote = Some(now);
        self.written = self.written.saturating_add(bytes);
        let stamp = (self.written >= WATCHED).then(|| self.stamp(now))??;
        self.written = 0;
        Some(stamp)
    }

    /// So many bytes have gone out in all. To be asked when an answer came: a carrier that holds much may go on sending while
    /// nobody writes.
    pub fn sent(&mut self, total: u64, now: Instant) -> Option<Bytes> {
        if total.saturating_sub(self.sent) < WATCHED as u64 {
            return None;
        }
        let stamp = self.stamp(now)?;
        self.sent = total;
        Some(stamp)
    }

    /// Takes the packet of a datagram of flow [`TRANSIT`]. One that is none of these says nothing; nor does an answer to what
    /// was not asked of late.
    pub fn handle(&mut self, mut packet: &[u8], now: Instant) -> Option<Timing> {
        let clock = self.clock(now);
        match (packet.try_get_u8().ok()?, packet.len()) {
            (STAMP, 4) => is_due(&mut self.answered, ANSWER_EVERY, now)
                .then(|| Timing::Answer(datagram(ANSWER, &[packet.get_u32(), clock]))),
            (ANSWER, 8) => {
                let (stamp, arrival) = (packet.get_u32(), packet.get_u32());
                let round_trip = Duration::from_micros(clock.wrapping_sub(stamp).into());
                if self.stamped.is_none() || round_trip > LONGEST {
                    return None;
                }
                let there = arrival.wrapping_sub(stamp);
                let apart = *self.apart.get_or_insert(there);
                let there = u64::try_from(BELOW + i64::from(there.wrapping_sub(apart).cast_signed())).ok()?;
                let back = clock.wrapping_sub(arrival).wrapping_add(apart);
                let back = u64::try_from(BELOW + i64::from(back.cast_signed())).ok()?;
                Some(Timing::Took {
                    there: Duration::from_micros(there),
                    back: Duration::from_micros(back),
                })
            }
            _ => None,
        }
    }

    fn clock(&self, now: Instant) -> u32 {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        // The rest is what the clock leaves out.
        #[allow(clippy::cast_possible_truncation)]
        let clock = micros as u32;
        clock
    }
}

/// Whether it was done long enough ago; if so, it is done now.
fn is_due(done: &mut Option<Instant>, every: Duration, now: Instant) -> bool {
    let due = done.is_none_or(|at| now.saturating_duration_since(at) >= every);
    if due {
        *done = Some(now);
    }
    due
}

fn datagram(kind: u8, times: &[u32]) -> Bytes {
    let mut packet = BytesMut::with_capacity(9);
    packet.put_u8(kind);
    times.iter().for_each(|time| packet.put_u32(*time));
    encode_datagram(TRANSIT, &packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode_datagram;

    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn packet(datagram: Bytes) -> Bytes {
        let (flow, packet) = decode_datagram(datagram).unwrap();
        assert_eq!(flow, TRANSIT);
        packet
    }

    /// One end, and a peer whose clock began at another time.
    struct Ends {
        ours: Transit,
        theirs: Transit,
    }

    impl Ends {
        fn apart(epoch: Instant, by: Duration) -> Self {
            Self {
                ours: Transit::new(epoch + by),
                theirs: Transit::new(epoch),
            }
        }

        /// What comes of a datagram that is stamped now.
        fn exchange(&mut self, now: Instant, there: Duration, back: Duration) -> Option<Timing> {
            let stamp = packet(self.ours.stamp(now)?);
            let Some(Timing::Answer(answer)) = self.theirs.handle(&stamp, now + there) else {
                return None;
            };
            self.ours.handle(&packet(answer), now + there + back)
        }

        fn took(&mut self, now: Instant, there: Duration, back: Duration) -> (Duration, Duration) {
            match self.exchange(now, there, back) {
                Some(Timing::Took { there, back }) => (there, back),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn each_way_is_told_from_the_other_by_clocks_that_nobody_has_set() {
        let start = Instant::now();
        let mut ends = Ends::apart(start, 17 * HOUR);
        let now = start + 17 * HOUR;
        let (there, back) = ends.took(now, 30 * MS, 30 * MS);
        assert_eq!(ends.took(now + EVERY, 45 * MS, 30 * MS), (there + 15 * MS, back));
        assert_eq!(ends.took(now + EVERY * 2, 30 * MS, 70 * MS), (there, back + 40 * MS));
        assert_eq!(
            ends.took(now + EVERY * 4, 10 * MS, 25 * MS),
            (there - 20 * MS, back - 5 * MS)
        );
    }

    /// Microseconds in 32 bits begin anew after 71 minutes.
    #[test]
    fn clocks_that_begin_anew_make_no_difference() {
        let start = Instant::now();
        let mut ends = Ends::apart(start, 11 * MS);
        let anew = start + Duration::from_micros(u64::from(u32::MAX));
        let first = ends.took(anew - 100 * MS, 30 * MS, 30 * MS);
        for after in 1..12 {
            assert_eq!(ends.took(anew - 100 * MS + EVERY * after, 30 * MS, 30 * MS), first);
        }
    }

    #[test]
    fn one_is_stamped_for_each_few_packets_and_no_sooner_than_40_ms_after_another() {
        let start = Instant::now();
        let mut transit = Transit::new(start);
        assert_eq!(transit.wrote(1000, start), None);
        assert_eq!(transit.wrote(3000, start), None);
        assert!(transit.wrote(96, start).is_some());
        assert_eq!(transit.wrote(1 << 20, start + EVERY - MS), None);
        assert!(transit.wrote(1, start + EVERY).is_some());
        for second in 1..100 {
            assert_eq!(transit.wrote(WATCHED - 1, start + EVERY + PAUSE * second), None);
        }
    }

    #[test]
    fn who_asks_without_end_is_answered_now_and_then() {
        let start = Instant::now();
        let mut ends = Ends::apart(start, MS);
        let stamp = packet(ends.ours.stamp(start).unwrap());
        let answers = (0..100).filter(|ms| ends.theirs.handle(&stamp, start + MS * *ms).is_some());
        assert_eq!(answers.count(), 20);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_says_nothing() {
        let start = Instant::now();
        let mut ends = Ends::apart(start, MS);
        let stamp = packet(ends.ours.stamp(start).unwrap());
        let Some(Timing::Answer(answer)) = ends.theirs.handle(&stamp, start) else {
            panic!("no answer");
        };
        let answer = packet(answer);
        assert_eq!(Transit::new(start).handle(&answer, start + MS), None);
        assert_eq!(
            ends.ours.handle(&answer, start + LONGEST + MS * 2),
            None,
            "it is of long ago"
        );
        assert!(ends.ours.handle(&answer, start + LONGEST).is_some());
    }

    proptest! {
        /// B2
        #[test]
        fn whatever_a_peer_sends_is_taken_or_left(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..20)) {
            let start = Instant::now();
            let mut transit = Transit::new(start);
            transit.stamp(start);
            for packet in packets {
                if let Some(Timing::Took { there, back }) = transit.handle(&packet, start + MS) {
                    prop_assert_eq!(packet.len(), 9);
                    prop_assert!(there < HOUR * 2 && back < HOUR * 2);
                }
            }
        }
    }
}
