//! Links with long round trips, losses, and rates that change.

use std::time::Duration;

use tunnel_model::Class;

use crate::world::{Kind, MS, World, percentile};

const S: Duration = Duration::from_secs(1);

fn goodput_alone(link: &str, warm_up: Duration, time: Duration) -> f64 {
    goodput_in(World::new(link), warm_up, time)
}

fn goodput_in(mut world: World, warm_up: Duration, time: Duration) -> f64 {
    world.greet();
    let bulk = world.open(0, Class::Api, Kind::Bulk);
    world.run(warm_up);
    world.goodput(time, &[(1, bulk)])[0]
}

#[test]
fn a_transfer_alone_fills_a_link_of_800_ms() {
    let goodput = goodput_alone("3mbit,800ms,64kb", 12 * S, 30 * S);
    assert!(goodput >= 0.9, "{goodput}");
}

#[test]
fn a_transfer_alone_gets_most_of_a_link_of_800_ms_that_loses_2_percent() {
    let goodput = goodput_alone("3mbit,800ms,64kb,2%", 12 * S, 30 * S);
    assert!(goodput >= 0.8, "{goodput}");
}

/// What is lost and sent again must not keep from being sent what comes after it.
#[test]
fn losses_do_not_close_a_link_of_800_ms_whose_rate_is_given() {
    for (link, least) in [("3mbit,800ms,64kb", 0.9), ("3mbit,800ms,64kb,2%", 0.85)] {
        let goodput = goodput_in(World::given(link), 12 * S, 20 * S);
        assert!(goodput >= least, "{link}: {goodput}");
    }
}

#[test]
fn links_of_many_rates_are_found_and_filled() {
    for (link, seconds) in [("500kbit,60ms", 10), ("3mbit,10ms", 10), ("50mbit,20ms,256kb", 4)] {
        let goodput = goodput_alone(link, seconds * S, seconds * S);
        assert!(goodput >= 0.85, "{link}: {goodput}");
    }
}

#[test]
fn a_link_that_changes_its_rate_is_followed_within_seconds() {
    let mut world = World::new("3mbit,60ms");
    world.greet();
    let typing = world.open(0, Class::Interactive, Kind::Typing);
    let bulk = world.open(0, Class::Api, Kind::Bulk);
    world.run(10 * S);
    for (link, within) in [("1mbit,60ms", 3 * S), ("5mbit,60ms", 10 * S), ("3mbit,60ms", 3 * S)] {
        world.set_link(link);
        world.run(within);
        world.echoes.clear();
        let goodput = world.goodput(5 * S, &[(1, bulk)])[0];
        let echo = percentile(&world.echoes[&typing], 90);
        assert!(goodput >= 0.85, "{link}: {goodput}, {echo:?}");
        // A packet each way takes 12 ms at 1 Mbit/s.
        assert!(echo <= 100 * MS, "{link}: {echo:?}, {goodput}");
    }
}

#[test]
fn a_link_that_was_cut_is_full_again_soon() {
    let mut world = World::new("3mbit,60ms");
    world.greet();
    let bulk = world.open(0, Class::Api, Kind::Bulk);
    world.run(10 * S);
    world.set_up(false);
    world.run(20 * S);
    world.set_up(true);
    world.run(5 * S);
    let goodput = world.goodput(10 * S, &[(1, bulk)])[0];
    assert!(goodput >= 0.85, "{goodput}");
}

/// Another sender that fills the queue until it loses packets, as TCP does.
#[test]
fn a_loss_based_sender_beside_us_does_not_starve_us() {
    let mut world = World::new("3mbit,60ms,64kb");
    world.greet();
    let bulk = world.open(0, Class::Api, Kind::Bulk);
    world.run(10 * S);
    world.compete();
    world.run(20 * S);
    let goodput = world.goodput(60 * S, &[(1, bulk)])[0];
    assert!((0.15..0.75).contains(&goodput), "{goodput}");
}
