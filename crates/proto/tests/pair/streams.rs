//! One stream's life.

use std::time::Duration;

use tunnel_model::Reason;
use tunnel_proto::{Config, OpenError, Side};

use crate::{
    app::{Ending, Plan, Step},
    network::{Delays, Link},
    pair::{Act, Pair},
};
use Step::{Accept, AwaitEnd, Finish, Pause, Refuse, Reset, Vanish, Write};

#[test]
fn data_sent_with_the_open_arrives_and_is_answered() {
    let mut pair = Pair::connected(Link::default());
    let begun = pair.elapsed();
    let stream = pair.stream(&[Write(5000), Finish], &[Accept, AwaitEnd, Write(70_000), Finish]);
    pair.run_until_decided(stream);
    assert_whole(&pair, stream, 5000, 70_000);
    // Header, data and end leave at once: one round trip for everything.
    assert_eq!(pair.elapsed() - begun, 2 * Link::default().latency);
}

#[test]
fn an_edge_reaches_a_service_of_the_cloud() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.plan(Plan {
        opener: Side::Edge,
        at: pair.elapsed(),
        target: "service:registry".parse().unwrap(),
        ask: vec![Write(10), Finish],
        answer: vec![Accept, Write(20), Finish],
    });
    pair.run();
    assert_eq!(
        pair.app(Side::Edge, stream).id().map(tunnel_proto::StreamId::opener),
        Some(Side::Edge)
    );
    assert_eq!(pair.app(Side::Gateway, stream).received, 10);
    assert_eq!(pair.app(Side::Edge, stream).received, 20);
    assert_nothing_open(&pair);
}

#[test]
fn a_refusal_reaches_the_opener_with_its_reason() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(&[Write(5000), Finish], &[Refuse(Reason::TargetRefused)]);
    let other = pair.stream(&[Write(1), Finish], &[Accept, Write(1), Finish]);
    pair.run();
    let opener = pair.app(Side::Gateway, stream);
    let reply = opener.reply.clone().unwrap().unwrap_err();
    assert_eq!(
        (reply.reason, reply.message.as_str()),
        (Reason::TargetRefused, "as the script says")
    );
    assert_eq!(reason(&opener.receive_ending), Some(Reason::TargetRefused));
    assert_whole(&pair, other, 1, 1);
}

#[test]
fn the_acceptor_may_end_first_and_the_opener_goes_on() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(&[AwaitEnd, Write(9000), Finish], &[Accept, Write(100), Finish]);
    pair.run();
    assert_whole(&pair, stream, 9000, 100);
}

#[test]
fn a_stream_may_stay_half_closed_for_an_hour() {
    let mut pair = Pair::connected(Link::default());
    let hour = Duration::from_secs(3600);
    let stream = pair.stream(&[Finish], &[Accept, AwaitEnd, Pause(hour), Write(10), Finish]);
    pair.run();
    assert!(pair.elapsed() > hour);
    assert_whole(&pair, stream, 0, 10);
}

#[test]
fn an_end_may_overtake_the_header_and_the_data() {
    let mut pair = Pair::connected(Link::default());
    pair.network.delays = Delays {
        streams: Duration::from_secs(3),
        ..Delays::default()
    };
    let stream = pair.stream(&[Write(5000), Finish], &[Accept, Write(50), Finish]);
    pair.run();
    assert_whole(&pair, stream, 5000, 50);
}

#[test]
fn an_end_may_come_long_after_the_last_byte() {
    let mut pair = Pair::connected(Link::default());
    pair.network.delays = Delays {
        control_of_edge: Duration::from_secs(9),
        control_of_gateway: Duration::from_secs(9),
        ..Delays::default()
    };
    let stream = pair.stream(&[Write(5000), Finish], &[Accept, Write(50), Finish]);
    pair.run();
    assert_whole(&pair, stream, 5000, 50);
}

#[test]
fn a_reset_that_overtakes_the_header_meets_a_stream_that_never_was() {
    let mut pair = Pair::connected(Link::default());
    pair.network.delays = Delays {
        streams: Duration::from_secs(3),
        ..Delays::default()
    };
    let stream = pair.stream(&[Write(100), Reset(Reason::Cancelled)], &[Accept, Write(50), Finish]);
    pair.run();
    assert_eq!(pair.app(Side::Edge, stream).id(), None);
    assert_eq!(pair.app(Side::Edge, stream).received, 0);
    assert_nothing_open(&pair);
}

#[test]
fn the_reason_of_a_reset_arrives_also_where_the_carrier_stream_dies_first() {
    for side in [Side::Gateway, Side::Edge] {
        let mut pair = Pair::connected(Link::default());
        let stop = [Pause(Duration::from_secs(20)), Reset(Reason::TargetReset)];
        let go = [Write(10), Pause(Duration::from_secs(60)), Finish];
        let stream = match side {
            Side::Gateway => pair.stream(&stop, &[&[Accept], &go[..]].concat()),
            Side::Edge => pair.stream(&go, &[&[Accept], &stop[..]].concat()),
        };
        pair.network.delays.control_of_edge = Duration::from_secs(5);
        pair.network.delays.control_of_gateway = Duration::from_secs(5);
        pair.run();
        let hurt = pair.app(crate::network::other(side), stream);
        assert_eq!(
            reason(&hurt.receive_ending),
            Some(Reason::TargetReset),
            "reset by {side:?}"
        );
        assert_eq!(
            reason(&hurt.send_ending),
            Some(Reason::TargetReset),
            "reset by {side:?}"
        );
        assert_nothing_open(&pair);
    }
}

#[test]
fn a_carrier_stream_that_was_dropped_is_never_a_clean_end() {
    for accepted in [true, false] {
        let mut pair = Pair::connected(Link::default());
        let begun = pair.elapsed();
        let answer: &[Step] = if accepted {
            // So much that its acknowledgement is no longer in coming than the end.
            &[Accept, Write(20_000), Vanish]
        } else {
            &[Vanish]
        };
        let stream = pair.stream(&[Write(20_000), AwaitEnd, Finish], answer);
        pair.run();
        let opener = pair.app(Side::Gateway, stream);
        assert_eq!(reason(&opener.receive_ending), Some(Reason::CarrierLost));
        assert_eq!(reason(&opener.send_ending), Some(Reason::CarrierLost));
        let grace = Config::default().end_grace + 4 * Link::default().latency;
        assert!(pair.elapsed() - begun <= grace, "{:?}", pair.elapsed());
        assert_nothing_open(&pair);
    }
}

#[test]
fn a_reset_that_looks_like_an_end_is_never_a_clean_end() {
    let mut pair = Pair::connected(Link {
        resets_look_like_ends: true,
        ..Link::default()
    });
    let pause = Duration::from_millis(100);
    let stream = pair.stream(
        &[
            Write(500),
            Pause(pause),
            Write(500),
            Finish,
            Pause(pause),
            Reset(Reason::Cancelled),
        ],
        &[Accept, AwaitEnd, Write(1), Finish],
    );
    // The second half is late, its end is announced, and the reset overtakes it.
    for delay in [0, 1000, 0] {
        pair.network.delays.streams = Duration::from_millis(delay);
        let soon = pair.elapsed() + pause;
        pair.run_until(soon - Duration::from_millis(1));
    }
    pair.network.delays.control_of_gateway = Duration::from_secs(5);
    pair.run();
    let acceptor = pair.app(Side::Edge, stream);
    assert_eq!(acceptor.received, 500);
    assert!(matches!(acceptor.receive_ending, Some(Err(_))));
    assert_nothing_open(&pair);
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let mut pair = Pair::connected(Link::default());
    let stuck = pair.stream(
        &[Write(10), Pause(Duration::from_secs(60)), Finish],
        &[Accept, AwaitEnd, Finish],
    );
    let streams: Vec<_> = (0..100)
        .map(|_| pair.stream(&[Write(1000), Finish], &[Accept, Write(1000), Finish]))
        .collect();
    let soon = pair.elapsed() + Duration::from_secs(1);
    pair.run_until(soon);
    for stream in streams {
        assert_whole(&pair, stream, 1000, 1000);
    }
    assert!(!pair.app(Side::Edge, stuck).is_decided());
    assert_eq!(pair.end(Side::Edge).session.open_streams(), 1);
}

#[test]
fn streams_beyond_the_limit_are_refused_as_overload_and_fit_again_later() {
    let two = Config {
        max_streams: 2,
        ..Config::default()
    };
    let mut pair = Pair::with_configs(Link::default(), 1, two, Config::default());
    pair.connect();
    let second = Duration::from_secs(1);
    let streams: Vec<_> = (0..3)
        .map(|_| pair.stream(&[Pause(second), Finish], &[Accept, AwaitEnd, Finish]))
        .collect();
    let later = pair.elapsed() + 2 * second;
    pair.run_until(later);
    let refused: Vec<_> = streams
        .iter()
        .filter_map(|&s| reason(&pair.app(Side::Gateway, s).receive_ending))
        .collect();
    assert_eq!(refused, [Reason::Overloaded]);
    let again = pair.stream(&[Write(7), Finish], &[Accept, Finish]);
    pair.run();
    assert_whole(&pair, again, 7, 0);
}

#[test]
fn nothing_can_be_opened_before_the_peers_have_agreed() {
    let mut pair = Pair::new(Link::default(), 1);
    let early = pair.stream(&[Finish], &[Accept, Finish]);
    pair.run();
    pair.act(Act::Connect);
    let greeting = pair.stream(&[Finish], &[Accept, Finish]);
    pair.run();
    for stream in [early, greeting] {
        assert_eq!(
            pair.end(Side::Gateway).not_opened.get(&stream),
            Some(&OpenError::NotConnected)
        );
    }
}

pub(crate) fn reason(ending: &Option<Ending>) -> Option<Reason> {
    ending
        .as_ref()
        .and_then(|e| e.as_ref().err())
        .map(|refusal| refusal.reason)
}

/// Both ends saw both directions end, with this many bytes from the gateway and from the edge.
pub(crate) fn assert_whole(pair: &Pair, stream: usize, from_gateway: usize, from_edge: usize) {
    let (gateway, edge) = (pair.app(Side::Gateway, stream), pair.app(Side::Edge, stream));
    for app in [gateway, edge] {
        assert_eq!((&app.send_ending, &app.receive_ending), (&Some(Ok(())), &Some(Ok(()))));
    }
    assert_eq!((edge.received, gateway.received), (from_gateway, from_edge));
}

fn assert_nothing_open(pair: &Pair) {
    for side in [Side::Edge, Side::Gateway] {
        assert_eq!(pair.end(side).session.open_streams(), 0, "{side:?}");
        assert!(pair.end(side).violations.is_empty(), "{side:?}");
    }
}
