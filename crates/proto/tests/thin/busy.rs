//! Machines that have other things to do, so that packets are sent, received and acknowledged late and in bursts. Nothing of
//! that is the link's.

use std::time::Duration;

use tunnel_model::Class;
use tunnel_proto::Rate;

use crate::{
    host::{Host, Load},
    world::{Kind, World},
};

const S: Duration = Duration::from_secs(1);
const SEEDS: u64 = 4;

fn transferred(link: &str, seed: u64, thin: Rate) -> u64 {
    let mut world = World::with_thin(link, thin);
    for (node, seed) in world.nodes.iter_mut().zip([seed, seed + 1000]) {
        node.host = Host::shared(Load::heavy(seed), world.now);
    }
    world.greet();
    let bulk = world.open(0, Class::Api, Kind::Bulk);
    world.run(6 * S);
    world.arrived(1, bulk)
}

/// Here processor time is what is scarce. Who is held to what it happened to give in some second never gets more.
fn is_left_alone(link: &str) {
    let never = Rate::from_bytes_per_second(1).unwrap();
    for seed in 0..SEEDS {
        let free = transferred(link, seed, never);
        let part = transferred(link, seed, Rate::THIN) as f64 / free as f64;
        assert!(part >= 0.5, "{link}, seed {seed}: {part:.2} of {free} bytes");
    }
}

#[test]
fn a_fast_link_between_busy_machines_is_not_taken_for_a_thin_one() {
    is_left_alone("10gbit,0ms,4mb");
}

#[test]
fn a_fast_and_long_link_between_busy_machines_is_not_taken_for_a_thin_one() {
    is_left_alone("10gbit,20ms,4mb");
}
