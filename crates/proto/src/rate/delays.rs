//! How long packets take: there and back, and there alone where the peer tells when they arrive.

use std::time::{Duration, Instant};

use super::window::LeastLately;

/// How long the least is believed, at least.
const BELIEVED: Duration = Duration::from_secs(10);
/// A peer that has told nothing for so long tells nothing of now.
const TOLD_LATELY: Duration = Duration::from_secs(2);

/// What was seen lately, and in the round of now.
#[derive(Debug, Clone)]
pub(super) struct Delays {
    round_trip: LeastLately,
    newest: Duration,
    /// How long packets took to the peer, and answers back, by clocks that are apart ([`Transit`](crate::Transit)).
    there: LeastLately,
    back: LeastLately,
    told: Option<Told>,
    round: InRound,
}

/// What the peer told last.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    there: Duration,
    back: Duration,
}

/// The least of a round, and how long the way back was when it began.
#[derive(Debug, Clone, Copy, Default)]
struct InRound {
    round_trip: Option<Duration>,
    there: Option<Duration>,
    back: Option<Duration>,
}

/// What the delays of a round say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// That of the luckiest packet.
    pub(super) round_trip: Duration,
    /// How much longer than the least even the luckiest packet took. What stands in line on the way back is in it only as long
    /// as the peer does not tell when packets arrive.
    pub(super) stood: Duration,
    /// How long the way back was when the round began, and when it ended.
    back: Option<[Duration; 2]>,
}

impl Ways {
    /// How long packets arrived for of which acknowledgements came in for so long: these may have begun to stand in line
    /// meanwhile, or have ceased to.
    pub(super) fn arriving(&self, acknowledged: Duration) -> Duration {
        match self.back {
            Some([before, after]) => (acknowledged + before).saturating_sub(after),
            None => acknowledged,
        }
    }
}

impl Delays {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            round_trip: LeastLately::new(BELIEVED, now),
            newest: Duration::ZERO,
            there: LeastLately::new(BELIEVED, now),
            back: LeastLately::new(BELIEVED, now),
            told: None,
            round: InRound::default(),
        }
    }

    /// The newest packet of an acknowledgement was under way for so long.
    pub(super) fn handle_round_trip(&mut self, round_trip: Duration, now: Instant) {
        self.newest = round_trip;
        self.round_trip.see(round_trip, now);
        keep_least(&mut self.round.round_trip, round_trip);
    }

    /// A packet took so long to the peer, and what answered it so long back, each on top of a time that is the same for all.
    pub(super) fn handle_transit(&mut self, there: Duration, back: Duration, now: Instant) {
        if self.there.is_stale(now) {
            // There may be a queue already, in either direction.
            let queued = self.newest.saturating_sub(self.round_trip());
            self.there.see(there.saturating_sub(queued), now);
        }
        self.there.see(there, now);
        self.back.see(back, now);
        self.told = Some(Told { at: now, there, back });
        keep_least(&mut self.round.there, there);
    }

    /// The least round trip, of the last 10 to 20 s; nothing as long as there was none.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.get().unwrap_or_default()
    }

    /// The least of this round.
    pub(super) fn round_trip_of_now(&self) -> Option<Duration> {
        self.round.round_trip
    }

    /// The least round trip, and what stands in line on the way back: how long it would take if nothing of ours stood in line.
    pub(super) fn round_trip_without_us(&self) -> Duration {
        let back = self.told.map(|told| told.back).zip(self.back.get());
        let longer = back.map_or(Duration::ZERO, |(newest, least)| newest.saturating_sub(least));
        let least = self.round_trip();
        // Whatever the peer tells.
        (least + longer).min(self.newest.max(least))
    }

    /// A round begins; what the one before says, if anything came in.
    pub(super) fn end_round(&mut self, now: Instant) -> Option<Ways> {
        self.told = self
            .told
            .filter(|told| now.saturating_duration_since(told.at) < TOLD_LATELY);
        let back = self.told.map(|told| told.back);
        let next = InRound {
            back,
            ..InRound::default()
        };
        let round = std::mem::replace(&mut self.round, next);
        let round_trip = round.round_trip?;
        let longer = round_trip.saturating_sub(self.round_trip());
        let there = round.there.or(self.told.map(|told| told.there));
        let stood = match (there, self.there.get()) {
            (Some(there), Some(least)) => there.saturating_sub(least).min(longer),
            _ => longer,
        };
        Some(Ways {
            round_trip,
            stood,
            back: round.back.zip(back).map(|(before, after)| [before, after]),
        })
    }
}

fn keep_least(least: &mut Option<Duration>, value: Duration) {
    *least = Some(least.map_or(value, |least| least.min(value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);
    /// What clocks are apart.
    const APART: Duration = Duration::from_secs(4000);

    /// Delays on a way of 30 ms each way that has seen a packet without a queue.
    fn seen(start: Instant) -> Delays {
        let mut delays = Delays::new(start);
        delays.handle_round_trip(60 * MS, start);
        delays.handle_transit(APART + 30 * MS, 30 * MS, start);
        delays.end_round(start);
        delays
    }

    #[test]
    fn what_stands_in_line_on_the_way_back_is_not_ours() {
        let start = Instant::now();
        let mut delays = seen(start);
        delays.handle_round_trip(110 * MS, start + S);
        delays.handle_transit(APART + 35 * MS, 75 * MS, start + S);
        let ways = delays.end_round(start + S).unwrap();
        assert_eq!(ways.stood, 5 * MS);
        assert_eq!(ways.round_trip, 110 * MS);
    }

    #[test]
    fn a_window_has_room_for_what_stands_in_line_on_the_way_back() {
        let start = Instant::now();
        let mut delays = seen(start);
        delays.handle_round_trip(110 * MS, start + S);
        delays.handle_transit(APART + 35 * MS, 75 * MS, start + S);
        assert_eq!(delays.round_trip_without_us(), 105 * MS);
    }

    #[test]
    fn a_peer_that_does_not_tell_leaves_the_round_trip() {
        let start = Instant::now();
        let mut delays = Delays::new(start);
        delays.handle_round_trip(60 * MS, start);
        delays.end_round(start);
        delays.handle_round_trip(110 * MS, start + S);
        assert_eq!(delays.end_round(start + S).unwrap().stood, 50 * MS);
    }

    #[test]
    fn what_was_told_long_ago_says_nothing_of_now() {
        let start = Instant::now();
        let mut delays = seen(start);
        delays.handle_round_trip(110 * MS, start + S);
        assert_eq!(delays.end_round(start + S).unwrap().stood, Duration::ZERO);
        delays.handle_round_trip(110 * MS, start + TOLD_LATELY);
        assert_eq!(delays.end_round(start + TOLD_LATELY).unwrap().stood, 50 * MS);
    }

    #[test]
    fn acknowledgements_that_come_later_and_later_make_no_link_slower() {
        let start = Instant::now();
        let mut delays = seen(start);
        delays.handle_round_trip(80 * MS, start + S);
        delays.handle_transit(APART + 30 * MS, 50 * MS, start + S);
        let ways = delays.end_round(start + S).unwrap();
        assert_eq!(ways.arriving(120 * MS), 100 * MS);
        // It has ended, and they are 20 ms late still.
        delays.handle_round_trip(80 * MS, start + S);
        assert_eq!(delays.end_round(start + S).unwrap().arriving(100 * MS), 100 * MS);
    }

    /// The first transit time may have a queue in it, in a direction that nobody knows.
    #[test]
    fn the_first_transit_time_is_not_taken_for_one_without_a_queue() {
        let start = Instant::now();
        let mut delays = Delays::new(start);
        delays.handle_round_trip(60 * MS, start);
        delays.handle_round_trip(110 * MS, start + S);
        delays.end_round(start);
        delays.handle_round_trip(110 * MS, start + S);
        delays.handle_transit(APART + 70 * MS, 40 * MS, start + S);
        assert_eq!(delays.end_round(start + S).unwrap().stood, 50 * MS);
    }

    #[test]
    fn a_transit_time_that_cannot_be_is_no_queue_beyond_the_round_trip() {
        let start = Instant::now();
        let mut delays = seen(start);
        delays.handle_round_trip(62 * MS, start + S);
        delays.handle_transit(APART * 2, 30 * MS, start + S);
        assert_eq!(delays.end_round(start + S).unwrap().stood, 2 * MS);
    }
}
