//! The store as its users see it. What a test prints is what its child process says, or why it skips.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use tunnel_identity::TokenKey;
use tunnel_model::{LossCause, NodeState, Reason};

use super::*;
use crate::store::{KEPT_LOSSES, TokenFault};

/// B11
#[tokio::test]
async fn of_a_thousand_joins_with_a_single_use_token_exactly_one_wins() {
    let (_dir, path) = place();
    let store = Arc::new(SqliteStore::create(&path).await.unwrap());
    store.add_token(token(1)).await.unwrap();
    let joins: Vec<_> = (0..1000)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.enrol(enrolment(1, n)).await })
        })
        .collect();
    let mut won = 0;
    for join in joins {
        match join.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, EnrolError::Token(TokenFault::Spent)),
        }
    }
    assert_eq!(won, 1);
    let nodes = store.nodes().await.unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(store.certificates(nodes[0].record.id).await.unwrap().len(), 1);
}

/// B12: each has its own cause here; the peer hears one.
#[tokio::test]
async fn a_token_that_is_unknown_expired_spent_or_revoked_lets_nobody_join() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    let fault = |result: Result<Node, EnrolError>| match result {
        Err(EnrolError::Token(fault)) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(store.enrol(enrolment(9, 1)).await), TokenFault::Unknown);

    store
        .add_token(Token {
            uses_left: 0,
            ..token(1)
        })
        .await
        .unwrap();
    assert_eq!(fault(store.enrol(enrolment(1, 1)).await), TokenFault::Spent);

    store
        .add_token(Token {
            expires_at: NOW - 1,
            ..token(2)
        })
        .await
        .unwrap();
    assert_eq!(fault(store.enrol(enrolment(2, 1)).await), TokenFault::Expired);

    store.add_token(token(3)).await.unwrap();
    assert!(store.revoke_token(token(3).id, NOW).await.unwrap());
    assert_eq!(fault(store.enrol(enrolment(3, 1)).await), TokenFault::Revoked);
    assert_eq!(store.token(token(3).id).await.unwrap().unwrap().grant().uses_left, 0);
    assert!(!store.revoke_token(token(4).id, NOW).await.unwrap());
}

#[tokio::test]
async fn a_refused_join_leaves_the_token_as_it_was() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    let fixed = Token {
        name: Some("n1".parse().unwrap()),
        uses_left: 2,
        ..token(1)
    };
    store.add_token(fixed.clone()).await.unwrap();

    let refused = store.enrol(enrolment(1, 7)).await;
    assert_eq!(
        refused,
        Err(EnrolError::WrongName {
            wanted: "n1".parse().unwrap()
        })
    );
    assert_eq!(store.token(fixed.id).await.unwrap(), Some(fixed.clone()));

    store.enrol(enrolment(1, 1)).await.unwrap();
    let again = Enrolment {
        id: id(99),
        serial: "99".to_owned(),
        ..enrolment(1, 1)
    };
    let refused = store.enrol(again).await;
    assert_eq!(
        refused,
        Err(EnrolError::NameTaken {
            name: "n1".parse().unwrap()
        })
    );
    assert_eq!(
        store.token(fixed.id).await.unwrap(),
        Some(Token { uses_left: 1, ..fixed })
    );
}

#[tokio::test]
async fn everything_reads_back_after_a_restart() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    let made = Token {
        labels: Labels::parse(["site=hz"]).unwrap(),
        ..token(1)
    };
    store.add_token(made.clone()).await.unwrap();
    let mut node = store.enrol(enrolment(1, 1)).await.unwrap();
    assert_eq!(node.record.labels, made.labels);
    assert!(store.add_user(user("alice")).await.unwrap());
    assert!(!store.add_user(user("alice")).await.unwrap());

    let labels = Labels::parse(["site=sh", "arch=arm64"]).unwrap();
    assert!(store.set_labels(node.record.id, labels.clone()).await.unwrap());
    let state = NodeState::Offline {
        since: NOW + 5,
        why: Some(Reason::IdleTimeout),
    };
    let presence = Presence {
        id: node.record.id,
        state: state.clone(),
        services: Vec::new(),
        subnets: vec!["10.42.3.0/24".parse().unwrap()],
        agent_version: "0.2.0".to_owned(),
    };
    let subnets = presence.subnets.clone();
    store.set_presence(vec![presence]).await.unwrap();
    let renewed = Certificate {
        serial: "ab".to_owned(),
        node: id(1),
        issued_at: NOW + 9,
        not_after: NOW + 99,
    };
    store.renew(renewed.clone()).await.unwrap();
    let approval = Approval {
        node: id(1),
        subnet: subnets[0],
        approved_at: NOW + 10,
    };
    assert!(store.approve_route(approval.clone()).await.unwrap());
    let again = Approval {
        approved_at: NOW + 20,
        ..approval.clone()
    };
    assert!(store.approve_route(again).await.unwrap());
    drop(store);

    node.record.labels = labels;
    node.record.state = state;
    node.record.services = Vec::new();
    node.record.subnets = subnets;
    node.record.agent_version = "0.2.0".to_owned();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [node]);
    assert_eq!(store.tokens().await.unwrap(), [Token { uses_left: 0, ..made }]);
    assert_eq!(store.certificates(id(1)).await.unwrap()[0], renewed);
    assert_eq!(store.users().await.unwrap(), [user("alice")]);
    assert_eq!(store.approvals().await.unwrap(), [approval]);
    assert!(store.remove_node(id(1)).await.unwrap());
    assert_eq!(store.approvals().await.unwrap(), []);
    assert!(store.remove_user("alice".parse().unwrap()).await.unwrap());
    assert!(!store.remove_user("alice".parse().unwrap()).await.unwrap());
}

#[tokio::test]
async fn losses_of_a_link_are_kept_once_and_the_oldest_go() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    store.add_token(token(1)).await.unwrap();
    store.enrol(enrolment(1, 1)).await.unwrap();
    let all: Vec<_> = (1..=u64::from(KEPT_LOSSES) + 10).map(loss).collect();
    for page in [&all[..5], &all[..5], &all[3..]] {
        store.add_losses(id(1), page.to_vec()).await.unwrap();
    }
    assert_eq!(store.losses(id(1)).await.unwrap(), all[10..]);
    // An edge that has lost its journal counts from 1 again.
    let anew = LinkLoss {
        begun_millis: 1_000_000,
        ..loss(1)
    };
    store.add_losses(id(1), vec![anew.clone()]).await.unwrap();
    let kept = store.losses(id(1)).await.unwrap();
    assert_eq!((kept.len(), kept.last()), (200, Some(&anew)));
    store.add_losses(id(9), vec![loss(1)]).await.unwrap();
    assert_eq!(store.losses(id(9)).await.unwrap(), []);
    assert!(store.remove_node(id(1)).await.unwrap());
    assert_eq!(store.losses(id(1)).await.unwrap(), []);
}

#[tokio::test]
async fn a_store_that_was_dropped_is_one_file_with_everything_in_it() {
    let (dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    store.add_user(user("alice")).await.unwrap();
    drop(store);
    let files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["store.db"]);
}

/// T1
#[tokio::test]
async fn a_revoked_or_removed_node_gets_no_further_certificate() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    store.add_token(token(1)).await.unwrap();
    store.enrol(enrolment(1, 1)).await.unwrap();
    let next = |serial: &str| Certificate {
        serial: serial.to_owned(),
        node: id(1),
        issued_at: NOW + 100 * 24 * 3600,
        not_after: NOW + 107 * 24 * 3600,
    };
    store.renew(next("aa")).await.unwrap();
    // The first one ended so long ago that it could not even be renewed.
    assert_eq!(store.certificates(id(1)).await.unwrap(), [next("aa")]);

    assert!(store.revoke_node(id(1), NOW).await.unwrap());
    assert!(store.revoke_node(id(1), NOW + 1).await.unwrap());
    assert_eq!(store.renew(next("bb")).await, Err(RenewError::Revoked));
    assert_eq!(store.nodes().await.unwrap()[0].revoked_at, Some(NOW));

    assert!(store.remove_node(id(1)).await.unwrap());
    assert_eq!(store.renew(next("cc")).await, Err(RenewError::UnknownNode));
    assert_eq!(store.certificates(id(1)).await.unwrap(), []);
    assert!(!store.remove_node(id(1)).await.unwrap());
    assert!(!store.revoke_node(id(1), NOW).await.unwrap());
    assert!(!store.set_labels(id(1), Labels::default()).await.unwrap());
}

#[tokio::test]
async fn tokens_that_ended_long_ago_are_forgotten_when_a_new_one_is_made() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    store.add_token(token(1)).await.unwrap();
    let later = token(1).expires_at + Token::KEEP_ENDED;
    store
        .add_token(Token {
            created_at: later,
            ..token(2)
        })
        .await
        .unwrap();
    assert_eq!(store.tokens().await.unwrap().len(), 2);
    store
        .add_token(Token {
            created_at: later + 1,
            ..token(3)
        })
        .await
        .unwrap();
    assert!(store.token(token(1).id).await.unwrap().is_none());
}

/// R3
#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9_and_spent_tokens_are_spent() {
    let (_dir, path) = place();
    drop(SqliteStore::create(&path).await.unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::sqlite::tests::child_that_joins_nodes_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_STORE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeSet::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(n) = line.unwrap().strip_prefix("joined ") {
            acknowledged.insert(n.parse::<u16>().unwrap());
        }
        if acknowledged.len() == 100 {
            // SIGKILL; what it had written to the pipe by then is still read.
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    assert!(acknowledged.len() >= 100, "the child ended by itself");

    let store = SqliteStore::open(&path).await.unwrap();
    let nodes: BTreeSet<_> = store.nodes().await.unwrap().into_iter().map(|n| n.record.id).collect();
    for &n in &acknowledged {
        assert!(nodes.contains(&id(n)), "the acknowledged node {n} is lost");
        let again = Enrolment {
            id: id(u16::MAX),
            name: "late".parse().unwrap(),
            ..enrolment(n, n)
        };
        let refused = store.enrol(again).await;
        assert_eq!(
            refused,
            Err(EnrolError::Token(TokenFault::Spent)),
            "token {n} came back"
        );
    }
    // Never half a step: as many tokens are spent as nodes are there.
    let spent = store
        .tokens()
        .await
        .unwrap()
        .iter()
        .filter(|t| t.uses_left == 0)
        .count();
    assert_eq!(spent, nodes.len());
}

/// Says which nodes have joined, until it is killed.
#[tokio::test]
#[ignore = "the child process of the kill -9 test"]
async fn child_that_joins_nodes_until_killed() {
    let path = PathBuf::from(std::env::var_os(CHILD_STORE).unwrap());
    let store = SqliteStore::open(&path).await.unwrap();
    for n in 0..u16::MAX {
        store.add_token(token(n)).await.unwrap();
        store.enrol(enrolment(n, n)).await.unwrap();
        println!("joined {n}");
    }
}

/// R2
#[tokio::test]
async fn a_full_disk_refuses_joins_and_lets_reads_go_on() {
    let Some(disk) = SmallDisk::mount("640k") else {
        return;
    };
    let path = disk.path().join("store.db");
    let store = SqliteStore::create(&path).await.unwrap();
    let crowd = Token {
        uses_left: 1_000_000,
        ..token(0)
    };
    store.add_token(crowd.clone()).await.unwrap();
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 128 * 1024]).unwrap();

    let mut joined = 0;
    let error = loop {
        match store.enrol(enrolment(0, joined)).await {
            Ok(_) => joined += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, EnrolError::Store(StoreError::Full { path: path.clone() }));
    assert_eq!(store.nodes().await.unwrap().len(), usize::from(joined));

    // A token is as it was before the join that failed, and the next one succeeds once there is space.
    let left = store.token(crowd.id).await.unwrap().unwrap().uses_left;
    assert_eq!(left, crowd.uses_left - u32::from(joined));
    std::fs::remove_file(&filler).unwrap();
    store.enrol(enrolment(0, joined)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.nodes().await.unwrap().len(), usize::from(joined) + 1);
}

#[tokio::test]
async fn a_backup_made_while_others_write_is_a_whole_store() {
    let (dir, path) = place();
    let store = Arc::new(SqliteStore::create(&path).await.unwrap());
    store
        .add_token(Token {
            uses_left: 1000,
            ..token(0)
        })
        .await
        .unwrap();
    store.enrol(enrolment(0, 0)).await.unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 1..200 {
                store.enrol(enrolment(0, n)).await.unwrap();
            }
        }
    });
    let copy = dir.path().join("copy.db");
    store.backup(copy.clone()).await.unwrap();
    writer.await.unwrap();

    let restored = SqliteStore::open(&copy).await.unwrap();
    let nodes = restored.nodes().await.unwrap().len();
    let uses_left = restored.token(token(0).id).await.unwrap().unwrap().uses_left;
    assert!(nodes >= 1);
    assert_eq!(uses_left as usize, 1000 - nodes);
    assert_eq!(store.backup(copy.clone()).await, Err(StoreError::Exists { path: copy }));
    let nowhere = store.backup("/nowhere/at/all".into()).await;
    assert!(matches!(nowhere, Err(StoreError::Unavailable { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone() {
    let (_dir, path) = place();
    drop(SqliteStore::create(&path).await.unwrap());
    let newer = schema::NEWEST + 1;
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("INSERT INTO migration (version) VALUES (?1)", [newer])
        .unwrap();
    drop(connection);
    let refused = SqliteStore::open(&path).await.unwrap_err();
    assert_eq!(
        refused,
        StoreError::TooNew {
            path,
            found: newer,
            known: schema::NEWEST
        }
    );
}

#[tokio::test]
async fn what_is_no_sound_store_is_refused_and_not_touched() {
    let (dir, path) = place();
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let empty = dir.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database at all, but longer than a header".repeat(100)).unwrap();
    drop(SqliteStore::create(&path).await.unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 2048..middle + 2048].fill(0xff);
    let damaged = dir.path().join("damaged.db");
    std::fs::write(&damaged, bytes).unwrap();

    for bad in [foreign, empty, text, damaged] {
        let before = std::fs::read(&bad).unwrap();
        let refused = SqliteStore::open(&bad).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{bad:?}: {refused:?}");
        assert_eq!(std::fs::read(&bad).unwrap(), before);
    }
    let missing = dir.path().join("missing.db");
    assert_eq!(
        SqliteStore::open(&missing).await.unwrap_err(),
        StoreError::Missing { path: missing }
    );
    assert_eq!(
        SqliteStore::create(&path).await.unwrap_err(),
        StoreError::Exists { path }
    );
}

#[tokio::test]
async fn a_row_that_no_program_wrote_is_damage_and_not_a_default() {
    let (_dir, path) = place();
    let store = SqliteStore::create(&path).await.unwrap();
    store.add_user(user("alice")).await.unwrap();
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE user SET name = '../x'", [])
        .unwrap();
    let refused = store.users().await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
}

const NOW: u64 = 1_800_000_000;
const CHILD_STORE: &str = "TUNNEL_TEST_CHILD_STORE";

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    (dir, path)
}

fn id(n: u16) -> NodeId {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn token(n: u16) -> Token {
    Token {
        id: TokenId::from_bytes(*id(n).as_bytes()),
        key: TokenKey::from_bytes([3; 32]),
        name: None,
        labels: Labels::default(),
        created_at: NOW,
        expires_at: NOW + 3600,
        uses_left: 1,
        revoked_at: None,
    }
}

fn enrolment(token_no: u16, n: u16) -> Enrolment {
    Enrolment {
        token: token(token_no).id,
        id: id(n),
        name: format!("n{n}").parse().unwrap(),
        services: Vec::new(),
        agent_version: "0.1.0".to_owned(),
        serial: format!("{n:032x}"),
        not_after: NOW + 7 * 24 * 3600,
        now: NOW,
    }
}

fn loss(number: u64) -> LinkLoss {
    LinkLoss {
        number,
        cause: LossCause::Timeout,
        begun_millis: number * 1000,
        lasted: Duration::from_millis(500),
        sent: 1,
        received: 2,
        message: "the gateway fell silent".to_owned(),
    }
}

fn user(name: &str) -> User {
    User {
        name: name.parse().unwrap(),
        groups: vec!["admins".parse().unwrap()],
        handle: [1; 8],
        salt: [2; 16],
        hash: [3; 32],
        created_at: NOW,
    }
}

/// A file system of a given size, gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, said aloud, where this user may not mount.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tunnel-test"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self(dir)),
            other => {
                eprintln!("SKIPPED: a small tmpfs cannot be mounted here (root is needed): {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the store's thread may still be closing its files.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
