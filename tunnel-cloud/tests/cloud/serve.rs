use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use crate::operator::Operator;

#[test]
fn commands_reach_the_running_gateway_and_outlive_it() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    operator.run(&["users", "create", "before"]).well();
    let gateway = operator.serve();
    operator.run(&["users", "create", "during"]).well();
    operator.run(&["nodes", "label", "edge1", "site=hz"]).well();
    operator.run(&["nodes", "show", "edge9"]).failed(3, "unknown-node");
    operator.run(&["ping", "edge1"]).failed(4, "node-offline");
    operator.run(&["backup", "copy.db"]).well();
    assert!(
        operator.dir().join("copy.db").exists(),
        "a relative path is the command's, not the gateway's"
    );
    assert_eq!(gateway.stop(), Some(0));

    assert!(!operator.state().join("admin.sock").exists());
    let users = operator.run(&["users", "ls"]).well();
    assert!(users.contains("before") && users.contains("during"), "{users}");
    assert!(operator.run(&["nodes", "ls"]).well().contains("site=hz"));
}

/// R3
#[test]
fn what_a_command_was_told_is_done_survives_kill_9() {
    let operator = Operator::with_cluster();
    let gateway = operator.serve();
    operator.run(&["users", "create", "alice"]).well();
    gateway.kill();
    // The socket that it left answers nobody, so the command works on the state itself.
    assert!(operator.state().join("admin.sock").exists());
    assert!(operator.run(&["users", "ls"]).well().contains("alice"));
    let again = operator.serve();
    assert!(operator.run(&["users", "ls"]).well().contains("alice"));
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn a_second_gateway_on_the_same_state_is_refused() {
    let operator = Operator::with_cluster();
    let gateway = operator.serve();
    let started = Instant::now();
    operator.run(&["serve"]).failed(1, "state-busy");
    assert!(started.elapsed() < Duration::from_secs(1));
    operator.run(&["users", "ls"]).well();
    assert_eq!(gateway.stop(), Some(0));
}

/// R6
#[test]
fn a_taken_port_ends_within_a_second_naming_the_key() {
    let operator = Operator::with_cluster();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let text = fs::read_to_string(operator.config()).unwrap();
    let text = text.replace("metrics = \"127.0.0.1:0\"", &format!("metrics = \"{address}\""));
    fs::write(operator.config(), text).unwrap();
    let started = Instant::now();
    let line = operator.run(&["serve"]).failed(1, "listen");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(line.contains(&address) && line.contains("listen.metrics"), "{line}");
}

/// R7
#[test]
fn a_key_that_others_may_read_or_that_is_damaged_is_refused_and_kept() {
    let operator = Operator::with_cluster();
    let key = operator.state().join("keys/issuing.key");
    let content = fs::read(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let line = operator.run(&["serve"]).failed(1, "key-permissions");
    assert!(line.contains("chmod 600"), "{line}");
    operator.run(&["token", "create"]).failed(1, "key-permissions");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, &content[..content.len() / 2]).unwrap();
    operator.run(&["serve"]).failed(1, "key-corrupt");
    assert_eq!(fs::read(&key).unwrap(), content[..content.len() / 2]);
}
