//! Any scenario at all: whatever the link does and in whatever order the ends act, no stream hangs and no cut looks like
//! an end. Scenarios that once failed stand in `proptest-regressions` and run first.

use std::time::Duration;

use proptest::prelude::*;
use tunnel_model::Reason;
use tunnel_proto::{Config, OpenError, Side};

use crate::{
    app::{App, Plan, Step},
    network::{Link, other},
    pair::{Act, Pair},
};

#[derive(Debug, Clone)]
struct Scenario {
    seed: u64,
    link: Link,
    max_streams: usize,
    plans: Vec<Plan>,
    acts: Vec<(Duration, Act)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_ends_whole_or_broken_and_never_hangs(scenario in scenario(true)) {
        check_every_stream_is_decided(&run(&scenario));
    }

    #[test]
    fn without_faults_every_stream_arrives_whole(scenario in scenario(false)) {
        let pair = run(&scenario);
        check_every_stream_is_decided(&pair);
        for (index, plan) in pair.plans().iter().enumerate() {
            for side in [Side::Edge, Side::Gateway] {
                let app = pair.app(side, index);
                assert_eq!(app.send_ending, Some(Ok(())), "{side:?} {index} {plan:?}");
                assert_eq!(app.receive_ending, Some(Ok(())), "{side:?} {index} {plan:?}");
            }
        }
    }
}

fn run(scenario: &Scenario) -> Pair {
    let config = Config {
        max_streams: scenario.max_streams,
        ..Config::default()
    };
    let mut pair = Pair::with_configs(scenario.link.clone(), scenario.seed, config.clone(), config);
    pair.connect();
    for plan in &scenario.plans {
        let at = plan.at + pair.elapsed();
        pair.plan(Plan { at, ..plan.clone() });
    }
    for (at, act) in &scenario.acts {
        pair.at(*at + pair.elapsed(), act.clone());
    }
    pair.run();
    pair
}

fn check_every_stream_is_decided(pair: &Pair) {
    for side in [Side::Edge, Side::Gateway] {
        let end = pair.end(side);
        assert!(end.violations.is_empty(), "{side:?} saw {:?}", end.violations);
        assert_eq!(end.session.open_streams(), 0, "{side:?} holds streams of nobody");
        for (index, app) in &end.apps {
            assert!(app.is_decided(), "{side:?} waits for stream {index} for ever");
        }
    }
    for (index, plan) in pair.plans().iter().enumerate() {
        if let Some(error) = pair.end(plan.opener).not_opened.get(&index) {
            assert!(matches!(error, OpenError::NotConnected | OpenError::Draining));
            continue;
        }
        let opener = pair.app(plan.opener, index);
        match pair.end(other(plan.opener)).apps.get(&index) {
            Some(acceptor) => {
                check_direction(opener, acceptor);
                check_direction(acceptor, opener);
            }
            None => assert!(
                matches!(opener.receive_ending, Some(Err(_))),
                "an end of what nobody sent"
            ),
        }
    }
}

fn check_direction(sender: &App, receiver: &App) {
    assert!(receiver.received <= sender.sent);
    if receiver.receive_ending == Some(Ok(())) {
        assert_eq!(receiver.received, sender.sent, "a cut looks like a clean end");
        assert_eq!(sender.send_ending, Some(Ok(())), "a clean end that nobody meant");
    }
}

fn scenario(faults: bool) -> impl Strategy<Value = Scenario> {
    let acts = prop::collection::vec((millis(0..6000), act()), if faults { 0..4 } else { 0..1 });
    (
        any::<u64>(),
        link(),
        prop::collection::vec(plan(faults), 1..6),
        acts,
        if faults { 1..5usize } else { 8..9 },
    )
        .prop_map(move |(seed, link, plans, acts, max_streams)| Scenario {
            seed,
            link,
            max_streams,
            plans,
            acts: if faults { acts } else { vec![] },
        })
}

pub(crate) fn link() -> impl Strategy<Value = Link> {
    (millis(0..400), millis(0..200), 0.0..0.3, 20usize..500, any::<bool>()).prop_map(
        |(latency, jitter, loss, segment, resets_look_like_ends)| Link {
            latency,
            jitter,
            loss,
            segment,
            resets_look_like_ends,
        },
    )
}

pub(crate) fn plan(faults: bool) -> impl Strategy<Value = Plan> {
    let answers = if faults {
        prop_oneof![
            6 => script(true).prop_map(|script| [&[Step::Accept], &script[..]].concat()),
            1 => reason().prop_map(|reason| vec![Step::Refuse(reason)]),
            1 => reason().prop_map(|reason| vec![Step::Reset(reason)]),
            1 => Just(vec![Step::Vanish]),
        ]
        .boxed()
    } else {
        script(false)
            .prop_map(|script| [&[Step::Accept], &script[..]].concat())
            .boxed()
    };
    let before_answer = prop::option::of(pause());
    (any::<bool>(), millis(0..5000), script(faults), before_answer, answers).prop_map(
        |(by_edge, at, ask, before_answer, answer)| Plan {
            opener: if by_edge { Side::Edge } else { Side::Gateway },
            at,
            target: "service:web".parse().unwrap(),
            ask,
            answer: before_answer.into_iter().chain(answer).collect(),
        },
    )
}

/// Some acts and an end.
fn script(faults: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![3 => (0usize..800).prop_map(Step::Write), 1 => pause()];
    let last = if faults {
        prop_oneof![
            5 => Just(Step::Finish),
            1 => reason().prop_map(Step::Reset),
            1 => Just(Step::Vanish),
        ]
        .boxed()
    } else {
        Just(Step::Finish).boxed()
    };
    // After its own end a script may still reset the direction that it reads.
    let afterwards = prop_oneof![
        9 => Just(None),
        1 => reason().prop_map(move |reason| faults.then_some(Step::Reset(reason))),
    ];
    (prop::collection::vec(step, 0..5), last, afterwards)
        .prop_map(|(steps, last, afterwards)| steps.into_iter().chain([last]).chain(afterwards).collect())
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (millis(0..3000), millis(0..3000)).prop_map(|(edge, gateway)| Act::Cut(edge, gateway)),
        3 => Just(Act::Connect),
        1 => any::<bool>().prop_map(|edge| Act::Drain(if edge { Side::Edge } else { Side::Gateway })),
    ]
}

fn pause() -> impl Strategy<Value = Step> {
    millis(0..2000).prop_map(Step::Pause)
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL)
}

pub(crate) fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}
