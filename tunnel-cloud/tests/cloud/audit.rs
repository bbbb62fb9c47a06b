use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde_json::Value;

use crate::operator::Operator;

#[test]
fn what_administrators_do_is_on_record_with_who_and_without_secrets() {
    let operator = Operator::with_cluster();
    let absent = operator.run(&["token", "create", "--label", "site=hz"]).well();
    let gateway = operator.serve();
    let secret = operator.run(&["users", "create", "alice", "--groups", "ops"]).well();
    operator.run(&["users", "create", "alice"]).failed(1, "user-exists");
    operator.run(&["users", "rm", "alice"]).well();
    operator.run(&["nodes", "revoke", "edge9"]).failed(3, "unknown-node");
    operator.run(&["nodes", "ls"]).well();
    assert_eq!(gateway.stop(), Some(0));

    let records = records(&operator);
    let what: Vec<_> = records
        .iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or("-").to_owned();
            [text("event"), text("act"), text("object"), text("result")].join(" ")
        })
        .collect();
    let token = records[0]["object"].as_str().unwrap();
    assert_eq!(
        what,
        [
            &format!("admin token-create {token} ok"),
            "gateway-started - - -",
            "admin user-create alice ok",
            "admin user-create alice user-exists",
            "admin user-remove alice ok",
            "admin node-revoke edge9 unknown-node",
            "gateway-stopped - - -",
        ]
    );
    assert_eq!(records[0]["detail"]["labels"]["site"], "hz");
    let uid = u64::from(std::os::unix::fs::MetadataExt::uid(
        &fs::metadata("/proc/self").unwrap(),
    ));
    assert!(
        records
            .iter()
            .filter(|r| r["event"] == "admin")
            .all(|r| r["uid"] == uid)
    );
    assert!(records[2]["pid"].is_u64());
    let log = fs::read_to_string(&files(&operator)[0]).unwrap();
    assert!(!log.contains(secret.trim()) && !log.contains(absent.trim()));

    let table = operator.run(&["audit", "tail", "-n", "2"]).well();
    assert!(
        table.starts_with("TIME ") && table.contains("node-revoke edge9"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3);
}

#[test]
fn verify_prints_the_head_and_finds_what_was_done_to_the_log() {
    let operator = Operator::with_cluster();
    for name in ["alice", "bob", "carol"] {
        operator.run(&["users", "create", name]).well();
    }
    let good = operator.run(&["audit", "verify"]).well();
    let head = good.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(good.starts_with("3 records, 1 to 3; head "), "{good}");
    let report = operator.run(&["audit", "verify", "-o", "json"]).json();
    assert_eq!(
        (&report["head"], &report["schema"]),
        (&head.clone().into(), &"v1".into())
    );
    operator.run(&["users", "rm", "carol"]).well();
    operator.run(&["audit", "verify", "--expect", &head]).well();

    let path = files(&operator).remove(0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("bob", "rob", 1)).unwrap();
    let did = operator.run(&["audit", "verify"]);
    assert_eq!(did.code, 7, "{did:?}");
    assert!(
        did.stdout
            .contains(&format!("{}:3: this record does not follow", path.display())),
        "{did:?}"
    );
    assert!(did.stderr.starts_with("error[audit-findings]: "), "{did:?}");

    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(&path, cut).unwrap();
    operator.run(&["audit", "verify", path.to_str().unwrap()]).well();
    assert_eq!(operator.run(&["audit", "verify", "--expect", &head]).code, 7);
    operator.run(&["audit", "verify", "nowhere"]).failed(1, "audit-read");
    assert_eq!(operator.run(&["audit", "verify", "--expect", "x"]).code, 2);
}

#[test]
fn a_follower_sees_what_comes() {
    let operator = Operator::with_cluster();
    operator.run(&["users", "create", "alice"]).well();
    let mut child = operator
        .command(&["audit", "tail", "-f", "-n", "1", "-o", "json", "--config"])
        .arg(operator.config())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["object"], "alice");
    operator.run(&["users", "create", "bob"]).well();
    assert_eq!(next()["object"], "bob");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// R3
#[test]
fn kill_9_loses_no_record_of_what_was_answered_and_the_chain_goes_on() {
    let operator = Operator::with_cluster();
    let secret = fs::read_to_string(operator.state().join("admin.secret")).unwrap();
    let answered = AtomicUsize::new(0);
    for round in 0..4 {
        let gateway = operator.serve();
        let status = operator.run(&["status", "-o", "json"]).json();
        let proxy = status["listen"]["proxy"].as_str().unwrap().to_owned();
        thread::scope(|scope| {
            let (said, heard) = std::sync::mpsc::sync_channel(1000);
            for _ in 0..3 {
                let (said, proxy, secret, answered) = (said.clone(), &proxy, secret.trim(), &answered);
                scope.spawn(move || {
                    // Fewer than are recorded one by one.
                    for _ in 0..300 {
                        match refused_dial(proxy, secret) {
                            Some(404) => answered.fetch_add(1, Ordering::SeqCst),
                            Some(status) => panic!("unexpected answer {status}"),
                            None => break,
                        };
                        let _ = said.send(());
                    }
                });
            }
            drop(said);
            heard.iter().take(20 + 30 * round).for_each(drop);
            gateway.kill();
        });
        assert_eq!(operator.run(&["audit", "verify"]).code, 0);
    }
    let records = records(&operator);
    let recorded = records
        .iter()
        .filter(|record| record["event"] == "dial-refused")
        .count();
    assert!(
        recorded >= answered.load(Ordering::SeqCst),
        "{recorded} of {answered:?}"
    );
    assert!(records.iter().enumerate().all(|(at, record)| record["seq"] == at + 1));
    let refused = records.iter().find(|record| record["event"] == "dial-refused").unwrap();
    assert_eq!(
        (
            &refused["principal"],
            &refused["node"],
            &refused["target"],
            &refused["reason"]
        ),
        (
            &"user:admin".into(),
            &"edge9".into(),
            &"port:22".into(),
            &"unknown-node".into()
        )
    );
}

#[test]
fn wrong_credentials_are_on_record_and_challenges_are_not() {
    let operator = Operator::with_cluster();
    let gateway = operator.serve();
    let status = operator.run(&["status", "-o", "json"]).json();
    let proxy = status["listen"]["proxy"].as_str().unwrap();
    assert_eq!(refused_dial(proxy, "tu_wrong"), Some(407));
    assert_eq!(gateway.stop(), Some(0));
    let records = records(&operator);
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    // The gateway's own look at its door shows no credential.
    assert_eq!(events, ["gateway-started", "authentication-refused", "gateway-stopped"]);
    assert!(!records[1].to_string().contains("tu_wrong"));
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_names_the_key() {
    let operator = Operator::with_cluster();
    fs::write(operator.state().join("audit"), "a file").unwrap();
    let line = operator.run(&["serve"]).failed(1, "audit-open");
    assert!(line.contains("audit.path"), "{line}");
}

/// Asks for a node that nobody has heard of; the status of the answer, unless there was none.
fn refused_dial(proxy: &str, secret: &str) -> Option<u16> {
    let mut socket = TcpStream::connect(proxy).ok()?;
    let request = format!(
        "CONNECT edge9.tunnel:22 HTTP/1.1\r\nHost: edge9.tunnel:22\r\nProxy-Authorization: Bearer {secret}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).ok()?;
    str::from_utf8(&answer).unwrap().strip_prefix("HTTP/1.1 ")?.parse().ok()
}

fn files(operator: &Operator) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(operator.state().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn records(operator: &Operator) -> Vec<Value> {
    let text = operator.run(&["audit", "tail", "-n", "100000", "-o", "json"]).well();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
