use std::{fs, os::unix::fs::PermissionsExt};

use crate::operator::Operator;

#[test]
fn init_says_where_the_admin_credential_is_and_what_to_do_next() {
    let operator = Operator::new();
    let did = operator.init();
    assert!(did.stderr.contains("tunnel-cloud serve --config"), "{did:?}");
    let path = did.well().trim().to_owned();
    assert_eq!(path, operator.state().join("admin.secret").to_str().unwrap());
    let secret = fs::read_to_string(&path).unwrap();
    assert!(secret.starts_with("tu_"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let users = operator.run(&["users", "ls", "-o", "json"]).json();
    assert_eq!(users["users"][0]["name"], "admin");
    assert_eq!(users["users"][0]["groups"][0], "admins");
    operator.run(&["config", "check"]).well();
}

#[test]
fn init_never_overwrites() {
    let operator = Operator::new();
    operator.init().well();
    let before = (
        fs::read(operator.config()).unwrap(),
        fs::read(operator.state().join("admin.secret")).unwrap(),
    );
    operator.init().failed(1, "config-exists");
    fs::rename(operator.config(), operator.dir().join("moved.toml")).unwrap();
    operator.init().failed(1, "state-exists");
    fs::rename(operator.dir().join("moved.toml"), operator.config()).unwrap();
    let after = (
        fs::read(operator.config()).unwrap(),
        fs::read(operator.state().join("admin.secret")).unwrap(),
    );
    assert_eq!(before, after);
}

#[test]
fn a_failed_init_leaves_nothing_behind_and_can_be_repeated() {
    let operator = Operator::new();
    let nowhere = operator.dir().join("missing/cloud.toml");
    let state = operator.state();
    let mut command = operator.command(&["init", "--public", "127.0.0.1:7000", "--config"]);
    operator
        .run_os(command.arg(nowhere).arg("--state").arg(&state))
        .failed(1, "init-write");
    let left: Vec<_> = fs::read_dir(operator.dir()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    operator.init().well();
}

#[test]
fn a_public_address_without_a_port_is_a_usage_error() {
    let operator = Operator::new();
    let did = operator.run(&["init", "--state", "s", "--public", "gw.example.com"]);
    assert_eq!(did.code, 2, "{did:?}");
    assert!(did.stderr.contains("has no port; write HOST:PORT"), "{did:?}");
}
