use std::{fs, os::unix::fs::PermissionsExt, thread};

use base64::{Engine, engine::general_purpose::STANDARD};

use tunnel_identity::{JoinToken, PrivateKey};

use crate::operator::Operator;

#[test]
fn a_token_is_printed_alone_and_listed_without_its_secret() {
    let operator = Operator::with_cluster();
    let text = operator
        .run(&["token", "create", "--label", "site=hz", "--ttl", "2h", "--uses", "3"])
        .well();
    let token: JoinToken = text.strip_suffix('\n').unwrap().parse().unwrap();
    assert!(!text.trim().contains(char::is_whitespace));
    assert_eq!(token.gateways()[0].to_string(), "127.0.0.1:7000");

    let list = operator.run(&["token", "ls", "-o", "json"]).json();
    assert_eq!(list["schema"], "v1");
    assert_eq!(list["tokens"][0]["id"], token.id().to_string());
    assert_eq!(list["tokens"][0]["labels"]["site"], "hz");
    assert_eq!(list["tokens"][0]["uses_left"], 3);
    let table = operator.run(&["token", "ls"]).well();
    assert!(
        table.starts_with("ID ") && table.contains("valid") && !table.contains(text.trim()),
        "{table}"
    );

    operator.run(&["token", "revoke", &token.id().to_string()]).well();
    assert_eq!(
        operator.run(&["token", "ls", "-o", "json"]).json()["tokens"][0]["state"],
        "revoked"
    );
    operator
        .run(&["token", "revoke", "00112233445566778899aabbccddeeff"])
        .failed(1, "unknown-token");
    operator.run(&["token", "revoke", "x"]).failed(2, "bad-request");
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_is_right() {
    let operator = Operator::with_cluster();
    for (args, says) in [
        (vec!["token", "create", "--ttl", "1"], "write a whole number and a unit"),
        (vec!["token", "create", "--label", "Site=x"], "a label's key is"),
        (vec!["token", "create", "--name", "../x"], "a name is made of a-z"),
        (vec!["token", "create", "--uses", "0"], "0 is not in 1.."),
        (vec!["token", "create", "--name", "a", "--uses", "2"], "one node"),
        (vec!["nodes", "label", "a"], "required arguments"),
        (vec!["nodes", "ls", "-o", "yaml"], "possible values: table, json"),
        (vec!["node", "ls"], "nodes"),
        (vec![], "Usage"),
    ] {
        let did = operator.run(&args);
        assert_eq!(did.code, 2, "{args:?}: {did:?}");
        assert!(did.stderr.contains(says), "{args:?}: {did:?}");
        assert_eq!(did.stdout, "");
    }
}

#[test]
fn nodes_are_listed_labelled_revoked_and_removed() {
    let operator = Operator::with_cluster();
    let empty = operator.run(&["nodes", "ls", "-o", "json"]).well();
    assert_eq!(empty, "{\"schema\":\"v1\",\"nodes\":[]}\n");
    operator.join(&["edge1", "edge2"]);

    operator
        .run(&["nodes", "label", "edge1", "site=hz", "arch=arm64"])
        .well();
    operator.run(&["nodes", "label", "edge1", "arch-"]).well();
    let list = operator.run(&["nodes", "ls", "-o", "json"]).json();
    let edge1 = &list["nodes"][0];
    assert_eq!(
        (&list["schema"], &edge1["name"], &edge1["state"]),
        (&"v1".into(), &"edge1".into(), &"offline".into())
    );
    assert_eq!(edge1["labels"], serde_json::json!({"site": "hz"}));
    let shown = operator.run(&["nodes", "show", "edge1", "-o", "json"]).json();
    assert_eq!(shown["certificates"].as_array().unwrap().len(), 1);
    assert!(operator.run(&["nodes", "show", "edge1"]).well().contains("site=hz"));

    operator.run(&["nodes", "revoke", "edge1"]).well();
    assert!(operator.run(&["nodes", "ls"]).well().contains("revoked"));
    operator.run(&["nodes", "rm", "edge1"]).well();
    operator.run(&["nodes", "show", "edge1"]).failed(3, "unknown-node");
}

#[test]
fn an_unknown_node_exits_with_3_and_a_suggestion() {
    let operator = Operator::with_cluster();
    operator.join(&["hangzhou-1"]);
    for args in [["nodes", "show"], ["nodes", "rm"], ["nodes", "revoke"]] {
        let line = operator.run(&[args[0], args[1], "hangzou-1"]).failed(3, "unknown-node");
        assert!(line.contains("did you mean \"hangzhou-1\"?"), "{line}");
    }
    operator.run(&["ping", "hangzou-1"]).failed(3, "unknown-node");
    operator
        .run(&["nodes", "label", "../x", "a=b"])
        .failed(3, "unknown-node");
    let did = operator.run(&["nodes", "show", "zzz", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&did.stderr).unwrap();
    assert_eq!((did.code, &error["error"]["code"]), (3, &"unknown-node".into()));
}

#[test]
fn a_users_secret_is_printed_alone_and_once() {
    let operator = Operator::with_cluster();
    let secret = operator
        .run(&["users", "create", "alice", "--groups", "admins,ops"])
        .well();
    assert!(secret.starts_with("tu_") && secret.len() == 58, "{secret:?}");
    let users = operator.run(&["users", "ls", "-o", "json"]).json();
    assert_eq!(users["users"][1]["groups"], serde_json::json!(["admins", "ops"]));
    assert!(!users.to_string().contains(secret.trim()));
    operator.run(&["users", "create", "alice"]).failed(1, "user-exists");
    operator.run(&["users", "rm", "alice"]).well();
    operator.run(&["users", "rm", "alice"]).failed(1, "unknown-user");
}

#[test]
fn a_users_certificate_is_printed_and_its_key_stays_with_whoever_made_it() {
    let operator = Operator::with_cluster();
    operator.run(&["users", "create", "alice"]).well();
    let path = |name: &str| operator.dir().join(name).to_str().unwrap().to_owned();
    let (key, root) = (path("alice.key"), path("root.crt"));
    let made = ["users", "certificate", "alice", "--out-key", &key, "--out-root", &root];
    let chain = operator.run(&made).well();
    assert_eq!(chain.matches("-----BEGIN CERTIFICATE-----").count(), 2, "{chain}");
    assert!(!chain.contains("PRIVATE"));
    assert!(fs::read_to_string(&root).unwrap().contains("BEGIN CERTIFICATE"));
    let text = fs::read_to_string(&key).unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    operator.run(&made).failed(1, "certificate-file");

    let request = PrivateKey::from_pem(&text).unwrap().certificate_request().unwrap();
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned()
        + &STANDARD.encode(&request)
        + "\n-----END CERTIFICATE REQUEST-----\n";
    let (csr, bad) = (path("alice.csr"), path("bad.csr"));
    fs::write(&csr, pem).unwrap();
    fs::write(&bad, "no request").unwrap();
    let wanted = [
        "users",
        "certificate",
        "alice",
        "--csr",
        &csr,
        "--ttl",
        "1h",
        "-o",
        "json",
    ];
    let issued = operator.run(&wanted).json();
    assert_eq!(issued["user"], "alice");
    for (args, exit, code) in [
        (["alice", "--csr", &bad], 2, "certificate-request"),
        (["alice", "--csr", "/nonexistent"], 1, "certificate-file"),
        (["bob", "--csr", &csr], 1, "unknown-user"),
    ] {
        operator
            .run(&[&["users", "certificate"], &args[..]].concat())
            .failed(exit, code);
    }
}

#[test]
fn what_needs_a_running_gateway_says_so() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    operator.run(&["status"]).failed(1, "gateway-not-running");
    operator.run(&["ping", "edge1"]).failed(1, "gateway-not-running");
}

#[test]
fn commands_at_the_same_time_take_turns() {
    let operator = Operator::with_cluster();
    thread::scope(|scope| {
        for n in 0..8 {
            let operator = &operator;
            scope.spawn(move || operator.run(&["users", "create", &format!("user{n}")]).well());
        }
    });
    assert_eq!(
        operator.run(&["users", "ls", "-o", "json"]).json()["users"]
            .as_array()
            .unwrap()
            .len(),
        9
    );
}

#[test]
fn a_backup_is_a_store_and_never_replaces_a_file() {
    let operator = Operator::with_cluster();
    operator.join(&["edge1"]);
    operator.run(&["backup", "copy.db"]).well();
    operator.run(&["backup", "copy.db"]).failed(1, "store-exists");
    operator.run(&["nodes", "rm", "edge1"]).well();

    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(operator.state().join(format!("store.db{ending}")));
    }
    fs::copy(operator.dir().join("copy.db"), operator.state().join("store.db")).unwrap();
    assert_eq!(
        operator.run(&["nodes", "ls", "-o", "json"]).json()["nodes"][0]["name"],
        "edge1"
    );
}

#[test]
fn a_damaged_missing_or_newer_store_is_one_clear_error() {
    let operator = Operator::with_cluster();
    let store = operator.state().join("store.db");
    fs::write(&store, "something else").unwrap();
    operator.run(&["nodes", "ls"]).failed(1, "store-corrupt");
    fs::remove_file(&store).unwrap();
    operator.run(&["nodes", "ls"]).failed(1, "store-missing");
    fs::remove_dir_all(operator.state()).unwrap();
    operator.run(&["nodes", "ls"]).failed(1, "state-missing");
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let operator = Operator::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            operator.run(&["completions", shell]).well().contains("nodes"),
            "{shell}"
        );
    }
    operator.run(&["man", "."]).well();
    for page in [
        "tunnel-cloud",
        "tunnel-cloud-init",
        "tunnel-cloud-token-create",
        "tunnel-cloud-nodes-label",
    ] {
        assert!(operator.dir().join(format!("{page}.1")).exists(), "{page}");
    }
}
