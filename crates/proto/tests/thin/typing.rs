//! What somebody who types notices of transfers beside it.

use std::time::Duration;

use tunnel_model::Class;

use crate::world::{Kind, MS, World, percentile};

const S: Duration = Duration::from_secs(1);
const ROUND_TRIP: Duration = Duration::from_millis(60);

/// A byte is echoed each 100 ms while a transfer each way always has more.
fn typing_beside_bulk_both_ways(mut world: World) {
    let typing = world.open(0, Class::Interactive, Kind::Typing);
    let up = world.open(0, Class::Api, Kind::Bulk);
    let down = world.open(1, Class::Api, Kind::Bulk);
    world.run(20 * S);
    world.echoes.clear();
    let goodput = world.goodput(60 * S, &[(1, up), (0, down)]);
    let echoes = &world.echoes[&typing];
    let shown = [50, 90, 99, 100].map(|p| percentile(echoes, p));
    assert!(echoes.len() >= 590, "{} echoes", echoes.len());
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

#[test]
fn many_transfers_do_no_more_harm_than_one() {
    let mut world = World::new("3mbit,60ms,64kb");
    let typing = world.open(0, Class::Interactive, Kind::Typing);
    let transfers: Vec<_> = (0..50).map(|_| (1, world.open(0, Class::Api, Kind::Bulk))).collect();
    world.run(20 * S);
    world.echoes.clear();
    let goodput = world.goodput(60 * S, &transfers);
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
