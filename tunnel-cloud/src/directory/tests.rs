use tempfile::TempDir;
use tunnel_identity::TokenKey;
use tunnel_model::{Change, Service, TokenId};

use super::*;
use crate::store::{SqliteStore, Token};

#[tokio::test]
async fn a_node_is_reached_while_it_is_online_and_else_one_hears_since_when_and_why() {
    let (_dir, directory) = directory().await;
    let refusal = directory.reach(&name("a")).unwrap_err();
    assert_eq!(refusal.reason, Reason::NodeOffline);
    assert_eq!(
        refusal.message,
        "node a has not connected since it joined at 2027-01-15T08:00:00Z"
    );

    let stay = online(&directory, 1, 10).unwrap();
    assert_eq!(directory.reach(&name("a")), Ok(id(1)));

    directory.offline(stay, Reason::IdleTimeout, at(70));
    let refusal = directory.reach(&name("a")).unwrap_err();
    assert_eq!(
        refusal.message,
        "node a is offline since 2027-01-15T08:01:10Z: idle-timeout"
    );
    assert_eq!(directory.reach(&name("x")).unwrap_err().reason, Reason::UnknownNode);
}

#[tokio::test]
async fn the_end_of_a_superseded_session_does_not_take_the_node_offline() {
    let (_dir, directory) = directory().await;
    let older = online(&directory, 1, 10).unwrap();
    let newer = online(&directory, 1, 20).unwrap();
    directory.offline(older, Reason::Superseded, at(21));
    assert!(directory.reach(&name("a")).is_ok());
    directory.offline(newer, Reason::CarrierLost, at(22));
    assert!(directory.reach(&name("a")).is_err());
}

#[tokio::test]
async fn what_a_node_offers_stays_until_its_latest_session_says_otherwise() {
    let (_dir, directory) = directory().await;
    let services = |name: &str| {
        let name = name.parse().unwrap();
        vec![Service::new(name, "127.0.0.1:80".parse().unwrap())]
    };
    let offer = |name: &str| Offer {
        services: services(name),
        subnets: Vec::new(),
    };
    let offered = || directory.get(&name("a")).unwrap().record.services;
    let older = online(&directory, 1, 10).unwrap();
    directory.declare(&older, offer("web"));
    let newer = online(&directory, 1, 20).unwrap();
    assert_eq!(offered(), services("web"));
    directory.declare(&newer, offer("db"));
    directory.declare(&older, offer("late"));
    assert_eq!(offered(), services("db"));
}

#[tokio::test]
async fn a_follower_waits_for_a_revision_and_gets_the_change_alone() {
    let (_dir, directory) = directory().await;
    let mut revisions = directory.subscribe();
    let from = *revisions.borrow_and_update();
    assert_eq!(directory.delta_since(from), None);

    online(&directory, 2, 10).unwrap();
    revisions.changed().await.unwrap();
    let Some(Delta::Changes { to, changes }) = directory.delta_since(from) else {
        panic!("no changes");
    };
    assert_eq!(to, *revisions.borrow_and_update());
    assert!(matches!(&changes[..], [Change::Upsert(node)] if node.id == id(2)));
    assert!(!revisions.has_changed().unwrap());
}

#[tokio::test]
async fn a_follower_of_an_earlier_start_gets_the_whole_list() {
    let (dir, directory) = directory().await;
    let old = directory.delta_since(Revision(0)).map(|delta| match delta {
        Delta::Whole { to, .. } => to,
        Delta::Changes { to, .. } => to,
    });
    drop(directory);
    let directory = load(&dir, 1).await;
    let delta = directory.delta_since(old.unwrap());
    assert!(matches!(delta, Some(Delta::Whole { nodes, .. }) if nodes.len() == 2));
}

#[tokio::test]
async fn comings_and_goings_are_in_the_store_after_the_flush() {
    let (dir, directory) = directory().await;
    let stay = online(&directory, 1, 10).unwrap();
    directory.offline(stay, Reason::IdleTimeout, at(70));
    directory.flush().await.unwrap();
    drop(directory);

    let node = load(&dir, 500).await.get(&name("a")).unwrap();
    let since = at(70).secs();
    assert_eq!(
        node.record.state,
        NodeState::Offline {
            since,
            why: Some(Reason::IdleTimeout)
        }
    );
    assert_eq!(node.record.agent_version, "0.1.0");
}

#[tokio::test]
async fn they_are_written_without_anybody_waiting_for_it() {
    let (dir, directory) = directory().await;
    let directory = Arc::new(directory);
    let stop = CancellationToken::new();
    let saving = tokio::spawn({
        let (directory, stop) = (Arc::clone(&directory), stop.clone());
        async move { directory.save(stop).await }
    });
    online(&directory, 1, 10).unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db")).await.unwrap();
    loop {
        let nodes = store.nodes().await.unwrap();
        if nodes.iter().any(|n| matches!(n.record.state, NodeState::Online { .. })) {
            break;
        }
        tokio::task::yield_now().await;
    }
    stop.cancel();
    saving.await.unwrap().unwrap();
}

/// N9
#[tokio::test]
async fn who_was_online_when_the_gateway_was_killed_is_offline_since_the_start_at_the_latest() {
    let (dir, directory) = directory().await;
    online(&directory, 1, 10).unwrap();
    directory.flush().await.unwrap();
    drop(directory);

    let node = load(&dir, 500).await.get(&name("a")).unwrap();
    let since = at(500).secs();
    assert_eq!(
        node.record.state,
        NodeState::Offline {
            since,
            why: Some(Reason::CarrierLost)
        }
    );
}

/// T1
#[tokio::test]
async fn a_revoked_node_cannot_come_online_any_more_and_keeps_its_name() {
    let (dir, directory) = directory().await;
    let stay = online(&directory, 1, 10).unwrap();
    assert!(!directory.is_revoked(id(1)));
    assert!(directory.revoke(id(1), at(20)).await.unwrap());
    assert!(directory.is_revoked(id(1)));
    assert_eq!(directory.reach(&name("a")).unwrap_err().reason, Reason::Revoked);
    assert_eq!(online(&directory, 1, 30), None);
    directory.offline(stay, Reason::Revoked, at(31));
    assert_eq!(directory.get(&name("a")).unwrap().revoked_at, Some(at(20).secs()));

    let directory = load(&dir, 100).await;
    assert!(directory.is_revoked(id(1)));
    assert_eq!(directory.list().len(), 2);
    let taken = directory.enrol(enrolment(3, "a")).await;
    assert_eq!(taken, Err(EnrolError::NameTaken { name: name("a") }));

    assert!(directory.remove(id(1)).await.unwrap());
    assert!(
        directory.is_revoked(id(1)),
        "a removed node's certificate must stay worthless"
    );
    directory.enrol(enrolment(3, "a")).await.unwrap();
    assert!(!directory.is_revoked(id(3)));
}

#[tokio::test]
async fn no_node_joins_under_the_name_of_the_cloud_and_its_token_is_not_spent() {
    let (_dir, directory) = directory().await;
    let before = directory.revision.borrow().0;
    let refused = directory.enrol(enrolment(3, "cloud")).await;
    assert_eq!(refused, Err(EnrolError::Reserved(ReservedName(NodeName::cloud()))));
    assert_eq!(directory.revision.borrow().0, before);
    assert!(directory.enrol(enrolment(3, "c")).await.is_ok());
}

#[tokio::test]
async fn labels_are_set_and_removed_and_kept() {
    let (dir, directory) = directory().await;
    let pairs =
        |pairs: &[(&str, &str)]| -> Vec<_> { pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect() };
    directory
        .edit_labels(id(1), &pairs(&[("site", "hz"), ("arch", "arm64")]), &[])
        .await
        .unwrap();
    let labels = directory
        .edit_labels(id(1), &pairs(&[("site", "sh")]), &["arch".to_owned()])
        .await;
    assert_eq!(labels, Ok(Labels::parse(["site=sh"]).unwrap()));
    let refused = directory
        .edit_labels(id(1), &pairs(&[("Site", "x")]), &["site".to_owned()])
        .await;
    assert!(matches!(refused, Err(LabelError::Label(_))));
    let refused = directory.edit_labels(id(9), &[], &[]).await;
    assert_eq!(refused, Err(LabelError::UnknownNode));

    let node = load(&dir, 1).await.get(&name("a")).unwrap();
    assert_eq!(node.record.labels.to_string(), "site=sh");
}

/// A directory with the nodes `a` (1) and `b` (2), and a token for more.
pub(crate) async fn directory() -> (TempDir, LiveDirectory) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&dir.path().join("store.db")).await.unwrap();
    let token = Token {
        id: TokenId::from_bytes([1; 16]),
        key: TokenKey::from_bytes([0; 32]),
        name: None,
        labels: Labels::default(),
        created_at: at(0).secs(),
        expires_at: at(3600).secs(),
        uses_left: 10,
        revoked_at: None,
    };
    store.add_token(token).await.unwrap();
    drop(store);
    let directory = load(&dir, 0).await;
    directory.enrol(enrolment(1, "a")).await.unwrap();
    directory.enrol(enrolment(2, "b")).await.unwrap();
    (dir, directory)
}

pub(crate) async fn load(dir: &TempDir, seconds: u64) -> LiveDirectory {
    let store = SqliteStore::open(&dir.path().join("store.db")).await.unwrap();
    LiveDirectory::load(Arc::new(store), at(seconds)).await.unwrap()
}

pub(crate) fn online(directory: &LiveDirectory, n: u8, seconds: u64) -> Option<Stay> {
    directory.online(id(n), "0.1.0".to_owned(), at(seconds))
}

fn enrolment(n: u8, called: &str) -> Enrolment {
    Enrolment {
        token: TokenId::from_bytes([1; 16]),
        id: id(n),
        name: name(called),
        services: Vec::new(),
        agent_version: String::new(),
        serial: format!("{n:02x}"),
        not_after: at(7 * 24 * 3600).secs(),
        now: at(0).secs(),
    }
}

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::from_secs(1_800_000_000 + seconds)
}

pub(crate) fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}
