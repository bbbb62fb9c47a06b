//! A scheduler alone: who goes first, who waits, who starves nobody.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tunnel_model::Class;
use tunnel_proto::{Caps, Packets, Rate, ScheduleConfig, Scheduler, StreamId, Turn};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const PACKETS: Packets = Packets {
    data: 1400,
    headers: 100,
};

fn mbit(rate: u64) -> Rate {
    Rate::from_bits_per_second(rate * 1_000_000).unwrap()
}

/// Streams that always want more, and a clock that ticks as a runtime's does.
struct Line {
    scheduler: Scheduler,
    now: Instant,
    streams: Vec<(StreamId, Class)>,
    sent: HashMap<StreamId, usize>,
    order: Vec<StreamId>,
}

impl Line {
    fn new(rate: Option<Rate>, caps: Caps) -> Self {
        let now = Instant::now();
        let config = ScheduleConfig {
            caps,
            packets: PACKETS,
            ..ScheduleConfig::default()
        };
        let mut scheduler = Scheduler::new(config, now);
        scheduler.set_rate(rate, now);
        Self {
            scheduler,
            now,
            streams: Vec::new(),
            sent: HashMap::new(),
            order: Vec::new(),
        }
    }

    fn thin() -> Self {
        Self::new(Some(mbit(3)), Caps::default())
    }

    fn open(&mut self, class: Class) -> StreamId {
        let id = StreamId(self.streams.len() as u64 + 1);
        self.streams.push((id, class));
        self.ask(id, class);
        id
    }

    fn ask(&mut self, id: StreamId, class: Class) {
        while let Turn::Granted(bytes) = self.scheduler.request(id, class, 16 * 1024, self.now) {
            self.take(id, bytes);
        }
    }

    fn take(&mut self, id: StreamId, bytes: usize) {
        *self.sent.entry(id).or_default() += bytes;
        self.order.push(id);
        self.scheduler.sent(id, bytes);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS;
            if self.scheduler.poll_timeout().is_some_and(|due| due <= self.now) {
                self.scheduler.handle_timeout(self.now);
            }
            while let Some((id, bytes)) = self.scheduler.poll_ready() {
                self.take(id, bytes);
                let class = self.streams.iter().find(|(open, _)| *open == id).unwrap().1;
                self.ask(id, class);
            }
        }
    }

    /// What each stream sent within some time, as parts of all.
    fn shares(&mut self, time: Duration, ids: &[StreamId]) -> Vec<f64> {
        self.sent.clear();
        self.run(time);
        let all: usize = self.sent.values().sum();
        let share = |id| self.sent.get(id).copied().unwrap_or_default() as f64 / all as f64;
        ids.iter().map(share).collect()
    }
}

#[test]
fn this_is_who_goes_first() {
    // Who waits, each for one packet, in the order in which they came; and in which they go.
    let table = [
        ("bulk api", "api bulk"),
        ("bulk metrics api", "api metrics bulk"),
        ("api interactive", "interactive api"),
        ("bulk metrics api interactive", "interactive api metrics bulk"),
        ("api api", "api api"),
    ];
    for (came, goes) in table {
        let mut line = Line::thin();
        // The link is busy.
        assert!(matches!(
            line.scheduler.request(StreamId(99), Class::Bulk, 3000, line.now),
            Turn::Granted(_)
        ));
        line.scheduler.spend(100_000, line.now);
        let class = |name: &str| Class::ALL.into_iter().find(|class| class.as_str() == name).unwrap();
        let mut classes = HashMap::new();
        for (number, name) in (1..).zip(came.split(' ')) {
            classes.insert(StreamId(number), name);
            let turn = line.scheduler.request(StreamId(number), class(name), 1400, line.now);
            assert_eq!(turn, Turn::Queued, "{came}");
        }
        let mut went = Vec::new();
        while let Some(due) = line.scheduler.poll_timeout() {
            line.scheduler.handle_timeout(due);
            while let Some((id, bytes)) = line.scheduler.poll_ready() {
                line.scheduler.sent(id, bytes);
                went.push(classes[&id]);
            }
        }
        assert_eq!(went.join(" "), goes);
    }
}

#[test]
fn control_never_waits() {
    let mut line = Line::thin();
    line.open(Class::Bulk);
    for _ in 0..100 {
        let turn = line.scheduler.request(StreamId(1000), Class::Control, 500, line.now);
        assert_eq!(turn, Turn::Granted(500));
    }
}

#[test]
fn a_keystroke_waits_for_nothing_that_is_queued() {
    let mut line = Line::thin();
    for _ in 0..50 {
        line.open(Class::Api);
    }
    line.run(S);
    let turn = line.scheduler.request(StreamId(1000), Class::Interactive, 1, line.now);
    assert_eq!(turn, Turn::Granted(1));
}

#[test]
fn what_is_sent_keeps_to_the_links_rate_with_bursts_of_two_packets() {
    let mut line = Line::thin();
    line.open(Class::Api);
    assert!(line.sent.values().sum::<usize>() <= 2 * 1400);
    line.run(10 * S);
    let packets = line.sent.values().sum::<usize>() as f64 / 1400.0;
    let link = 10.0 * 3e6 / 8.0 / 1500.0;
    assert!((link..link + 2.0).contains(&packets), "{packets} of {link}");
}

#[test]
fn classes_share_by_weight_and_streams_evenly() {
    let mut line = Line::thin();
    let ids = [Class::Api, Class::Metrics, Class::Bulk, Class::Bulk].map(|class| line.open(class));
    // Not long enough for the first to count as a long talker.
    let shares = line.shares(S, &ids);
    for (share, expected) in shares.iter().zip([8.0 / 11.0, 2.0 / 11.0, 0.5 / 11.0, 0.5 / 11.0]) {
        assert!((share - expected).abs() < 0.03, "{shares:?}");
    }
}

#[test]
fn what_one_class_leaves_the_others_have() {
    let mut line = Line::thin();
    let ids = [Class::Metrics, Class::Bulk].map(|class| line.open(class));
    let shares = line.shares(S, &ids);
    assert!((shares[0] - 2.0 / 3.0).abs() < 0.03, "{shares:?}");
}

#[test]
fn a_long_talker_is_bulk_until_it_pauses() {
    let mut line = Line::thin();
    let talker = line.open(Class::Api);
    line.run(3 * S);
    let fresh = line.open(Class::Api);
    let shares = line.shares(S / 2, &[talker, fresh]);
    assert!(shares[1] > 0.8, "{shares:?}");
    // It pauses, and is as good as any again; the other one has talked long meanwhile.
    line.scheduler.remove(fresh);
    line.streams.retain(|(id, _)| *id != fresh);
    line.scheduler.remove(talker);
    line.ask(talker, Class::Api);
    let other = line.open(Class::Bulk);
    let shares = line.shares(S / 2, &[talker, other]);
    assert!(shares[0] > 0.8, "{shares:?}");
}

#[test]
fn interactive_streams_beyond_their_share_leave_the_rest_to_others() {
    let mut line = Line::thin();
    let floods: Vec<_> = (0..40).map(|_| line.open(Class::Interactive)).collect();
    let bulk = line.open(Class::Bulk);
    line.run(2 * S);
    let share = line.shares(2 * S, &[bulk])[0];
    assert!(share > 0.03, "{share}");
    let all: f64 = line.shares(S, &floods).iter().sum();
    assert!(all > 0.5, "{all}");
}

#[test]
fn caps_hold_with_and_without_a_thin_link() {
    for rate in [None, Some(mbit(3))] {
        let caps = Caps {
            bulk: Some(mbit(1)),
            ..Caps::default()
        };
        let mut line = Line::new(rate, caps);
        let bulk = line.open(Class::Bulk);
        line.run(10 * S);
        let bits = line.sent[&bulk] as f64 * 8.0 / 10.0;
        assert!((0.9e6..1.05e6).contains(&bits), "{bits}");
        let turn = line.scheduler.request(StreamId(1000), Class::Api, 1400, line.now);
        assert_eq!(turn, Turn::Granted(1400));
    }
}

#[test]
fn on_a_fast_link_nobody_waits_and_nothing_is_remembered() {
    for rate in [None, Some(mbit(1000))] {
        let mut line = Line::new(rate, Caps::default());
        let turn = line.scheduler.request(StreamId(1), Class::Bulk, 1 << 20, line.now);
        assert_eq!(turn, Turn::Granted(1 << 20));
        assert!(!line.scheduler.sorts(Class::Bulk));
        assert_eq!(line.scheduler.poll_timeout(), None);
    }
}

#[test]
fn who_waits_when_the_link_turns_out_fast_is_let_go() {
    let mut line = Line::thin();
    let id = line.open(Class::Bulk);
    line.scheduler.set_rate(None, line.now);
    assert_eq!(line.scheduler.poll_ready(), Some((id, 16 * 1024)));
}

#[test]
fn a_stream_that_waits_can_be_ranked_anew() {
    let mut line = Line::thin();
    line.open(Class::Api);
    let id = line.open(Class::Bulk);
    line.order.clear();
    line.scheduler.set_class(id, Class::Interactive, line.now);
    line.run(5 * MS);
    assert_eq!(line.order.first(), Some(&id));
}

#[test]
fn what_was_granted_and_not_sent_is_given_back() {
    let mut line = Line::thin();
    line.scheduler.spend(1500, line.now);
    line.now += 4 * MS;
    let id = StreamId(1);
    assert_eq!(
        line.scheduler.request(id, Class::Api, 1400, line.now),
        Turn::Granted(1400)
    );
    line.scheduler.sent(id, 0);
    assert_eq!(
        line.scheduler.request(id, Class::Api, 1400, line.now),
        Turn::Granted(1400)
    );
    line.scheduler.remove(id);
    let other = StreamId(2);
    assert_eq!(
        line.scheduler.request(other, Class::Api, 1400, line.now),
        Turn::Granted(1400)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whoever wants to send does so, whatever the others are and do, and the link's rate is kept to.
    #[test]
    fn nobody_starves(classes in prop::collection::vec(0_usize..4, 1..40), rate in 1_u64..50) {
        let mut line = Line::new(Some(mbit(rate)), Caps::default());
        let ids: Vec<_> = classes.iter().map(|class| line.open(Class::ALL[class + 1])).collect();
        // Bulk has an eleventh of it at least, which up to 40 streams divide.
        let link = mbit(rate).bytes_per_second() as f64 / 1500.0;
        let patience = Duration::from_secs_f64(40.0 * 11.0 * 2.0 / link).max(S);
        line.run(patience);
        for id in &ids {
            prop_assert!(line.sent.contains_key(id), "{id} of {classes:?} never sent");
        }
        let packets = line.sent.values().sum::<usize>() as f64 / 1400.0;
        let most = link * patience.as_secs_f64();
        prop_assert!((most * 0.98 - 5.0..=most + 12.0).contains(&packets), "{packets} of {most}");
    }

    /// Streams of one class that always have more share evenly, and whatever is called in whatever order, what waits is
    /// what asked and was neither granted nor removed.
    #[test]
    fn the_books_balance(steps in prop::collection::vec((0_u8..6, 1_u64..8, 0_usize..5, 1_usize..5000), 1..200)) {
        let mut line = Line::thin();
        let mut waiting = std::collections::BTreeSet::new();
        for (what, number, class, bytes) in steps {
            let (id, class) = (StreamId(number), Class::ALL[class]);
            match what {
                0 | 1 => match line.scheduler.request(id, class, bytes, line.now) {
                    Turn::Granted(granted) => {
                        prop_assert!(granted > 0 && granted <= bytes);
                        waiting.remove(&id);
                    }
                    Turn::Queued => drop(waiting.insert(id)),
                },
                2 => line.scheduler.sent(id, bytes),
                3 => {
                    line.scheduler.remove(id);
                    waiting.remove(&id);
                }
                4 => line.scheduler.set_class(id, class, line.now),
                _ => {
                    line.now += u32::try_from(bytes).unwrap() * MS / 100;
                    line.scheduler.handle_timeout(line.now);
                }
            }
            while let Some((id, granted)) = line.scheduler.poll_ready() {
                prop_assert!(granted > 0);
                prop_assert!(waiting.remove(&id), "{id} did not wait");
            }
            prop_assert_eq!(line.scheduler.waiting(), waiting.len());
            prop_assert_eq!(line.scheduler.poll_timeout().is_some(), !waiting.is_empty());
        }
    }
}
