use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    process::{Child, Command},
};

use crate::gateway::{Gateway, soon};

/// R6: bad configuration ends the program at once, naming line and fix.
#[tokio::test]
async fn r6_a_misspelt_key_is_named_with_its_line_and_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("edge.toml");
    fs::write(&config, "state = \"s\"\n[gateway]\nadresses = [\"gw:7443\"]\n").unwrap();
    let start = Instant::now();
    for command in [&["run"][..], &["config", "check"], &["status"]] {
        let ended = run(&config, command).await;
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.starts_with("error[config-unknown-key]"), "{ended:?}");
        assert!(
            ended.stderr.contains("edge.toml:3:1") && ended.stderr.contains("addresses"),
            "{ended:?}"
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_exits_with_2() {
    for arguments in [&["fly"][..], &["wait", "--timeout", "soon"], &["join"], &[]] {
        assert_eq!(run(Path::new("/nonexistent"), arguments).await.code, 2, "{arguments:?}");
    }
}

#[tokio::test]
async fn the_configuration_is_shown_with_its_defaults_and_described() {
    let gateway = Gateway::new();
    let config = gateway.config_file(Path::new("/s"), "");
    let shown = run(&config, &["config", "show", "-o", "json"]).await.json();
    assert_eq!(shown["schema"], "v1");
    assert_eq!(shown["service"][0]["name"], "ssh");
    let schema = run(&config, &["config", "schema"]).await.json();
    assert!(schema["properties"]["allow"].is_object(), "{schema}");
    let script = run(&config, &["completions", "bash"]).await;
    assert!(script.stdout.contains("tunnel-edge"), "{script:?}");
}

/// R7: a key that others may read, or that is damaged, is refused and left as it is.
#[tokio::test]
async fn r7_a_bad_key_is_refused_and_never_replaced() {
    let gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let config = gateway.config_file(state.path(), "");
    let key = state.path().join("node.key");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = run(&config, &["run"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("error[key-permissions]") && ended.stderr.contains("chmod 600"),
        "{ended:?}"
    );

    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    let before = fs::read(&key).unwrap();
    for command in [
        &["run"][..],
        &["check"],
        &["join", &gateway.token, "--state", state.path().to_str().unwrap()],
    ] {
        let ended = run(&config, command).await;
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains("error[key-corrupt]"), "{ended:?}");
    }
    assert_eq!(fs::read(&key).unwrap(), before);
    assert_eq!((gateway.connections(), gateway.questions()), (0, 0));
}

#[tokio::test]
async fn an_edge_that_has_not_joined_is_told_to() {
    let gateway = Gateway::new();
    let state = tempfile::tempdir().unwrap();
    let ended = run(&gateway.config_file(state.path(), ""), &["run"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("error[not-enrolled]") && ended.stderr.contains("tunnel-edge join"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_bad_token_is_refused_for_what_is_wrong_with_it() {
    let gateway = Gateway::new();
    let token = &gateway.token;
    let cut = &token[..token.len() - 3];
    let other = if &token[30..31] == "A" { "B" } else { "A" };
    let mistyped = format!("{}{other}{}", &token[..30], &token[31..]);
    for (token, code) in [
        ("letmein", "token-not-one"),
        ("tj2.AAAA", "token-newer"),
        (cut, "token-cut"),
        (&mistyped, "token-mistyped"),
        (&format!("{token}AAAA"), "token-too-long"),
        (&format!("{}?{}", &token[..20], &token[21..]), "token-bad-character"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("edge.toml");
        let ended = run(&config, &["join", token, "--state", dir.path().to_str().unwrap()]).await;
        assert_eq!(ended.code, 2, "{code}: {ended:?}");
        assert!(ended.stderr.starts_with(&format!("error[{code}]")), "{code}: {ended:?}");
        assert!(!config.exists());
    }
    assert_eq!(gateway.connections(), 0);
}

#[tokio::test]
async fn a_running_agent_answers_its_operator() {
    let gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = format!(
        "[[service]]\nname = \"web\"\ntarget = \"{}\"\n",
        target.local_addr().unwrap()
    );
    let config = gateway.config_file(state.path(), &service);

    let nobody = run(&config, &["status"]).await;
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.stderr.contains("error[admin-no-socket]"), "{nobody:?}");

    let agent = start(&config, &["run"]);
    let waited = run(&config, &["wait", "--timeout", "20s", "-o", "json"]).await;
    assert_eq!(waited.json()["state"], "connected");
    let status = run(&config, &["status", "-o", "json"]).await.json();
    assert_eq!(
        (&status["name"], &status["services"][0]["name"]),
        (&"edge1".into(), &"web".into())
    );
    assert!(status["link"]["rtt_ms"].as_f64().unwrap() > 0.0, "{status}");

    let checked = run(&config, &["check", "-o", "json"]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    assert_eq!(
        names(&checked.json()),
        ["resolve", "connect", "pin", "session", "echo", "service web"]
    );
    drop(target);
    let checked = run(&config, &["check", "-o", "json"]).await;
    assert_eq!(checked.code, 7, "{checked:?}");
    assert_eq!(checked.json()["stages"][5]["ok"], false);

    let second = run(&config, &["run"]).await;
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("error[admin-in-use]"), "{second:?}");

    let pid = Pid::from_raw(agent.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = soon("the end", agent.wait_with_output()).await.unwrap();
    assert!(ended.status.success());
    assert!(!state.path().join("agent.sock").exists());
    let log = String::from_utf8(ended.stderr).unwrap();
    let connected = log
        .lines()
        .filter(|line| line.contains("connected") || line.contains("check"));
    assert_eq!(connected.count(), 2, "a change of state is one line: {log}");
}

#[tokio::test]
async fn without_an_agent_a_check_opens_a_session_of_its_own() {
    let gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let config = gateway.config_file(state.path(), "");
    let checked = run(&config, &["check", "-o", "json"]).await.json();
    assert_eq!(&names(&checked)[..5], ["resolve", "connect", "pin", "session", "echo"]);
    assert!(
        checked["stages"].as_array().unwrap()[..5]
            .iter()
            .all(|stage| stage["ok"] == true),
        "{checked}"
    );
}

/// A gateway of another cluster at the address is a finding, by name.
#[tokio::test]
async fn a_check_tells_a_strange_gateway_from_one_that_is_silent() {
    let (ours, other) = (Gateway::new(), Gateway::new());
    let state = ours.enrolled(Duration::ZERO);
    let config = other.config_file(state.path(), "");
    let checked = run(&config, &["check", "-o", "json"]).await;
    assert_eq!(checked.code, 7, "{checked:?}");
    let checked = checked.json();
    assert_eq!(&names(&checked)[..3], ["resolve", "connect", "pin"]);
    assert_eq!(
        (&checked["stages"][1]["ok"], &checked["stages"][2]["ok"]),
        (&true.into(), &false.into())
    );
}

#[tokio::test]
async fn waiting_in_vain_ends_with_6() {
    let gateway = Gateway::new();
    let state = tempfile::tempdir().unwrap();
    let ended = run(&gateway.config_file(state.path(), ""), &["wait", "--timeout", "1s"]).await;
    assert_eq!(ended.code, 6, "{ended:?}");
    assert!(ended.stderr.contains("error[wait-timeout]"), "{ended:?}");
}

/// R6: a port that is taken.
#[tokio::test]
async fn r6_a_port_that_is_taken_is_told_with_what_to_set() {
    let gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = format!("[listen]\nmetrics = \"{}\"\n", taken.local_addr().unwrap());
    let ended = run(&gateway.config_file(state.path(), &listen), &["run"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("error[listen-bind]") && ended.stderr.contains("listen.metrics"),
        "{ended:?}"
    );
}

fn names(checked: &Value) -> Vec<&str> {
    let stages = checked["stages"].as_array().unwrap();
    stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect()
}

/// How the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) async fn run(config: &Path, arguments: &[&str]) -> Ended {
    run_with_input(config, arguments, "").await
}

pub(crate) async fn run_with_input(config: &Path, arguments: &[&str], input: &str) -> Ended {
    let mut child = start(config, arguments);
    // One that ended without reading needs no input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = soon("the program's end", child.wait_with_output()).await.unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn start(config: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tunnel-edge"))
        .args(arguments)
        .args(if arguments.is_empty() { None } else { Some("--config") })
        .args(if arguments.is_empty() { None } else { Some(config) })
        .env_remove("NOTIFY_SOCKET")
        .env_remove("TUNNEL_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
