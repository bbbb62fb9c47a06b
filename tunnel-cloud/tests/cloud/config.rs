use std::{
    fs,
    time::{Duration, Instant},
};

use crate::operator::Operator;

/// R6
#[test]
fn a_bad_configuration_ends_within_a_second_with_the_line_and_the_fix() {
    let operator = Operator::with_cluster();
    let good = fs::read_to_string(operator.config()).unwrap();
    let line_of = |what: &str| good.lines().position(|line| line.starts_with(what)).unwrap() + 1;
    for (from, to, code, at, says) in [
        (
            "proxy =",
            "porxy =",
            "config-unknown-key",
            line_of("proxy"),
            "did you mean \"listen.proxy\"?",
        ),
        (
            "[listen]",
            "[lisen]",
            "config-unknown-key",
            line_of("[listen]"),
            "did you mean \"listen\"?",
        ),
        (
            "metrics = \"127.0.0.1:0\"",
            "metrics = \"0.0.0.0:0\"",
            "config-invalid-value",
            line_of("metrics"),
            "use a loopback address",
        ),
        (
            "metrics = \"127.0.0.1:0\"",
            "metrics = 7090",
            "config-wrong-type",
            line_of("metrics"),
            "listen.metrics",
        ),
        (
            "[\"127.0.0.1:7000\"]",
            "[\"127.0.0.1\"]",
            "config-invalid-value",
            line_of("advertise"),
            "write HOST:PORT",
        ),
        (
            "zone = \"tunnel\"",
            "zone = \"Tunnel\"",
            "config-invalid-value",
            line_of("zone"),
            "a-z",
        ),
        (
            "zone = \"tunnel\"",
            "zone = tunnel",
            "config-syntax",
            line_of("zone"),
            "",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(operator.config(), good.replacen(from, to, 1)).unwrap();
        for command in [&["config", "check"][..], &["serve"], &["nodes", "ls"]] {
            let started = Instant::now();
            let line = operator.run(command).failed(1, code);
            assert!(
                started.elapsed() < Duration::from_secs(1),
                "{command:?} took {:?}",
                started.elapsed()
            );
            assert!(line.contains(&format!("cloud.toml:{at}:")), "{to}: {line}");
            assert!(line.contains(says), "{to}: {line}");
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let operator = Operator::new();
    let line = operator.run(&["serve"]).failed(1, "config-missing");
    assert!(line.contains("cloud.toml does not exist"), "{line}");
}

#[test]
fn show_prints_what_is_in_effect_and_reads_back() {
    let operator = Operator::with_cluster();
    let shown = operator.run(&["config", "show"]).well();
    assert!(
        shown.contains("streams_per_node = 1024") && shown.contains("admin.sock"),
        "{shown}"
    );
    let before = operator.run(&["config", "show", "-o", "json"]).json();
    assert_eq!(before["schema"], "v1");
    fs::write(operator.config(), shown).unwrap();
    assert_eq!(operator.run(&["config", "show", "-o", "json"]).json(), before);
}

#[test]
fn the_schema_knows_every_key_and_needs_no_file() {
    let operator = Operator::new();
    let schema = operator.run(&["config", "schema"]).json();
    for key in ["state", "zone", "admin", "listen", "gateway", "log", "audit", "limits"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
}
