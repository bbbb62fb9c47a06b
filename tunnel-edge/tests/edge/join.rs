use std::{fs, path::Path, time::Duration};

use tunnel_edge::join::{Plan, Stage, join};
use tunnel_identity::{JoinToken, NodeFiles};

use crate::{
    gateway::Gateway,
    program::{Ended, run, run_with_input},
};

const STAGES: [&str; 6] = ["resolve", "connect", "pin", "clock", "enrol", "echo"];

#[tokio::test]
async fn joining_prints_each_stage_and_ends_after_an_answer_through_the_tunnel() {
    let gateway = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("etc/edge.toml"), dir.path().join("state"));
    let ended = join_with(&config, &state, &gateway.token, &["--name", "edge7"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<_> = ended.stderr.lines().collect();
    for (line, stage) in lines.iter().zip(STAGES) {
        assert!(line.starts_with(stage) && line.contains(" ok "), "{ended:?}");
    }
    assert!(lines[6].starts_with("edge7 has joined"), "{ended:?}");

    // What it wrote is what the agent runs on.
    let shown = run(&config, &["config", "check"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(
        fs::read_to_string(&config)
            .unwrap()
            .contains(&gateway.address.to_string())
    );
}

#[tokio::test]
async fn a_token_can_come_on_stdin() {
    let gateway = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("edge.toml"), dir.path().join("state"));
    let arguments = ["join", "-", "--state", state.to_str().unwrap()];
    let ended = run_with_input(&config, &arguments, &format!("{}\n", gateway.token)).await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[tokio::test]
async fn an_identity_is_never_overwritten_and_its_token_never_spent() {
    let gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let before = fs::read(state.path().join("node.key")).unwrap();
    let config = state.path().join("edge.toml");
    let ended = join_with(&config, state.path(), &gateway.token, &[]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.starts_with("error[join-exists]"), "{ended:?}");
    assert_eq!(fs::read(state.path().join("node.key")).unwrap(), before);
    assert_eq!(gateway.connections(), 0);
    assert!(!config.exists());
}

#[tokio::test]
async fn a_configuration_of_something_else_is_never_overwritten() {
    let gateway = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let config = gateway.config_file(Path::new("/elsewhere"), "");
    let before = fs::read(&config).unwrap();
    let ended = join_with(&config, dir.path(), &gateway.token, &[]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.starts_with("error[join-config-exists]"), "{ended:?}");
    assert_eq!((fs::read(&config).unwrap(), gateway.connections()), (before, 0));
}

/// T6: wrong CA, and not one byte of the token is on the wire.
#[tokio::test]
async fn t6_a_gateway_without_the_pinned_root_hears_no_question() {
    let (ours, other) = (Gateway::new(), Gateway::new());
    // The token of the one, with the address of the other: somebody sits in the middle.
    let token: JoinToken = ours.token.parse().unwrap();
    let forged = JoinToken::generate(token.pin(), vec![other.address.clone()], &mut rand::rng()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("edge.toml");
    let ended = join_with(&config, &dir.path().join("state"), &forged.to_string(), &[]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(lines[1].starts_with("connect") && lines[1].contains("ok"), "{ended:?}");
    assert!(lines[2].starts_with("pin") && lines[2].contains("failed"), "{ended:?}");
    assert!(lines[3].starts_with("error[join-pin]"), "{ended:?}");
    assert_eq!(other.questions(), 0);
    assert!(!config.exists());
}

#[tokio::test]
async fn a_spent_token_is_refused_and_leaves_nothing_that_looks_like_a_node() {
    let gateway = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    let ended = join_with(&first.join("edge.toml"), &first, &gateway.token, &[]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = join_with(&second.join("edge.toml"), &second, &gateway.token, &[]).await;
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.stderr.contains("error[token-refused]"), "{ended:?}");
    assert!(!second.join("edge.toml").exists());
    assert!(NodeFiles::open(&second).unwrap().node().load().unwrap().is_none());
}

#[tokio::test]
async fn without_an_echo_the_node_is_enrolled_and_told_how_to_go_on() {
    let gateway = Gateway::new();
    // It certifies, and lets nobody in.
    gateway.revoke_all();
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("edge.toml"), dir.path().join("state"));
    let ended = join_with(&config, &state, &gateway.token, &[]).await;
    assert_eq!(ended.code, 5, "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("error[join-echo]"), "{ended:?}");
    let way_on = format!(
        "the node is enrolled; run it with `tunnel-edge run --config {}`",
        config.display()
    );
    assert!(last.contains(&way_on), "{ended:?}");
    assert!(config.exists() && NodeFiles::open(&state).unwrap().node().load().unwrap().is_some());
}

#[tokio::test]
async fn a_gateway_whose_name_does_not_resolve_is_told_as_such() {
    let token: JoinToken = Gateway::new().token.parse().unwrap();
    let nowhere = vec!["no-such-host.invalid:7443".parse().unwrap()];
    let token = JoinToken::generate(token.pin(), nowhere, &mut rand::rng()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ended = join_with(&dir.path().join("edge.toml"), dir.path(), &token.to_string(), &[]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("error[join-resolve]"), "{ended:?}");
}

#[tokio::test]
async fn without_a_name_the_tokens_comes_before_the_machines() {
    let gateway = Gateway::with_token_name(Some("kiosk-12"));
    let dir = tempfile::tempdir().unwrap();
    let mut stages: Vec<Stage> = Vec::new();
    let plan = Plan {
        token: gateway.token.parse().unwrap(),
        config: dir.path().join("edge.toml"),
        state: dir.path().join("state"),
        name: None,
    };
    let joined = join(&plan, |stage| stages.push(stage)).await.unwrap();
    assert_eq!(joined.name, "kiosk-12");
    let names: Vec<_> = stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, STAGES);
}

#[tokio::test]
async fn a_name_that_the_token_does_not_allow_is_refused() {
    let gateway = Gateway::with_token_name(Some("kiosk-12"));
    let dir = tempfile::tempdir().unwrap();
    let ended = join_with(
        &dir.path().join("edge.toml"),
        dir.path(),
        &gateway.token,
        &["--name", "kiosk-13"],
    )
    .await;
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.stderr.contains("error[name-refused]"), "{ended:?}");
}

/// B13
#[tokio::test]
async fn b13_a_name_that_is_none_is_refused_at_the_door() {
    let gateway = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    for name in ["../x", "%2e%2e", "Edge", "", &"a".repeat(64)] {
        let ended = join_with(
            &dir.path().join("edge.toml"),
            dir.path(),
            &gateway.token,
            &["--name", name],
        )
        .await;
        assert_eq!(ended.code, 2, "{name}: {ended:?}");
    }
    assert_eq!(gateway.connections(), 0);
}

async fn join_with(config: &Path, state: &Path, token: &str, rest: &[&str]) -> Ended {
    let arguments = ["join", token, "--state", state.to_str().unwrap()];
    run(config, &[&arguments, rest].concat()).await
}
