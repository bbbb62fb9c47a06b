//! What somebody who types notices of transfers beside it.

use std::time::Duration;

use tunnel_model::Class;

use crate::world::{Kind, MS, World, percentile};

const S: Duration = Duration::from_secs(1);
const ROUND_TRIP: Duration = Duration::from_millis(60);

/// A byte is echoed each 100 ms while a transfer each way always has more: the echoes of so long, and the shares of the link.
fn typed_beside_bulk_both_ways(mut world: World, time: Duration) -> (Vec<Duration>, Vec<f64>) {
    world.greet();
    let typing = world.open(0, Class::Interactive, Kind::Typing);
    let up = world.open(0, Class::Api, Kind::Bulk);
    let down = world.open(1, Class::Api, Kind::Bulk);
    world.run(15 * S);
    world.echoes.clear();
    let goodput = world.goodput(time, &[(1, up), (0, down)]);
    (world.echoes.remove(&typing).unwrap(), goodput)
}

fn typing_beside_bulk_both_ways(world: World) {
    let (echoes, goodput) = typed_beside_bulk_both_ways(world, 40 * S);
    let shown = [50, 90, 99, 100].map(|p| percentile(&echoes, p));
    assert!(echoes.len() >= 390, "{} echoes", echoes.len());
    assert!(shown[2] <= ROUND_TRIP + 20 * MS, "{shown:?}, {goodput:?}");
    assert!(goodput.iter().all(|share| *share >= 0.9), "{goodput:?}, {shown:?}");
}

#[test]
fn keystrokes_beside_transfers_both_ways_wait_20_ms_at_most_where_the_rate_is_given() {
    typing_beside_bulk_both_ways(World::given("3mbit,60ms,64kb"));
}

#[test]
fn keystrokes_beside_transfers_both_ways_wait_20_ms_at_most_where_the_rate_is_measured() {
    typing_beside_bulk_both_ways(World::new("3mbit,60ms,64kb"));
}

/// N4: a satellite's round trip, a transfer each way, and somebody at an ssh.
#[test]
fn n4_keystrokes_beside_transfers_come_back_within_1200_ms_across_800_ms() {
    let (echoes, goodput) = typed_beside_bulk_both_ways(World::given("3mbit,800ms,64kb"), 30 * S);
    let p95 = percentile(&echoes, 95);
    assert!(p95 <= 1200 * MS, "{p95:?}, {goodput:?}");
}

#[test]
fn many_transfers_do_no_more_harm_than_one() {
    let mut world = World::new("3mbit,60ms,64kb");
    world.greet();
    let typing = world.open(0, Class::Interactive, Kind::Typing);
    let transfers: Vec<_> = (0..50).map(|_| (1, world.open(0, Class::Api, Kind::Bulk))).collect();
    world.run(15 * S);
    world.echoes.clear();
    let goodput = world.goodput(25 * S, &transfers);
    let all: f64 = goodput.iter().sum();
    let even = all / transfers.len() as f64;
    assert!(all >= 0.9, "{all}");
    assert!(
        goodput.iter().all(|share| (share / even - 1.0).abs() < 0.1),
        "{goodput:?}"
    );
    let p99 = percentile(&world.echoes[&typing], 99);
    assert!(p99 <= ROUND_TRIP + 20 * MS, "{p99:?}");
}

/// No two transfers begin at once, and no machine's timers are exact.
#[test]
fn keystrokes_do_not_wait_longer_if_transfers_begin_at_different_times() {
    for (link, offset) in [
        ("3mbit,60ms,64kb", 300),
        ("3mbit,60ms,64kb", 4000),
        ("10mbit,60ms,64kb", 700),
    ] {
        let mut world = World::seeded(link, 1);
        world.greet();
        let typing = world.open(0, Class::Interactive, Kind::Typing);
        world.run(S);
        let up = world.open(0, Class::Api, Kind::Bulk);
        world.run(offset * MS);
        let down = world.open(1, Class::Api, Kind::Bulk);
        world.run(15 * S);
        world.echoes.clear();
        let goodput = world.goodput(15 * S, &[(1, up), (0, down)]);
        let shown = [50, 90, 99].map(|p| percentile(&world.echoes[&typing], p));
        // On top of the queues, the machines themselves are late by a few milliseconds.
        assert!(
            shown[1] <= ROUND_TRIP + 20 * MS,
            "{link} {offset}: {shown:?}, {goodput:?}"
        );
        assert!(
            shown[2] <= ROUND_TRIP + 40 * MS,
            "{link} {offset}: {shown:?}, {goodput:?}"
        );
        assert!(
            goodput.iter().all(|share| *share >= 0.8),
            "{link} {offset}: {goodput:?}, {shown:?}"
        );
    }
}

/// What an end takes for the link's rate while both begin is far off now and then, and must not stay so.
#[test]
fn however_two_transfers_begin_keystrokes_soon_wait_as_long_as_ever() {
    for seed in 0..48 {
        let mut world = World::seeded("3mbit,60ms,64kb", seed);
        world.greet();
        let typing = world.open(0, Class::Interactive, Kind::Typing);
        world.run(Duration::from_millis(500 + seed * 13));
        let up = world.open(0, Class::Api, Kind::Bulk);
        world.run(Duration::from_millis(seed * 10));
        let down = world.open(1, Class::Api, Kind::Bulk);
        world.run(10 * S);
        world.echoes.clear();
        let goodput = world.goodput(15 * S, &[(1, up), (0, down)]);
        let p99 = percentile(&world.echoes[&typing], 99);
        // On top of the queues, the machines themselves are late by a few milliseconds, four times.
        assert!(p99 <= ROUND_TRIP + 35 * MS, "seed {seed}: {p99:?}, {goodput:?}");
        assert!(
            goodput.iter().all(|share| *share >= 0.88),
            "seed {seed}: {goodput:?}, {p99:?}"
        );
    }
}

/// A peer that does not say when packets arrive leaves the sum of both queues to go by.
#[test]
fn keystrokes_wait_little_longer_beside_a_peer_that_tells_nothing_of_transit_times() {
    let mut world = World::new("3mbit,60ms,64kb");
    for node in &mut world.nodes {
        node.carrier.ignores_datagrams = true;
    }
    let (echoes, goodput) = typed_beside_bulk_both_ways(world, 30 * S);
    let p99 = percentile(&echoes, 99);
    assert!(p99 <= ROUND_TRIP + 35 * MS, "{p99:?}, {goodput:?}");
    assert!(goodput.iter().all(|share| *share >= 0.8), "{goodput:?}, {p99:?}");
}
