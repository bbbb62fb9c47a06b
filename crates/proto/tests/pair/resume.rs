//! Streams that go on over another carrier.

use std::time::Duration;

use proptest::prelude::*;
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Config, Control, Position, ReplayLimits, Session, Side, Stale};

use crate::{
    app::{Plan, Step},
    network::Link,
    pair::{Act, Pair},
    property::{link, millis, plan},
    streams::{assert_whole, reason},
};
use Step::{Accept, AwaitEnd, Finish, Pause, Refuse, Reset, Write};

const SECOND: Duration = Duration::from_secs(1);

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// N1, N8: whatever is cut and when, nothing is lost and nothing comes twice. Each byte is compared as it comes.
    #[test]
    fn over_any_cuts_every_stream_arrives_whole(
        seed in any::<u64>(),
        link in link(),
        plans in prop::collection::vec(plan(false), 1..6),
        cuts in prop::collection::vec((millis(0..6000), millis(0..3000), millis(0..3000), millis(0..60_000)), 1..8),
        limits in (50usize..2000, 50usize..4000, 10usize..500),
    ) {
        let (stream, session, reserve) = limits;
        let config = Config {
            replay: ReplayLimits { stream, session, reserve },
            ..Config::default()
        };
        let mut pair = Pair::with_configs(link, seed, config.clone(), config);
        pair.connect();
        let mut at = pair.elapsed();
        for plan in &plans {
            pair.plan(Plan { at: plan.at + at, ..plan.clone() });
        }
        for (after, edge_learns, gateway_learns, back) in cuts {
            at += after;
            pair.at(at, Act::Cut(edge_learns, gateway_learns));
            // Sometimes before both have noticed.
            at += back;
            pair.at(at, Act::Connect);
        }
        pair.run();
        for (index, plan) in pair.plans().iter().enumerate() {
            if pair.end(plan.opener).not_opened.contains_key(&index) {
                continue;
            }
            for side in [Side::Edge, Side::Gateway] {
                prop_assert!(pair.end(side).violations.is_empty(), "{side:?} {:?}", pair.end(side).violations);
                let app = pair.app(side, index);
                prop_assert_eq!(&app.send_ending, &Some(Ok(())), "{:?} {} {:?}", side, index, plan);
                prop_assert_eq!(&app.receive_ending, &Some(Ok(())), "{:?} {} {:?}", side, index, plan);
                prop_assert_eq!(app.received, pair.app(crate::network::other(side), index).sent);
                prop_assert_eq!(pair.end(side).session.open_streams(), 0);
            }
        }
    }
}

#[test]
fn a_stream_goes_on_over_the_next_carrier() {
    let mut pair = Pair::connected(Link::default());
    let script = [Write(50_000), Pause(SECOND), Write(50_000), Finish];
    let stream = pair.stream(&script, &[&[Accept], &script[..]].concat());
    outage(&mut pair, SECOND / 2, 60 * SECOND);
    pair.run_until_decided(stream);
    assert_whole(&pair, stream, 100_000, 100_000);
    assert!(pair.elapsed() > 60 * SECOND, "it was over before the outage");
}

/// What waits at the gateway is at the edge two round trips after the new carrier: its hellos, and the lists.
#[test]
fn what_waits_is_there_two_round_trips_after_the_link() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(
        &[Pause(SECOND), Write(1), AwaitEnd, Finish],
        &[Accept, AwaitEnd, Finish],
    );
    let back = pair.elapsed() + 30 * SECOND;
    outage(&mut pair, SECOND / 2, 30 * SECOND - SECOND / 2);
    pair.run_while(|pair| {
        pair.end(Side::Edge)
            .apps
            .get(&stream)
            .is_none_or(|app| app.received == 0)
    });
    assert_eq!(pair.elapsed() - back, 4 * Link::default().latency);
}

#[test]
fn a_wish_that_was_lost_with_the_link_is_repeated() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(&[Write(10), Finish], &[Accept, Write(20), Finish]);
    let soon = pair.elapsed() + Duration::from_millis(10);
    pair.run_until(soon);
    assert!(pair.end(Side::Edge).apps.is_empty(), "the wish has arrived already");
    outage(&mut pair, Duration::ZERO, SECOND);
    pair.run_until_decided(stream);
    assert_whole(&pair, stream, 10, 20);
}

#[test]
fn what_was_said_of_a_stream_while_the_link_was_down_is_heard_later() {
    let pause = Pause(10 * SECOND);
    for (answer, why) in [
        (
            vec![pause.clone(), Refuse(Reason::TargetRefused)],
            Reason::TargetRefused,
        ),
        (vec![Accept, pause, Reset(Reason::TargetReset)], Reason::TargetReset),
    ] {
        let mut pair = Pair::connected(Link::default());
        let stream = pair.stream(&[Write(10), AwaitEnd, Finish], &answer);
        outage(&mut pair, SECOND, 30 * SECOND);
        pair.run_until_decided(stream);
        assert_eq!(reason(&pair.app(Side::Gateway, stream).receive_ending), Some(why));
        assert!(pair.elapsed() < 32 * SECOND);
    }
}

#[test]
fn an_end_that_was_lost_with_the_link_is_said_again() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(
        &[Write(10), Pause(SECOND), Finish],
        &[Accept, AwaitEnd, Write(5), Finish],
    );
    // Everything has arrived but the end.
    let finished = pair.elapsed() + SECOND;
    pair.run_until(finished + Duration::from_millis(1));
    assert_eq!(pair.app(Side::Edge, stream).received, 10);
    outage(&mut pair, Duration::ZERO, SECOND);
    pair.run_until_decided(stream);
    assert_whole(&pair, stream, 10, 5);
}

#[test]
fn streams_of_a_session_that_waited_too_long_break() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(&[Write(10), AwaitEnd, Finish], &[Accept, AwaitEnd, Finish]);
    outage(&mut pair, SECOND, Config::default().resume_for + SECOND);
    pair.run();
    for side in [Side::Edge, Side::Gateway] {
        assert_eq!(
            reason(&pair.app(side, stream).receive_ending),
            Some(Reason::CarrierLost)
        );
    }
    let new = pair.stream(&[Write(1), Finish], &[Accept, Write(2), Finish]);
    pair.run();
    assert_whole(&pair, new, 1, 2);
}

/// A gateway that was restarted has nothing of what was.
#[test]
fn streams_of_a_session_that_the_gateway_has_forgotten_break_at_the_edge() {
    let mut pair = Pair::connected(Link::default());
    let stream = pair.stream(&[Write(10), AwaitEnd, Finish], &[Accept, AwaitEnd, Finish]);
    let soon = pair.elapsed() + SECOND;
    pair.run_until(soon);
    let restart = Refusal::new(Reason::Internal, "a crash");
    pair.act(Act::Cut(Duration::ZERO, Duration::ZERO));
    pair.end_mut(Side::Gateway).session.close(&restart);
    pair.at(pair.elapsed() + SECOND, Act::Connect);
    pair.run();
    assert_eq!(
        reason(&pair.app(Side::Edge, stream).receive_ending),
        Some(Reason::CarrierLost)
    );
    let new = pair.stream(&[Write(1), Finish], &[Accept, Write(2), Finish]);
    pair.run();
    assert_whole(&pair, new, 1, 2);
}

#[test]
fn a_sender_without_room_waits_and_goes_on_when_the_peer_has_it() {
    let config = Config {
        replay: ReplayLimits {
            stream: 10_000,
            session: 10_000,
            reserve: 100,
        },
        ..Config::default()
    };
    let mut pair = Pair::with_configs(Link::default(), 1, config.clone(), config);
    pair.connect();
    let stream = pair.stream(&[Write(100_000), Finish], &[Accept, AwaitEnd, Finish]);
    let soon = pair.elapsed() + Duration::from_millis(1);
    pair.run_until(soon);
    assert_eq!(pair.app(Side::Gateway, stream).sent, 10_000);
    pair.run_until_decided(stream);
    assert_whole(&pair, stream, 100_000, 0);
}

#[test]
fn what_is_done_on_a_carrier_of_the_past_counts_for_nothing() {
    let mut gateway = up(Side::Gateway);
    let now = std::time::Instant::now();
    let (id, _) = gateway.open(&pair_open()).unwrap();
    gateway.handle_carrier_up(2, Config::default().resume_for, now).unwrap();
    assert_eq!(gateway.room(id, 1, 1, now), Err(Stale));
    assert_eq!(gateway.sent(id, 1, b"late"[..].into(), now), Err(Stale));
    assert_eq!(gateway.received(id, 1, 4, now), Err(Stale));
    assert_eq!(gateway.carrier_stream_ended(id, 1, now), Err(Stale));
    assert!(gateway.room(id, 2, 1, now).is_ok());
}

/// An old dial that gets through at last must not take the session from the one after it.
#[test]
fn a_carrier_that_was_dialled_before_the_one_of_now_is_turned_away() {
    let mut gateway = up(Side::Gateway);
    let (now, wait) = (std::time::Instant::now(), Config::default().resume_for);
    gateway.handle_carrier_up(5, wait, now).unwrap();
    for late in [0, 4, 5] {
        let refused = gateway.handle_carrier_up(late, wait, now).unwrap_err();
        assert_eq!(refused.reason, Reason::Superseded, "{late}");
    }
    assert_eq!(gateway.carrier(), 5);
}

/// Nothing is acknowledged byte by byte, and everything within a moment.
#[test]
fn acknowledgements_are_batched() {
    let mut edge = up(Side::Edge);
    let now = std::time::Instant::now();
    let ids: Vec<_> = (0..3).map(|_| edge.open(&pair_open()).unwrap().0).collect();
    for &id in &ids {
        edge.received(id, 1, 5_000, now).unwrap();
        edge.received(id, 1, 5_000, now).unwrap();
    }
    assert_eq!(edge.poll_transmit(), None);
    let due = edge.poll_timeout().unwrap();
    assert!(due > now && due - now <= Duration::from_millis(500));
    edge.handle_timeout(due);
    let positions = ids.iter().map(|&id| Position { id, received: 10_000 }).collect();
    assert_eq!(edge.poll_transmit(), Some(Control::Acks(positions).encode()));
    assert_eq!(edge.poll_timeout(), None);

    let id = ids[0];
    edge.received(id, 1, 256 * 1024, due).unwrap();
    let received = 10_000 + 256 * 1024;
    let at_once = Control::Acks(vec![Position { id, received }]).encode();
    assert_eq!(edge.poll_transmit(), Some(at_once));
}

/// A little is acknowledged with the data that goes the other way, or else late; an end is a matter of a moment.
#[test]
fn what_is_little_is_acknowledged_together_with_data() {
    let mut edge = up(Side::Edge);
    let now = std::time::Instant::now();
    let id = edge.open(&pair_open()).unwrap().0;
    let acks = |received| Some(Control::Acks(vec![Position { id, received }]).encode());
    edge.received(id, 1, 100, now).unwrap();
    assert_eq!(edge.poll_timeout(), Some(now + 20 * SECOND));
    edge.sent(id, 1, b"an echo"[..].into(), now + Duration::from_millis(199))
        .unwrap();
    assert_eq!(edge.poll_transmit(), None);
    edge.sent(id, 1, b"another"[..].into(), now + SECOND).unwrap();
    assert_eq!(edge.poll_transmit(), acks(100));
    assert_eq!(edge.poll_timeout(), None);

    edge.received(id, 1, 100, now + SECOND).unwrap();
    edge.handle_timeout(now + 21 * SECOND);
    assert_eq!(edge.poll_transmit(), acks(200));

    edge.received(id, 1, 100, now + 30 * SECOND).unwrap();
    edge.received(id, 1, 16 * 1024, now + 31 * SECOND).unwrap();
    assert_eq!(
        edge.poll_timeout(),
        Some(now + 30 * SECOND + Duration::from_millis(200))
    );
}

/// The link is down from `after` on, for so long.
fn outage(pair: &mut Pair, after: Duration, time: Duration) {
    let begin = pair.elapsed() + after;
    pair.at(begin, Act::Cut(Duration::from_millis(10), 3 * SECOND));
    pair.at(begin + time, Act::Connect);
}

fn up(side: Side) -> Session {
    let now = std::time::Instant::now();
    let mut session = Session::new(side, Config::default(), now);
    session.handle_carrier_up(1, Config::default().resume_for, now).unwrap();
    session
}

fn pair_open() -> tunnel_proto::Open {
    Plan {
        opener: Side::Gateway,
        at: Duration::ZERO,
        target: "service:web".parse().unwrap(),
        ask: vec![],
        answer: vec![],
    }
    .open()
}
