use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;
use crate::config::{Loss, Probability};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_packet_arrives_after_its_time_to_send_and_the_delay() {
    let start = Instant::now();
    let mut link = Link::new(thin(), 1);
    link.handle_packet(start, vec![0; 1_000]);
    assert_eq!(link.poll_timeout(), Some(start + 8 * MS));
    assert_eq!(link.poll_transmit(start + 8 * MS), None);
    assert_eq!(link.poll_timeout(), Some(start + 38 * MS));
    assert_eq!(link.poll_transmit(start + 37 * MS), None);
    assert_eq!(link.poll_transmit(start + 38 * MS), Some(vec![0; 1_000]));
    assert_eq!(link.poll_timeout(), None);
}

#[test]
fn a_full_queue_drops_at_its_tail() {
    let start = Instant::now();
    let mut link = Link::new(thin(), 1);
    for number in 0..6 {
        link.handle_packet(start, vec![number; 1_000]);
    }
    // One is being sent and three fill the queue.
    assert_eq!(link.stats().overflow, 2);
    assert_eq!(link.stats().queued_bytes, 3_000);
    let arrived: Vec<u8> = drain(&mut link).iter().map(|(_, packet)| packet[0]).collect();
    assert_eq!(arrived, [0, 1, 2, 3]);
}

#[test]
fn packets_larger_than_the_link_carries_vanish() {
    let start = Instant::now();
    let mut link = Link::new(LinkConfig { mtu: 1_000, ..thin() }, 1);
    link.handle_packet(start, vec![0; 1_001]);
    link.handle_packet(start, vec![1; 1_000]);
    assert_eq!(link.stats().lost, 1);
    assert_eq!(drain(&mut link), [(start + 38 * MS, vec![1; 1_000])]);
}

#[test]
fn a_cut_takes_what_is_on_the_link_and_all_that_follows() {
    let start = Instant::now();
    let mut link = Link::new(thin(), 1);
    link.handle_packet(start, vec![0; 1_000]);
    link.handle_packet(start, vec![1; 1_000]);
    link.set(LinkConfig { up: false, ..thin() });
    link.handle_packet(start, vec![2; 1_000]);
    assert_eq!(link.poll_timeout(), None);
    assert_eq!(link.stats().cut, 3);
    link.set(thin());
    link.handle_packet(start + MS, vec![3; 1_000]);
    assert_eq!(drain(&mut link), [(start + 39 * MS, vec![3; 1_000])]);
}

#[test]
fn what_waits_is_sent_at_a_new_rate() {
    let start = Instant::now();
    let mut link = Link::new(thin(), 1);
    link.handle_packet(start, vec![0; 1_000]);
    link.handle_packet(start, vec![1; 1_000]);
    link.set(LinkConfig {
        rate: NonZeroU64::new(8_000_000),
        ..thin()
    });
    let arrivals: Vec<Instant> = drain(&mut link).into_iter().map(|(at, _)| at).collect();
    assert_eq!(arrivals, [start + 38 * MS, start + 39 * MS]);
}

#[test]
fn a_link_without_a_rate_holds_no_more_than_its_limit() {
    let start = Instant::now();
    let mut link = Link::new(
        LinkConfig {
            delay: Duration::from_secs(3_600),
            ..LinkConfig::default()
        },
        1,
    );
    let packet = vec![0; 1 << 20];
    for _ in 0..70 {
        link.handle_packet(start, packet.clone());
    }
    assert_eq!(link.stats().in_transit, 64);
    assert_eq!(link.stats().overflow, 6);
}

#[test]
fn held_back_packets_are_overtaken_and_counted() {
    let start = Instant::now();
    let config = LinkConfig {
        reorder: Probability::new(0.2).unwrap(),
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 1);
    for number in 0..1_000u32 {
        link.handle_packet(start + number * MS, number.to_be_bytes().to_vec());
    }
    let numbers: Vec<u32> = drain(&mut link).iter().map(|(_, packet)| number_of(packet)).collect();
    assert!(!numbers.is_sorted());
    assert!((150..250).contains(&link.stats().reordered), "{:?}", link.stats());
}

#[test]
fn corruption_flips_one_bit() {
    let start = Instant::now();
    let config = LinkConfig {
        corrupt: Probability::ALWAYS,
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 1);
    link.handle_packet(start, vec![0; 100]);
    link.handle_packet(start, Vec::new());
    let arrived = drain(&mut link);
    let flipped: u32 = arrived[0].1.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(flipped, 1);
    assert_eq!(link.stats().corrupted, 1, "an empty packet has no bit to flip");
}

proptest! {
    /// Over any stretch of time no more than the rate arrives: each packet's end comes at least its
    /// own time to send after the end of the one before.
    #[test]
    fn the_rate_is_never_exceeded(config in steady(), input in input(), seed: u64) {
        let mut link = Link::new(config, seed);
        offer(&mut link, &input);
        let arrivals = drain(&mut link);
        for pair in arrivals.windows(2) {
            let gap = pair[1].0 - pair[0].0;
            prop_assert!(gap >= link.time_to_send(pair[1].1.wire_len()), "{gap:?}");
        }
    }

    #[test]
    fn order_is_kept_unless_reordering_is_asked_for(
        config in any_config(), input in input(), seed: u64,
    ) {
        let config = LinkConfig { reorder: Probability::NEVER, ..config };
        let mut link = Link::new(LinkConfig { corrupt: Probability::NEVER, ..config }, seed);
        offer(&mut link, &input);
        let numbers: Vec<u32> = drain(&mut link).iter().map(|(_, packet)| number_of(packet)).collect();
        prop_assert!(numbers.is_sorted(), "{numbers:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fate(config in any_config(), input in input(), seed: u64) {
        let start = Instant::now();
        let run = || {
            let mut link = Link::new(config, seed);
            offer_from(start, &mut link, &input);
            (drain(&mut link), link.stats())
        };
        prop_assert_eq!(run(), run());
    }

    /// Every packet is somewhere, at any moment and through any change of settings.
    #[test]
    fn no_packet_is_unaccounted_for(
        configs in proptest::collection::vec(any_config(), 1..5), input in input(), seed: u64,
    ) {
        let mut now = Instant::now();
        let mut link = Link::new(configs[0], seed);
        for config in configs {
            link.set(config);
            now = offer_from(now, &mut link, &input);
            while link.poll_transmit(now).is_some() {}
            prop_assert!(balances(link.stats()), "{:?}", link.stats());
        }
        drain(&mut link);
        prop_assert!(balances(link.stats()), "{:?}", link.stats());
        prop_assert_eq!(link.stats().in_transit, 0);
        prop_assert_eq!(link.flying_bytes + link.waiting_bytes, 0);
    }
}

/// 1 Mbit/s, 30 ms, and a queue of three full packets.
fn thin() -> LinkConfig {
    LinkConfig {
        delay: 30 * MS,
        rate: NonZeroU64::new(1_000_000),
        queue: 3_000,
        ..LinkConfig::default()
    }
}

/// Packets as (milliseconds after the one before, length).
fn input() -> impl Strategy<Value = Vec<(u32, usize)>> {
    proptest::collection::vec((0..20u32, 4..1_500usize), 1..60)
}

fn probability() -> impl Strategy<Value = Probability> {
    prop_oneof![
        Just(Probability::NEVER),
        (0.0..=1.0f64).prop_map(|value| Probability::new(value).unwrap()),
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        probability().prop_map(Loss::Random),
        (probability(), probability(), probability()).prop_map(|(worsen, recover, loss_when_bad)| Loss::Burst {
            worsen,
            recover,
            loss_when_bad
        }),
    ]
}

/// A link with a rate whose accidents only ever take packets away.
fn steady() -> impl Strategy<Value = LinkConfig> {
    (10_000..10_000_000u64, 0..100u32, 0..20_000u64, loss()).prop_map(|(rate, delay, queue, loss)| LinkConfig {
        delay: delay * MS,
        loss,
        rate: NonZeroU64::new(rate),
        queue,
        ..LinkConfig::default()
    })
}

fn any_config() -> impl Strategy<Value = LinkConfig> {
    let accidents = (probability(), probability(), probability());
    (steady(), any::<bool>(), 0..50u32, accidents, prop::bool::weighted(0.8)).prop_map(
        |(steady, limited, jitter, (duplicate, reorder, corrupt), up)| LinkConfig {
            jitter: jitter * MS,
            rate: steady.rate.filter(|_| limited),
            duplicate,
            reorder,
            corrupt,
            up,
            ..steady
        },
    )
}

fn offer(link: &mut Link<Vec<u8>>, input: &[(u32, usize)]) {
    offer_from(Instant::now(), link, input);
}

/// Gives numbered packets to the link, and returns when the last one entered.
fn offer_from(mut now: Instant, link: &mut Link<Vec<u8>>, input: &[(u32, usize)]) -> Instant {
    for (number, (gap, len)) in (0u32..).zip(input) {
        now += *gap * MS;
        let mut packet = vec![0; *len];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        link.handle_packet(now, packet);
    }
    now
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[..4].try_into().unwrap())
}

/// Jumps from wakeup to wakeup until the link is empty.
fn drain(link: &mut Link<Vec<u8>>) -> Vec<(Instant, Vec<u8>)> {
    let mut arrived = Vec::new();
    while let Some(now) = link.poll_timeout() {
        while let Some(packet) = link.poll_transmit(now) {
            arrived.push((now, packet));
        }
    }
    arrived
}

fn balances(stats: LinkStats) -> bool {
    stats.offered_packets + stats.duplicated
        == stats.delivered_packets + stats.lost + stats.overflow + stats.cut + stats.in_transit
}
