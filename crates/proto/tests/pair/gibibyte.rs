//! Much data over many cuts, as an edge on a bad link sees in a day.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tunnel_proto::{Config, Side};

use crate::{
    app::Step,
    network::Link,
    pair::{Act, Pair},
    streams::assert_whole,
};
use Step::{Accept, Finish, Write};

const GIB: usize = 1 << 30;
const CUTS: usize = 100;
const LONGEST: Duration = Duration::from_secs(60);

/// N1, N8: half of it each way. Every byte is compared as it comes.
#[test]
fn a_gibibyte_arrives_whole_over_a_hundred_cuts_of_up_to_a_minute_and_as_many_changes_of_carrier() {
    let carriers = [
        Link {
            segment: 64 << 10,
            ..Link::default()
        },
        // As TLS: slower, and an end may be a reset.
        Link {
            latency: Duration::from_millis(80),
            segment: 64 << 10,
            resets_look_like_ends: true,
            ..Link::default()
        },
    ];
    for seed in 1..=3 {
        over_a_hundred_cuts(seed, &carriers);
    }
}

fn over_a_hundred_cuts(seed: u64, carriers: &[Link; 2]) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::with_configs(carriers[0].clone(), seed, Config::default(), Config::default());
    pair.connect();
    let half = GIB / 2;
    let stream = pair.stream(&[Write(half), Finish], &[Accept, Write(half), Finish]);
    let (mut down, mut changes) = (Duration::ZERO, 0);
    for cut in 1..=CUTS {
        // Both directions count, as each waits for the other's memory to be free again.
        let due = GIB / (CUTS + 1) * cut;
        pair.run_while(|pair| arrived(pair, stream) < due);
        let mut until = |most: Duration| most.mul_f64(random.random_range(0.0..1.0));
        let (edge, gateway, back) = (until(LONGEST / 20), until(LONGEST / 20), until(LONGEST));
        pair.act(Act::Cut(edge, gateway));
        down += back;
        let carrier = usize::from(random.random_bool(0.5));
        changes += usize::from(pair.network.link.latency != carriers[carrier].latency);
        pair.network.link = carriers[carrier].clone();
        pair.at(pair.elapsed() + back, Act::Connect);
    }
    pair.run_until_decided(stream);
    assert_whole(&pair, stream, half, half);
    for side in [Side::Edge, Side::Gateway] {
        assert!(pair.end(side).violations.is_empty(), "{:?}", pair.end(side).violations);
        assert_eq!(pair.end(side).agreed.len(), CUTS + 1, "carriers that were agreed upon");
    }
    assert!(pair.elapsed() > down && changes > CUTS / 3, "{changes}");
}

fn arrived(pair: &Pair, stream: usize) -> usize {
    let of = |side| pair.end(side).apps.get(&stream).map_or(0, |app| app.received);
    of(Side::Edge) + of(Side::Gateway)
}
