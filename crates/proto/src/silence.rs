//! Is a carrier that says nothing of any use? Judged by its counters, much sooner than it would find out by itself.
//!
//! [`Session`](crate::Session) gives a carrier up when a ping has stayed unanswered for long. Whoever has streams that wait
//! does not wait for that: it dials another connection beside the silent one, and takes whichever speaks first. So a verdict
//! of this machine costs a handshake if it is wrong, and no stream.

use std::time::{Duration, Instant};

/// For how long nothing has come, although something was asked, when the carrier may be of no use.
const DARK: Duration = Duration::from_secs(2);
/// And for how many round trips, where these are long.
const DARK_ROUND_TRIPS: u32 = 4;
/// For so long nothing has come when the peer is asked; in that time an answer comes back on most links.
const UNSURE: Duration = Duration::from_secs(1);
/// And for how many round trips.
const UNSURE_ROUND_TRIPS: u32 = 2;
/// More than a ping and what belongs to it take, in bytes. Who has received more than that since it last asked may be in the
/// middle of something.
const LITTLE: u64 = 600;
/// While somebody may be typing, the peer is asked after so long a silence.
const TYPING: Duration = Duration::from_secs(10);
/// So often in a row without anything on a stream; after five minutes nobody sits there any more.
const TYPING_ASKS: u32 = 30;
/// A silence that ended by itself within so many times what is waited for was the link's way, and no outage.
const STALL: u32 = 2;
/// For so long the link is thought to have that way still.
const STALLS_FOR: Duration = Duration::from_secs(60);

/// What a carrier and its session have counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Rises with what was sent that the peer has to answer, if only by acknowledging it.
    pub asked: u64,
    /// Bytes that have come.
    pub received: u64,
    /// Bytes that streams have moved, both ways.
    pub moved: u64,
    /// The carrier's estimate of the round trip.
    pub rtt: Duration,
    /// How many streams are open.
    pub streams: usize,
    /// How many of them somebody may be typing on.
    pub interactive: usize,
}

/// What the silence asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing.
    None,
    /// Send a ping.
    Ask,
    /// The carrier may be of no use. Said at each look until something comes.
    Dark,
}

/// What a carrier has heard, and since when it has been waiting for an answer. To be [looked](Self::look) at a few times
/// each second.
#[derive(Debug)]
pub struct Silence {
    before: Counted,
    /// Since when nothing has come.
    quiet_since: Instant,
    /// Since when an answer is due.
    waiting_since: Option<Instant>,
    /// When the peer was asked.
    asked_at: Option<Instant>,
    /// What had been received when it was last asked.
    checked: u64,
    /// How often it was asked while nothing moved.
    idle_asks: u32,
    /// The last silence that was taken for more than it was: when it ended, and how long it had been.
    stalled: Option<(Instant, Duration)>,
}

impl Silence {
    /// Of a carrier that has counted so much.
    pub fn new(counted: Counted, now: Instant) -> Self {
        Self {
            before: counted,
            quiet_since: now,
            waiting_since: None,
            asked_at: None,
            checked: counted.received,
            idle_asks: 0,
            stalled: None,
        }
    }

    /// Whether nothing has come since the last look.
    pub fn goes_on(&self, counted: &Counted) -> bool {
        self.before.received == counted.received
    }

    /// What there is to do, now that the carrier has counted so much.
    pub fn look(&mut self, counted: Counted, now: Instant) -> Suspicion {
        if counted.moved != self.before.moved {
            self.before.moved = counted.moved;
            self.idle_asks = 0;
        }
        if !self.goes_on(&counted) || counted.streams == 0 {
            self.heard(counted, now);
            return Suspicion::None;
        }
        if counted.asked != self.before.asked {
            self.waiting_since.get_or_insert(now);
        }
        let quiet = now.saturating_duration_since(self.quiet_since);
        let unsure = UNSURE.max(counted.rtt * UNSURE_ROUND_TRIPS);
        let Some(since) = self.waiting_since else {
            if quiet >= unsure && counted.received.saturating_sub(self.checked) > LITTLE {
                // What came has ended, or does not come through any more. The silence counts from its beginning.
                return self.ask(self.quiet_since, now);
            }
            if quiet >= TYPING.max(unsure) && counted.interactive > 0 && self.idle_asks < TYPING_ASKS {
                self.idle_asks += 1;
                return self.ask(now, now);
            }
            return Suspicion::None;
        };
        let waiting = now.saturating_duration_since(since);
        match self.asked_at {
            // Over TLS nothing answers what was sent but the target.
            None if waiting >= unsure => self.ask(since, now),
            // This process may have stood still: the peer has the time for an answer in any case.
            Some(at) if waiting >= self.dark(counted.rtt, now) && now.saturating_duration_since(at) >= unsure => {
                Suspicion::Dark
            }
            _ => Suspicion::None,
        }
    }

    fn ask(&mut self, waiting_since: Instant, now: Instant) -> Suspicion {
        self.waiting_since = Some(waiting_since);
        self.asked_at = Some(now);
        self.checked = self.before.received;
        Suspicion::Ask
    }

    /// How long to wait for an answer.
    fn dark(&self, rtt: Duration, now: Instant) -> Duration {
        let stall = self
            .stalled
            .filter(|(at, _)| now.saturating_duration_since(*at) < STALLS_FOR)
            .map_or(Duration::ZERO, |(_, length)| length * 3 / 2);
        usual(rtt).max(stall)
    }

    fn heard(&mut self, counted: Counted, now: Instant) {
        if let Some(since) = self.waiting_since {
            let length = now.saturating_duration_since(since);
            let usual = usual(counted.rtt);
            if length > usual && length <= usual * STALL {
                self.stalled = Some((now, length));
            }
        }
        if counted.received < self.checked {
            // Another carrier, which counts anew.
            self.checked = counted.received;
        }
        self.before = counted;
        self.quiet_since = now;
        (self.waiting_since, self.asked_at) = (None, None);
    }
}

/// How long to wait on a link that does not stall.
fn usual(rtt: Duration) -> Duration {
    DARK.max(rtt * DARK_ROUND_TRIPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the carrier is looked at.
    const LOOK: Duration = Duration::from_millis(250);
    const RTT: Duration = Duration::from_millis(40);

    #[test]
    fn a_carrier_that_does_not_answer_is_asked_and_dark_two_seconds_after_what_was_sent() {
        let mut link = Link::new(RTT);
        link.exchange_for(seconds(5.0));
        let dark = link.send_until_dark();
        assert!(dark.after >= DARK && dark.after <= DARK + 2 * LOOK, "{:?}", dark.after);
        assert_eq!(dark.asks, 1);
        // Until something comes.
        assert_eq!(link.step(), Suspicion::Dark);
        link.counted.received += 50;
        assert_eq!(link.step(), Suspicion::None);
    }

    #[test]
    fn who_only_receives_asks_after_a_second_and_is_as_soon_certain() {
        let mut link = Link::new(RTT);
        for _ in 0..20 {
            link.counted.received += 10_000;
            assert_eq!(link.step(), Suspicion::None);
        }
        let dark = link.until_dark(seconds(60.0)).unwrap();
        assert!(dark.after <= DARK + 2 * LOOK, "{:?}", dark.after);
        assert_eq!(dark.asks, 1);
    }

    #[test]
    fn an_answer_ends_the_doubt_and_what_came_is_checked_once() {
        let mut link = Link::new(RTT);
        link.counted.received += 10_000;
        link.step();
        assert_eq!(link.until(Suspicion::Ask, seconds(3.0)), Some(seconds(1.0)));
        link.counted.received += 60;
        // Nobody types, and nobody sends.
        assert_eq!(link.until(Suspicion::Ask, seconds(3600.0)), None);
    }

    /// Where nothing but the target would answer, as over TCP, each message costs one ping, and no connection.
    #[test]
    fn messages_that_nobody_answers_make_no_carrier_dark() {
        let mut link = Link::new(RTT);
        let mut asks = 0;
        for _ in 0..100 {
            link.counted.asked += 1;
            for _ in 0..40 {
                match link.step() {
                    Suspicion::None => {}
                    Suspicion::Ask => {
                        asks += 1;
                        link.counted.received += 60;
                    }
                    Suspicion::Dark => panic!("dark after {asks} pings that were answered"),
                }
            }
        }
        assert_eq!(asks, 100);
    }

    #[test]
    fn a_long_round_trip_has_its_time_whatever_is_lost() {
        // A packet is lost, found lost after two round trips (RFC 9002 section 6.2), and sent again.
        let rtt = Duration::from_millis(800);
        let mut link = Link::new(rtt);
        for _ in 0..50 {
            link.counted.asked += 1;
            assert!(link.until_dark(3 * rtt).is_none());
            link.counted.received += 60;
            link.step();
        }
        let dark = link.send_until_dark();
        assert!(
            dark.after >= 4 * rtt && dark.after <= 4 * rtt + 3 * LOOK,
            "{:?}",
            dark.after
        );
    }

    /// A queue of two seconds that somebody else fills: each answer is late, and the estimate of the round trip knows nothing.
    #[test]
    fn a_link_that_stalls_is_suspected_once_and_given_more_time_for_a_minute() {
        let mut link = Link::new(RTT);
        let mut alarms = 0;
        for _ in 0..10 {
            link.counted.asked += 1;
            if link.until_dark(seconds(2.75)).is_some() {
                alarms += 1;
                link.steps(seconds(0.5));
            }
            link.counted.received += 60;
            link.steps(seconds(2.0));
        }
        assert_eq!(alarms, 1);
        link.exchange_for(STALLS_FOR);
        assert!(link.send_until_dark().after <= DARK + 2 * LOOK);
    }

    /// An outage that ends says nothing of what comes next.
    #[test]
    fn a_block_is_found_as_soon_when_the_link_was_away_before() {
        let mut link = Link::new(RTT);
        link.exchange_for(seconds(5.0));
        link.send_until_dark();
        link.steps(seconds(20.0));
        link.exchange_for(seconds(1.0));
        assert!(link.send_until_dark().after <= DARK + 2 * LOOK);
    }

    #[test]
    fn where_somebody_may_be_typing_silence_is_found_in_a_quarter_of_a_minute() {
        let mut link = Link::new(RTT);
        link.counted.interactive = 1;
        let dark = link.until_dark(seconds(60.0)).unwrap();
        assert!(dark.after <= seconds(13.0), "{:?}", dark.after);
    }

    #[test]
    fn a_stream_that_is_left_open_costs_pings_for_five_minutes_until_somebody_types_again() {
        let mut link = Link::new(RTT);
        link.counted.interactive = 1;
        let hour = |link: &mut Link| {
            let mut asks = 0;
            while link.until(Suspicion::Ask, seconds(3600.0)).is_some() {
                asks += 1;
                link.counted.received += 60;
            }
            asks
        };
        assert_eq!(hour(&mut link), TYPING_ASKS);
        assert_eq!(hour(&mut link), 0);
        link.counted.moved += 1;
        assert_eq!(hour(&mut link), TYPING_ASKS);
    }

    #[test]
    fn a_carrier_without_streams_is_nobodys_concern() {
        let mut link = Link::new(RTT);
        (link.counted.streams, link.counted.interactive) = (0, 0);
        for _ in 0..100 {
            link.counted.asked += 1;
            assert_eq!(link.step(), Suspicion::None);
        }
    }

    #[test]
    fn a_process_that_stood_still_asks_before_it_judges() {
        let mut link = Link::new(RTT);
        link.counted.asked += 1;
        link.step();
        link.now += seconds(3600.0);
        assert_eq!(link.step(), Suspicion::Ask);
        assert_eq!(link.step(), Suspicion::None);
    }

    /// A carrier with one stream, and time.
    struct Link {
        silence: Silence,
        counted: Counted,
        now: Instant,
    }

    struct Found {
        after: Duration,
        asks: u32,
    }

    impl Link {
        fn new(rtt: Duration) -> Self {
            let counted = Counted {
                rtt,
                streams: 1,
                ..Counted::default()
            };
            let now = Instant::now();
            Self {
                silence: Silence::new(counted, now),
                counted,
                now,
            }
        }

        fn step(&mut self) -> Suspicion {
            self.now += LOOK;
            self.silence.look(self.counted, self.now)
        }

        fn steps(&mut self, time: Duration) {
            let until = self.now + time;
            while self.now < until {
                self.step();
            }
        }

        /// Each question has its answer.
        fn exchange_for(&mut self, time: Duration) {
            let until = self.now + time;
            while self.now < until {
                self.counted.asked += 1;
                self.counted.received += 500;
                self.counted.moved += 400;
                assert_eq!(self.step(), Suspicion::None);
            }
        }

        /// Nothing comes any more, and somebody sends.
        fn send_until_dark(&mut self) -> Found {
            self.counted.asked += 1;
            self.until_dark(seconds(60.0)).unwrap()
        }

        fn until_dark(&mut self, within: Duration) -> Option<Found> {
            let (begin, mut asks) = (self.now, 0);
            while self.now < begin + within {
                match self.step() {
                    Suspicion::None => {}
                    // The ping is something that was sent, too.
                    Suspicion::Ask => {
                        asks += 1;
                        self.counted.asked += 1;
                    }
                    Suspicion::Dark => {
                        let after = self.now - begin;
                        return Some(Found { after, asks });
                    }
                }
            }
            None
        }

        fn until(&mut self, wanted: Suspicion, within: Duration) -> Option<Duration> {
            let begin = self.now;
            while self.now < begin + within {
                if self.step() == wanted {
                    return Some(self.now - begin);
                }
            }
            None
        }
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }
}
