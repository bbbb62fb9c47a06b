use proptest::prelude::*;

use super::*;

#[test]
fn admins_reach_everything_and_others_nothing() {
    let policy = Policy::compile([Rule::for_admins()]);
    let decide = |groups: &[&str]| {
        let groups = groups.iter().map(|g| g.parse().unwrap()).collect();
        let alice = Principal::user("alice".parse().unwrap(), groups);
        ask(&policy, &alice, "edge1", "", "port:22")
    };
    assert_eq!(decide(&["ops", "admins"]), Verdict::Allowed { rule: 0 });
    assert_eq!(decide(&["ops", "admin", "admins2"]), Verdict::Denied(Denial::Subject));
    assert_eq!(decide(&[]), Verdict::Denied(Denial::Subject));
    assert_eq!(
        ask(&Policy::default(), &principals()[0], "edge1", "", "port:22"),
        Verdict::Denied(Denial::Subject)
    );
}

#[test]
fn a_denial_says_how_near_a_rule_came() {
    let policy = policy(&[
        ("user:alice", "hz-*", "tcp:22"),
        ("user:alice", "site=sh", "service:web"),
    ]);
    let alice = Principal::user("alice".parse().unwrap(), vec![]);
    let bob = Principal::user("bob".parse().unwrap(), vec![]);
    for (who, node, labels, target, verdict) in [
        (&bob, "hz-1", "", "port:22", Verdict::Denied(Denial::Subject)),
        (&alice, "nj-1", "", "port:22", Verdict::Denied(Denial::Node)),
        (&alice, "hz-1", "", "port:23", Verdict::Denied(Denial::Target)),
        (&alice, "hz-1", "", "port:22", Verdict::Allowed { rule: 0 }),
        (&alice, "nj-1", "site=sh", "service:web", Verdict::Allowed { rule: 1 }),
        (&alice, "hz-1", "site=sh", "service:web", Verdict::Allowed { rule: 1 }),
    ] {
        assert_eq!(
            ask(&policy, who, node, labels, target),
            verdict,
            "{who} {node} {target}"
        );
    }
}

#[test]
fn the_cloud_is_meant_only_where_it_is_written_out() {
    let policy = policy(&[
        ("user:alice", "*", "*"),
        ("user:alice", "c*", "*"),
        ("node:*", "cloud", "service:web"),
    ]);
    let alice = Principal::user("alice".parse().unwrap(), vec![]);
    assert_eq!(
        ask(&policy, &alice, "cloud", "", "service:web"),
        Verdict::Denied(Denial::Node)
    );
    let edge = Principal::node("edge1".parse().unwrap(), Labels::default());
    assert_eq!(
        ask(&policy, &edge, "cloud", "", "service:web"),
        Verdict::Allowed { rule: 2 }
    );
    assert_eq!(
        ask(&policy, &edge, "cloud", "", "service:db"),
        Verdict::Denied(Denial::Target)
    );
}

#[test]
fn a_trusted_network_is_enough_whoever_comes_from_it() {
    let policy = policy(&[("cidr:10.0.0.0/8", "edge1", "tcp:22")]);
    let from = |ip: &str| Principal::address(ip.parse().unwrap());
    assert!(ask(&policy, &from("10.9.9.9"), "edge1", "", "port:22").is_allowed());
    assert!(ask(&policy, &from("::ffff:10.9.9.9"), "edge1", "", "port:22").is_allowed());
    assert!(!ask(&policy, &from("11.0.0.1"), "edge1", "", "port:22").is_allowed());
    let alice = Principal::user("alice".parse().unwrap(), vec![]);
    assert!(!ask(&policy, &alice, "edge1", "", "port:22").is_allowed());
    assert!(ask(&policy, &alice.at([10, 0, 0, 1].into()), "edge1", "", "port:22").is_allowed());
}

#[test]
fn an_address_is_named_by_the_subnets_of_rules_and_by_nothing_else() {
    let policy = policy(&[("cidr:10.0.0.0/8", "edge1", "tcp:22"), ("user:alice", "*", "*")]);
    for (ip, named) in [
        ("10.9.9.9", true),
        ("::ffff:10.9.9.9", true),
        ("11.0.0.1", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(policy.names_address(ip.parse().unwrap()), named, "{ip}");
    }
    assert!(!Policy::default().names_address([10, 0, 0, 1].into()));
}

#[test]
fn a_port_of_the_node_is_no_address_and_an_address_no_port_of_the_node() {
    for (pattern, yes, no) in [
        (
            "tcp:22",
            &["port:22"][..],
            &[
                "port:23",
                "udp:22",
                "tcp:127.0.0.1:22",
                "tcp:10.0.0.1:22",
                "service:ssh",
            ][..],
        ),
        (
            "udp:53-54",
            &["udp:53", "udp:54"],
            &["udp:55", "port:53", "udp:10.0.0.1:53"],
        ),
        (
            "10.42.0.0/16",
            &["tcp:10.42.3.1:80", "udp:10.42.3.1:53", "tcp:[::ffff:10.42.3.1]:80"],
            &[
                "tcp:10.43.0.1:80",
                "port:80",
                "tcp:db.lan:80",
                "service:web",
                "tcp:[2001:db8::1]:80",
            ],
        ),
        (
            "tcp:10.42.0.0/16:80-90",
            &["tcp:10.42.3.1:80", "tcp:10.42.3.1:90"],
            &["tcp:10.42.3.1:91", "udp:10.42.3.1:80"],
        ),
        (
            "tcp:[2001:db8::/32]:80",
            &["tcp:[2001:db8::1]:80"],
            &["tcp:[2001:db9::1]:80", "tcp:10.0.0.1:80"],
        ),
        ("0.0.0.0/0", &["tcp:10.0.0.1:1"], &["tcp:[2001:db8::1]:1", "port:1"]),
        ("service:db-*", &["service:db-1"], &["service:db", "port:1"]),
        (
            "*",
            &["port:1", "udp:1", "tcp:db.lan:80", "udp:10.0.0.1:1", "service:web"],
            &[],
        ),
    ] {
        let pattern: TargetPattern = pattern.parse().unwrap();
        let matches = |target: &&str| pattern.matches(&target.parse().unwrap());
        assert!(yes.iter().all(matches), "{pattern}");
        assert!(!no.iter().any(matches), "{pattern}");
    }
}

proptest! {
    #[test]
    fn the_index_agrees_with_asking_every_rule(
        rules in prop::collection::vec(a_rule(), 0..12),
        who in prop::sample::select(principals()),
        node in prop::sample::select(NODES),
        labels in prop::sample::select(LABELS),
        target in prop::sample::select(TARGETS),
    ) {
        let policy = Policy::compile(rules.clone());
        let verdict = ask(&policy, &who, node, labels, target);
        prop_assert_eq!(verdict, naive(&rules, &who, node, labels, target));
    }
}

fn naive(rules: &[Rule], who: &Principal, node: &str, labels: &str, target: &str) -> Verdict {
    let (node, labels, target) = (node.parse().unwrap(), read_labels(labels), target.parse().unwrap());
    let mut denial = Denial::Subject;
    for (place, rule) in rules.iter().enumerate() {
        if !rule.names(who) {
            continue;
        }
        denial = denial.max(Denial::Node);
        if !rule.selects(&node, &labels) {
            continue;
        }
        denial = Denial::Target;
        if rule.reaches(&target) {
            return Verdict::Allowed { rule: place };
        }
    }
    Verdict::Denied(denial)
}

const NODES: &[&str] = &["hz-1", "hz-2", "hz-1-a", "sh-1", "h", "cloud"];
const LABELS: &[&str] = &["", "site=hz", "arch=arm64,site=hz", "arch=amd64,site=sh"];
const TARGETS: &[&str] = &[
    "port:22",
    "udp:53",
    "service:web",
    "tcp:10.42.3.1:80",
    "udp:10.42.3.1:80",
    "tcp:db.lan:80",
];
const SUBJECTS: &[&str] = &[
    "user:alice",
    "user:bob",
    "group:ops",
    "group:admins",
    "cidr:10.0.0.0/8",
    "cidr:10.1.0.0/16",
    "cidr:10.1.2.3",
    "cidr:::/0",
    "node:hz-1",
    "node:hz-*",
    "node:*",
    "node:site=hz",
    "node:site=hz,arch=arm64",
];
const SELECTORS: &[&str] = &[
    "*",
    "hz-1",
    "cloud",
    "hz-*",
    "*-1",
    "h*1*",
    "c*",
    "site=hz",
    "site=hz,arch=arm64",
    "arch=amd64",
];
const PATTERNS: &[&str] = &[
    "*",
    "tcp:22",
    "tcp:20-30",
    "udp:53",
    "service:web",
    "service:w*",
    "10.42.0.0/16",
    "tcp:10.0.0.0/8:80",
    "udp:10.42.3.1",
];

fn a_rule() -> impl Strategy<Value = Rule> {
    let some = |from: &'static [&'static str]| prop::collection::vec(prop::sample::select(from), 1..4);
    (some(SUBJECTS), some(SELECTORS), some(PATTERNS)).prop_map(|(subjects, nodes, targets)| Rule {
        subjects: subjects.iter().map(|s| s.parse().unwrap()).collect(),
        nodes: nodes.iter().map(|n| n.parse().unwrap()).collect(),
        targets: targets.iter().map(|t| t.parse().unwrap()).collect(),
    })
}

fn principals() -> Vec<Principal> {
    let groups = |names: &[&str]| names.iter().map(|g| g.parse().unwrap()).collect::<Vec<_>>();
    let node = |name: &str, labels| Principal::node(name.parse().unwrap(), read_labels(labels));
    vec![
        Principal::user("alice".parse().unwrap(), groups(&[])),
        Principal::user("alice".parse().unwrap(), groups(&["ops", "admins"])).at([10, 1, 2, 3].into()),
        Principal::user("carol".parse().unwrap(), groups(&["ops"])).at("2001:db8::1".parse().unwrap()),
        Principal::address([10, 1, 9, 9].into()),
        Principal::address([192, 0, 2, 1].into()),
        node("hz-1", ""),
        node("hz-2", "site=hz"),
        node("sh-1", "arch=arm64,site=hz"),
    ]
}

fn policy(rules: &[(&str, &str, &str)]) -> Policy {
    Policy::compile(rules.iter().map(|(subject, nodes, target)| Rule {
        subjects: vec![subject.parse().unwrap()],
        nodes: vec![nodes.parse().unwrap()],
        targets: vec![target.parse().unwrap()],
    }))
}

fn ask(policy: &Policy, principal: &Principal, node: &str, labels: &str, target: &str) -> Verdict {
    policy.decide(&Ask {
        principal,
        node: &node.parse().unwrap(),
        labels: &read_labels(labels),
        target: &target.parse().unwrap(),
    })
}

fn read_labels(text: &str) -> Labels {
    Labels::parse(text.split(',').filter(|pair| !pair.is_empty())).unwrap()
}
