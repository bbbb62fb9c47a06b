use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use crate::operator::Operator;

#[test]
fn policy_test_names_the_rule_that_allows_or_what_the_nearest_lack() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1", "edge2"]);
    operator.run(&["nodes", "label", "edge1", "site=hz"]).well();
    operator.run(&["users", "create", "alice", "--groups", "ops"]).well();
    add_rules(
        &operator,
        "[[rule]]\nsubjects = [\"group:ops\", \"cidr:10.0.0.0/8\"]\nnodes = \"site=hz\"\ntargets = [\"service:web\"]\n",
    );
    let ask_all = || {
        let test = |subject: &str, what: &str| operator.run(&["policy", "test", subject, what]);
        for subject in ["user:alice", "group:ops", "cidr:10.9.9.9"] {
            assert_eq!(
                test(subject, "edge1:service:web").well(),
                "allowed by rule 1: group:ops, cidr:10.0.0.0/8 -> site=hz: service:web\n"
            );
        }
        assert!(test("user:admin", "edge2:22").well().starts_with("allowed by rule 0: "));
        for (subject, what, lacks) in [
            (
                "user:alice",
                "edge2:service:web",
                "no rule for the subject selects the node",
            ),
            (
                "user:alice",
                "edge1:22",
                "no rule for the subject and the node names the target",
            ),
            ("cidr:192.0.2.1", "edge1:service:web", "no rule names the subject"),
            ("node:edge2", "edge1:service:web", "no rule names the subject"),
        ] {
            let line = test(subject, what).failed(5, "denied");
            assert!(line.contains(lacks), "{line}");
        }
        test("user:nobody", "edge1:22").failed(1, "unknown-user");
        for (subject, what) in [
            ("alice", "edge1:22"),
            ("cidr:10.0.0.0/8", "edge1:22"),
            ("node:hz-*", "edge1:22"),
            ("user:alice", "edge1"),
        ] {
            test(subject, what).failed(2, "bad-request");
        }
        let decision = operator
            .run(&["policy", "test", "group:ops", "edge1:service:web", "-o", "json"])
            .json();
        assert_eq!(
            (&decision["allowed"], &decision["rule"]["index"]),
            (&true.into(), &1.into())
        );
    };
    ask_all();
    let gateway = operator.serve();
    ask_all();
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn reload_applies_what_it_can_and_says_what_waits_for_a_restart() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    operator.run(&["reload"]).failed(1, "gateway-not-running");
    let gateway = operator.serve();
    let test = || operator.run(&["policy", "test", "group:ops", "edge1:22"]);
    test().failed(5, "denied");
    let good = fs::read_to_string(operator.config()).unwrap();
    add_rules(
        &operator,
        "[[rule]]\nsubjects = [\"group:ops\"]\nnodes = \"*\"\ntargets = [\"tcp:22\"]\n",
    );
    test().failed(5, "denied");
    let reloaded = operator.run(&["reload", "-o", "json"]).json();
    assert_eq!(reloaded["applied"], serde_json::json!(["rule"]));
    assert_eq!(reloaded["needs_restart"], serde_json::json!([]));
    test().well();

    // The file is refused whole, and the rules stay.
    fs::write(operator.config(), good.replace("[[rule]]", "[[rules]]")).unwrap();
    let line = operator.run(&["reload"]).failed(1, "config-unknown-key");
    assert!(line.contains("did you mean \"rule\"?"), "{line}");
    fs::write(
        operator.config(),
        good.replace("zone = \"tunnel\"", "zone = \"t\"\nlog.level = \"debug\""),
    )
    .unwrap();
    let table = operator.run(&["reload"]).well();
    assert!(
        table.contains("needs a restart") && table.contains("log.level"),
        "{table}"
    );
    test().failed(5, "denied");
    assert_eq!(gateway.stop(), Some(0));
}

/// T4
#[test]
fn an_address_needs_no_credential_where_a_rule_names_it_and_gets_what_the_rule_names() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    let gateway = operator.serve();
    let proxy = operator.run(&["status", "-o", "json"]).json()["listen"]["proxy"].clone();
    let connect = |target: &str| {
        let mut socket = TcpStream::connect(proxy.as_str().unwrap()).unwrap();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!(connect("edge1:22"), "407");
    let good = fs::read_to_string(operator.config()).unwrap();
    add_rules(
        &operator,
        "[[rule]]\nsubjects = [\"cidr:127.0.0.0/8\"]\nnodes = \"edge1\"\ntargets = [\"tcp:22\"]\n",
    );
    operator.run(&["reload"]).well();
    assert_eq!(connect("edge1:22"), "503", "it may, and the node is offline");
    for beside in ["edge1:23", "ssh.edge1:22", "edge2:22", "127.0.0.1.via.edge1:22"] {
        assert_eq!(connect(beside), "403", "{beside}");
    }
    fs::write(operator.config(), good).unwrap();
    operator.run(&["reload"]).well();
    assert_eq!(connect("edge1:22"), "407");
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_gateway_without_a_rule_says_that_nobody_reaches_anything() {
    let operator = Operator::with_cluster();
    let text = fs::read_to_string(operator.config()).unwrap();
    fs::write(operator.config(), text.split("[[rule]]").next().unwrap()).unwrap();
    let gateway = operator.serve();
    operator
        .run(&["policy", "test", "group:admins", "a:1"])
        .failed(5, "denied");
    assert_eq!(gateway.stop(), Some(0));
    let log = fs::read_to_string(operator.dir().join("gateway.log")).unwrap();
    assert!(log.contains("nobody reaches anything"), "{log}");
}

#[test]
fn streams_are_asked_of_a_running_gateway_only() {
    let operator = Operator::with_cluster();
    operator.run(&["streams", "ls"]).failed(1, "gateway-not-running");
    operator
        .run(&["explain", "a:1", "--as", "user:admin"])
        .failed(1, "gateway-not-running");
    let gateway = operator.serve();
    assert_eq!(
        operator.run(&["streams", "ls", "-o", "json"]).json()["streams"],
        serde_json::json!([])
    );
    assert_eq!(
        operator.run(&["streams", "kill", "--node", "a", "-o", "json"]).json()["streams"],
        0
    );
    operator.run(&["streams", "kill", "7"]).failed(1, "unknown-stream");
    assert_eq!(operator.run(&["streams", "kill"]).code, 2);
    assert_eq!(operator.run(&["top", "-o", "json"]).json()["streams"], 0);
    let explained = operator.run(&["explain", "nowhere:22", "--as", "user:admin"]);
    assert_eq!(explained.code, 3);
    assert!(
        explained
            .stderr
            .starts_with("error[unknown-node]: hop \"name\" says no"),
        "{explained:?}"
    );
    assert_eq!(gateway.stop(), Some(0));
}

fn add_rules(operator: &Operator, rules: &str) {
    let text = fs::read_to_string(operator.config()).unwrap();
    fs::write(operator.config(), text + "\n" + rules).unwrap();
}
