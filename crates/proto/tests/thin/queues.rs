//! Thin links of all kinds: their queues stay short, and they are full.

use std::time::Duration;

use tunnel_linkem::LinkConfig;
use tunnel_model::Class;
use tunnel_proto::Rate;

use crate::world::{Kind, MS, World, percentile};

const S: Duration = Duration::from_secs(1);

/// What a transfer gets of the link, and how long 99 % of what it sends stand in line at most.
fn transfer(link: &str, warm_up: Duration) -> (f64, Duration) {
    let mut world = World::new(link);
    world.greet();
    let bulk = world.open(0, Class::Api, Kind::Bulk);
    world.run(warm_up);
    let before = world.arrived(1, bulk);
    let queues = world.queues(15 * S);
    let bits = (world.arrived(1, bulk) - before) as f64 * 8.0;
    let rate = world.links[0].config().rate.unwrap().get() as f64;
    (bits / 15.0 / rate, percentile(&queues, 99))
}

fn are_full_and_have_short_queues(links: &[&str], least: f64) {
    for link in links {
        let (goodput, queue) = transfer(link, 15 * S);
        let config: LinkConfig = link.parse().unwrap();
        let rate = Rate::from_bits_per_second(config.rate.unwrap().get()).unwrap();
        // With fewer packets than these a thin link would often have none.
        let most = (20 * MS).max(rate.time_for(3 * 1500));
        assert!(queue <= most, "{link}: {queue:?}, {goodput:.2}");
        assert!(goodput >= least, "{link}: {goodput:.2}, {queue:?}");
    }
}

#[test]
fn links_of_many_rates_have_short_queues() {
    let links = [
        "1mbit,20ms,64kb",
        "1mbit,200ms,64kb",
        "3mbit,20ms,64kb",
        "3mbit,200ms,64kb",
        "10mbit,60ms,64kb",
    ];
    are_full_and_have_short_queues(&links, 0.9);
}

#[test]
fn links_that_lose_packets_have_short_queues() {
    // What was lost takes its part of the link.
    let links = ["1mbit,60ms,64kb,2%", "3mbit,60ms,64kb,2%", "3mbit,200ms,64kb,2%"];
    are_full_and_have_short_queues(&links, 0.88);
}

/// What is wrong shows a second later. Once it is known what the link
/// carries, half of the modem's queue is never used, or nearly so.
#[test]
fn links_of_800_ms_are_full_and_seldom_have_a_queue() {
    for (link, least) in [("3mbit,800ms,64kb", 0.9), ("3mbit,800ms,64kb,2%", 0.85)] {
        let (goodput, queue) = transfer(link, 25 * S);
        assert!(queue <= 85 * MS, "{link}: {queue:?}, {goodput:.2}");
        assert!(goodput >= least, "{link}: {goodput:.2}, {queue:?}");
    }
}
