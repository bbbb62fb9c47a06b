//! What a decision costs with 10,000 rules and 10,000 nodes: `cargo bench -p tunnel-model`.
//!
//! Three shapes of a policy: one in which everybody has rules of their own, and two that put every rule upon one group, by
//! node name and by pattern, which is the worst that an index by subject can meet. Each iteration is one decision on a
//! node, caller and target that change from one to the next.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use tunnel_model::{Ask, Labels, NodeName, Policy, Principal, Rule, Target};

const RULES: usize = 10_000;
const NODES: usize = 10_000;

/// The rule of a number.
type Shape = fn(usize) -> Rule;

fn decisions(criterion: &mut Criterion) {
    let nodes: Vec<(NodeName, Labels)> = (0..NODES).map(node).collect();
    let targets: Vec<Target> = ["port:22", "udp:53", "service:web", "tcp:10.42.3.1:443"]
        .iter()
        .map(|target| target.parse().unwrap())
        .collect();
    let shapes: [(&str, Shape); 3] = [
        ("many subjects", of_many),
        ("one group, nodes by name", |i| {
            rule("group:ops", &format!("s{}-{i}", i % 100))
        }),
        ("one group, nodes by label and pattern", |i| match i % 2 {
            0 => rule("group:ops", &format!("site=s{},rack=r{i}", i % 100)),
            _ => rule("group:ops", &format!("s{}-{i}*", i % 100)),
        }),
    ];
    for (name, shape) in shapes {
        let policy = Policy::compile((0..RULES).map(shape));
        let callers: Vec<Principal> = (0..RULES).map(caller).collect();
        let mut i = 0;
        criterion.bench_function(&format!("decide, {RULES} rules, {NODES} nodes, {name}"), |bencher| {
            bencher.iter(|| {
                // A stride that meets every node and caller before it comes round.
                i = (i + 7_919) % (RULES * NODES);
                let (node, labels) = &nodes[i % NODES];
                policy.decide(&Ask {
                    principal: &callers[i / 3 % RULES],
                    node,
                    labels,
                    target: &targets[i % targets.len()],
                })
            });
        });
    }
}

fn node(i: usize) -> (NodeName, Labels) {
    let labels = [
        format!("site=s{}", i % 100),
        format!("rack=r{i}"),
        format!("arch=a{}", i % 2),
    ];
    let labels = Labels::parse(labels.iter().map(String::as_str)).unwrap();
    (format!("s{}-{i}", i % 100).parse().unwrap(), labels)
}

fn caller(i: usize) -> Principal {
    let groups = vec!["ops".parse().unwrap(), format!("g{}", i % 100).parse().unwrap()];
    let [.., a, b] = i.to_be_bytes();
    Principal::user(format!("u{i}").parse().unwrap(), groups).at([10, 1, a, b].into())
}

/// A rule of a kind that changes with the number.
fn of_many(i: usize) -> Rule {
    let subject = match i % 5 {
        0 => format!("group:g{}", i % 100),
        1 => format!("cidr:10.1.{}.0/24", i % 256),
        2 => format!("cidr:10.1.{}.{}", i / 256 % 256, i % 256),
        _ => format!("user:u{i}"),
    };
    match i % 3 {
        0 => rule(&subject, &format!("s{}-{i}", i % 100)),
        1 => rule(&subject, &format!("site=s{}", i % 100)),
        _ => rule(&subject, &format!("s{}-*", i % 100)),
    }
}

fn rule(subject: &str, nodes: &str) -> Rule {
    let targets = ["tcp:8000-8100", "service:web", "10.42.0.0/16", "udp:53"];
    Rule {
        subjects: vec![subject.parse().unwrap()],
        nodes: vec![nodes.parse().unwrap()],
        targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
