//! Carriers that come, fall silent, die and are left in order.

use std::time::Duration;

use tunnel_model::{Offer, Reason, Refusal};
use tunnel_proto::{Config, Control, Event, Hello, OpenError, Position, Side};

use crate::{
    app::Step,
    network::{Link, other},
    pair::{Act, Pair},
    streams::reason,
};
use Step::{Accept, AwaitEnd, Finish, Pause, Write};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_ends_agree_and_hear_each_others_words() {
    let pair = Pair::connected(Link::default());
    for side in [Side::Edge, Side::Gateway] {
        let [(at, agreed)] = &pair.end(side).agreed[..] else {
            panic!("{:?}", pair.end(side).agreed);
        };
        // The edge speaks first, the gateway when it has heard.
        let heard = if side == Side::Gateway { 1 } else { 2 };
        assert_eq!((*at, agreed.version), (heard * Link::default().latency, 1));
        let session = crate::pair::hello(Side::Edge).session;
        let said = Hello {
            session,
            carrier: u64::from(side == Side::Gateway),
            ..crate::pair::hello(other(side))
        };
        assert_eq!(agreed.peer, said);
    }
}

#[test]
fn a_drain_lets_running_streams_end_and_refuses_new_ones() {
    for drains in [Side::Edge, Side::Gateway] {
        let mut pair = Pair::connected(Link::default());
        let running = pair.stream(
            &[Write(1000), Pause(60 * SECOND), Write(1000), Finish],
            &[Accept, AwaitEnd, Finish],
        );
        pair.run_while(|pair| pair.end(Side::Edge).apps.is_empty());
        pair.act(Act::Drain(drains));
        let later = pair.elapsed() + SECOND;
        pair.run_until(later);
        let new = pair.stream(&[Finish], &[Accept, Finish]);
        pair.run();
        assert_eq!(pair.end(Side::Gateway).not_opened.get(&new), Some(&OpenError::Draining));
        assert_eq!(pair.app(Side::Edge, running).received, 2000);
        assert_eq!(pair.app(Side::Edge, running).receive_ending, Some(Ok(())));
        for side in [Side::Edge, Side::Gateway] {
            let notices = &pair.end(side).notices;
            let (at, last) = notices.last().unwrap();
            assert_eq!(last, &Event::Drained, "{side:?}");
            assert!(*at > 60 * SECOND, "{side:?} was drained while a stream ran");
            assert_eq!(notices.iter().filter(|(_, e)| e == &Event::Drained).count(), 1);
        }
        let goaway = Event::GoAway {
            refusal: Refusal::new(Reason::Draining, "a restart"),
            retry_after: Some(Duration::from_millis(1500)),
        };
        assert!(pair.end(other(drains)).notices.iter().any(|(_, e)| *e == goaway));
        assert!(!pair.end(drains).notices.iter().any(|(_, e)| *e == goaway));
    }
}

#[test]
fn a_stream_that_crossed_the_goaway_is_refused_as_draining() {
    let mut pair = Pair::connected(Link::default());
    let crossed = pair.stream(&[Write(10), Finish], &[Accept, Finish]);
    pair.run_while(|pair| pair.end(Side::Gateway).apps.is_empty());
    pair.act(Act::Drain(Side::Edge));
    pair.run();
    let opener = pair.app(Side::Gateway, crossed);
    assert_eq!(reason(&opener.receive_ending), Some(Reason::Draining));
    assert_eq!(pair.end(Side::Gateway).session.open_streams(), 0);
}

#[test]
fn drained_is_the_last_word_after_the_end_of_the_last_stream() {
    let mut pair = Pair::connected(Link::default());
    let now = pair.now();
    let session = &mut pair.end_mut(Side::Gateway).session;
    let (id, _) = session.open(&an_open()).unwrap();
    session.drain(Refusal::new(Reason::Draining, "a restart"), None);
    session.finish(id);
    let fate = session.carrier_stream_ended(id, session.carrier(), now);
    assert_eq!(fate, Ok(tunnel_proto::Fate::Pending));
    for message in [
        Control::End { id, offset: 0 },
        Control::Acks(vec![Position { id, received: 1 }]),
    ] {
        session.handle_control(&message.encode(), now).unwrap();
    }
    let events: Vec<_> = std::iter::from_fn(|| session.poll_event()).collect();
    assert_eq!(events, [Event::Received { id, end: Ok(()) }, Event::Drained]);
}

/// N2
#[test]
fn a_half_open_peer_is_found_within_the_idle_time() {
    let mut pair = with_keepalive();
    let stream = pair.stream(&[Write(10), AwaitEnd, Finish], &[Accept, AwaitEnd, Finish]);
    pair.run_until(100 * SECOND);
    pair.act(Act::Blackhole);
    pair.run_until(200 * SECOND);
    let (at, why) = &pair.end(Side::Edge).losses[0];
    assert_eq!(why.reason, Reason::IdleTimeout);
    let idle = KEEPALIVE + Config::default().patience;
    assert!(*at > 100 * SECOND && *at <= 100 * SECOND + idle, "{at:?}");
    assert!(
        !pair.app(Side::Edge, stream).is_decided(),
        "it did not wait for another carrier"
    );
    pair.run();
    assert_eq!(
        reason(&pair.app(Side::Edge, stream).receive_ending),
        Some(Reason::CarrierLost)
    );
}

#[test]
fn an_idle_session_sends_one_ping_per_interval_and_nothing_else() {
    let mut pair = with_keepalive();
    pair.network.control_writes.clear();
    pair.run_until(3600 * SECOND);
    let writes = &pair.network.control_writes;
    let pings: Vec<_> = writes.iter().filter(|(_, side, _)| *side == Side::Edge).collect();
    let pongs = writes.len() - pings.len();
    assert_eq!((pings.len(), pongs), (143, 143));
    assert!(pings.windows(2).all(|w| w[1].0 - w[0].0 >= KEEPALIVE));
    let day = writes.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>() * 24;
    assert!(day < 100_000, "{day} bytes a day");
}

#[test]
fn a_pong_that_is_to_be_held_comes_after_that_long_and_its_sender_expects_another_ping() {
    let mut pair = Pair::connected(Link::default());
    let rtt = 2 * Link::default().latency;
    let now = pair.now();
    let session = &mut pair.end_mut(Side::Edge).session;
    // Only the last is answered.
    session.ping_held(10 * SECOND, now);
    let number = session.ping_held(50 * SECOND, now);
    pair.settle(Side::Edge);
    pair.run_until(60 * SECOND);
    let rtt = rtt + 50 * SECOND;
    let pongs: Vec<_> = pair.end(Side::Edge).notices.iter().map(|(_, event)| event).collect();
    assert_eq!(pongs, [&Event::Pong { number, rtt }]);
    assert_eq!(pair.end(Side::Gateway).losses, []);
    pair.run_until(80 * SECOND);
    let (at, why) = &pair.end(Side::Gateway).losses[0];
    assert_eq!(why.reason, Reason::IdleTimeout);
    assert!(*at > 70 * SECOND && *at <= 71 * SECOND, "{at:?}");
}

#[test]
fn a_session_that_leaves_idle_pings_to_its_owner_pings_while_streams_are_open() {
    let edge = Config {
        keepalive: Some(KEEPALIVE),
        idle_pings: false,
        ..Config::default()
    };
    let mut pair = Pair::with_configs(Link::default(), 1, edge, Config::default());
    pair.connect();
    pair.network.control_writes.clear();
    pair.run_until(1000 * SECOND);
    assert_eq!(pair.network.control_writes.len(), 0);
    pair.stream(&[Write(10), AwaitEnd, Finish], &[Accept, AwaitEnd, Finish]);
    pair.run_until(1100 * SECOND);
    pair.act(Act::Blackhole);
    pair.run_until(1200 * SECOND);
    let (at, why) = &pair.end(Side::Edge).losses[0];
    assert_eq!(why.reason, Reason::IdleTimeout);
    assert!(*at <= 1100 * SECOND + KEEPALIVE + Config::default().patience, "{at:?}");
}

#[test]
fn a_ping_is_answered_with_the_round_trip_time() {
    let mut pair = Pair::connected(Link::default());
    for side in [Side::Edge, Side::Gateway] {
        let now = pair.now();
        let number = pair.end_mut(side).session.ping(now);
        pair.settle(side);
        pair.run();
        let rtt = 2 * Link::default().latency;
        assert_eq!(
            pair.end(side).notices.last().map(|(_, e)| e),
            Some(&Event::Pong { number, rtt })
        );
    }
}

#[test]
fn a_session_without_a_carrier_wants_nothing() {
    let mut pair = Pair::connected(Link::default());
    pair.act(Act::Cut(SECOND, SECOND));
    pair.run();
    for side in [Side::Edge, Side::Gateway] {
        let session = &mut pair.end_mut(side).session;
        session.offer(&Offer::default()).unwrap();
        session.drain(Refusal::new(Reason::Draining, "a restart"), None);
        assert_eq!((session.poll_timeout(), session.poll_transmit()), (None, None));
        assert!(session.is_closed(), "it waits for ever");
    }
}

#[test]
fn a_header_read_from_a_dead_carrier_opens_nothing() {
    let mut pair = Pair::connected(Link::default());
    let (_, header) = pair.end_mut(Side::Gateway).session.open(&an_open()).unwrap();
    pair.act(Act::Cut(SECOND, SECOND));
    pair.run();
    let session = &mut pair.end_mut(Side::Edge).session;
    let (frame, _) = {
        let mut prelude = tunnel_proto::Prelude::default();
        prelude.push(&header);
        prelude.split().unwrap().unwrap()
    };
    let incoming = session.handle_open(&frame, 1).unwrap();
    assert!(matches!(incoming, tunnel_proto::Incoming::Refused(_)), "{incoming:?}");
    assert_eq!(session.open_streams(), 0);
}

const KEEPALIVE: Duration = Duration::from_secs(25);

fn with_keepalive() -> Pair {
    let edge = Config {
        keepalive: Some(KEEPALIVE),
        ..Config::default()
    };
    let mut pair = Pair::with_configs(Link::default(), 1, edge, Config::default());
    pair.connect();
    pair
}

fn an_open() -> tunnel_proto::Open {
    tunnel_proto::Open {
        target: "port:22".parse().unwrap(),
        protocol: tunnel_model::Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
        class: tunnel_model::Class::Interactive,
        trace: tunnel_model::TraceId::from_bytes([7; 16]),
        principal: "alice".to_owned(),
        node: None,
    }
}
