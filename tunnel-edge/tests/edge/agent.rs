use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tunnel_carrier::{Notice, Stream};
use tunnel_daemon::shutdown::Deadlines;
use tunnel_edge::agent::{Agent, Phase, State};
use tunnel_model::{Reason, Refusal};

use crate::gateway::{Gateway, Session, soon};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn an_agent_says_who_it_is_and_what_it_offers() {
    let mut gateway = Gateway::new();
    let (agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    assert_eq!(session.services.len(), 1);
    assert_eq!(session.services[0].target.port(), target.local_addr().unwrap().port());
    assert!(
        session.hello.software.starts_with("tunnel-edge "),
        "{:?}",
        session.hello
    );
    soon("the first pong", agent.connected()).await;
    soon("a pong", agent.ping()).await.unwrap();
    assert_eq!(agent.state().borrow().name.as_deref(), Some("edge1"));
    agent.shutdown(Deadlines::default()).await.unwrap();
}

#[tokio::test]
async fn a_service_is_reached_and_each_direction_ends_by_itself() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    for name in [
        "service:web".to_owned(),
        format!("port:{}", target.local_addr().unwrap().port()),
    ] {
        let (mut stream, mut served) = reach(&session, &target, &name).await;
        stream.write_all(b"question").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read(&mut served).await.unwrap(), b"question");
        served.write_all(b"answer").await.unwrap();
        served.shutdown().await.unwrap();
        assert_eq!(read(&mut stream).await.unwrap(), b"answer");
    }
}

/// T4: the edge refuses what its configuration does not name, and the caller learns why.
#[tokio::test]
async fn t4_what_is_not_allowed_is_refused_with_a_reason_that_the_caller_sees() {
    let mut gateway = Gateway::new();
    let (_agent, _state, _target) = edge(&gateway).await;
    let session = gateway.session().await;
    for (target, reason) in [
        ("port:1", Reason::NotAllowed),
        ("tcp:169.254.169.254:80", Reason::NotAllowed),
        ("tcp:metadata.internal:80", Reason::NotAllowed),
        ("service:db", Reason::UnknownService),
    ] {
        let refusal = soon("the refusal", session.connect(target)).await.unwrap_err();
        assert_eq!(refusal.reason, reason, "{target}");
        assert!(
            refusal.message.contains("edge1") && refusal.message.contains("edge.toml"),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_service_that_is_not_running_is_told_as_such() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    drop(target);
    let refusal = soon("the refusal", session.connect("service:web")).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::TargetRefused);
}

/// N9: what was cut must not look whole, at the target either.
#[tokio::test]
async fn n9_a_target_whose_caller_was_cut_off_sees_a_reset_and_no_end() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    let (mut stream, mut served) = reach(&session, &target, "service:web").await;
    stream.write_all(b"half of it").await.unwrap();
    served.read_exact(&mut [0; 10]).await.unwrap();
    drop(stream);
    let error = read(&mut served).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let (_stream, mut served) = reach(&session, &target, "service:web").await;
    session.tunnel.close(&Refusal::new(Reason::Internal, "gone"));
    let error = read(&mut served).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_agent_that_lost_its_session_comes_back() {
    let mut gateway = Gateway::new();
    let (agent, _state, target) = edge(&gateway).await;
    let first = gateway.session().await;
    soon("the first pong", agent.connected()).await;
    first.tunnel.close(&Refusal::new(Reason::Internal, "gone"));
    let second = gateway.session().await;
    let (_stream, _served) = reach(&second, &target, "service:web").await;
}

#[tokio::test]
async fn an_agent_that_is_sent_away_connects_anew_and_lets_streams_end() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let first = gateway.session().await;
    let (mut stream, mut served) = reach(&first, &target, "service:web").await;
    first.tunnel.drain(Refusal::new(Reason::Draining, "upgrade"), None);
    let _second = gateway.session().await;
    served.write_all(b"the last words").await.unwrap();
    served.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"the last words");
}

/// T1, and B4's rule: what a person must mend is no reconnect loop.
#[tokio::test]
async fn t1_a_revoked_edge_is_cut_and_does_not_knock_again_soon() {
    let mut gateway = Gateway::new();
    let (agent, _state, _target) = edge(&gateway).await;
    let session = gateway.session().await;
    gateway.revoke_all();
    session
        .tunnel
        .close(&Refusal::new(Reason::Revoked, "edge1 was revoked"));
    let state = wait_for(&agent, |state| state.phase == Phase::Waiting).await;
    assert_eq!(state.why.unwrap().reason, Reason::Revoked);
    assert!(state.retry_in.unwrap() >= Duration::from_secs(120));
    assert_eq!(agent.ping().await.unwrap_err().reason, Reason::Revoked);
}

#[tokio::test]
async fn a_certificate_past_its_half_life_is_renewed_under_a_running_session() {
    let mut gateway = Gateway::new();
    let state = gateway.enrolled(5 * DAY);
    let agent = Agent::start(&gateway.config(state.path(), &[])).unwrap();
    let before = agent.status().certificate_expires;
    let session = gateway.session().await;
    let renewed = async {
        while agent.status().certificate_expires == before {
            tokio::task::yield_now().await;
        }
    };
    soon("the renewal", renewed).await;
    session.tunnel.ping().await.unwrap();
    assert_eq!(gateway.renewals(), 1);
    // What is on disk is what the next start will use.
    agent.shutdown(Deadlines::default()).await.unwrap();
    let again = Agent::start(&gateway.config(state.path(), &[])).unwrap();
    assert_ne!(again.status().certificate_expires, before);
    gateway.session().await;
}

/// R5: a month in the dark; the edge comes back by itself.
#[tokio::test]
async fn r5_an_expired_certificate_renews_itself_at_start() {
    let mut gateway = Gateway::new();
    let state = gateway.enrolled(25 * DAY);
    let agent = Agent::start(&gateway.config(state.path(), &[])).unwrap();
    gateway.session().await;
    soon("the first pong", agent.connected()).await;
    assert_eq!(gateway.renewals(), 1);
}

#[tokio::test]
async fn an_expired_certificate_of_a_revoked_node_stays_out() {
    let gateway = Gateway::new();
    gateway.revoke_all();
    let state = gateway.enrolled(25 * DAY);
    let agent = Agent::start(&gateway.config(state.path(), &[])).unwrap();
    let state = wait_for(&agent, |state| state.phase == Phase::Waiting).await;
    assert!(state.retry_in.unwrap() >= Duration::from_secs(120), "{state:?}");
    assert_eq!(gateway.renewals(), 0);
}

#[tokio::test]
async fn an_agent_that_stops_tells_the_gateway_and_lets_streams_end() {
    let mut gateway = Gateway::new();
    let (agent, _state, target) = edge(&gateway).await;
    let mut session = gateway.session().await;
    let (mut stream, mut served) = reach(&session, &target, "service:web").await;
    let stopping = {
        let agent = agent.clone();
        tokio::spawn(async move { agent.shutdown(Deadlines::default()).await })
    };
    let notice = soon("the notice", session.notices.recv()).await.unwrap();
    assert!(
        matches!(&*notice, Notice::GoAway { refusal, .. } if refusal.reason == Reason::Draining),
        "{notice:?}"
    );
    served.write_all(b"bye").await.unwrap();
    served.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"bye");
    assert_eq!(soon("the end", stopping).await.unwrap().unwrap().cut, 0);
    assert_eq!(agent.state().borrow().phase, Phase::Stopped);
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_at_the_deadline() {
    let mut gateway = Gateway::new();
    let (agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    let (_stream, mut served) = reach(&session, &target, "service:web").await;
    let deadlines = Deadlines {
        drain: Duration::from_millis(50),
        ..Deadlines::default()
    };
    let ended = soon("the end", agent.shutdown(deadlines)).await.unwrap();
    assert!(ended.cut >= 1, "{ended:?}");
    let error = read(&mut served).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn several_agents_live_in_one_process() {
    let mut gateway = Gateway::new();
    let edges = [edge(&gateway).await, edge(&gateway).await, edge(&gateway).await];
    for _ in &edges {
        gateway.session().await;
    }
    for (agent, ..) in &edges {
        soon("a pong", agent.connected()).await;
    }
    edges[0].0.shutdown(Deadlines::default()).await.unwrap();
    soon("another's pong", edges[1].0.ping()).await.unwrap();
}

/// An enrolled edge whose service `web` is served by the listener.
async fn edge(gateway: &Gateway) -> (Agent, tempfile::TempDir, TcpListener) {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = target.local_addr().unwrap();
    let state = gateway.enrolled(Duration::ZERO);
    let agent = Agent::start(&gateway.config(state.path(), &[("web", address)])).unwrap();
    (agent, state, target)
}

/// A stream from the gateway, and the connection to the target at its other end.
pub(crate) async fn reach(session: &Session, target: &TcpListener, name: &str) -> (Stream, TcpStream) {
    let (stream, served) = soon("a stream", async {
        tokio::join!(session.connect(name), target.accept())
    })
    .await;
    (stream.unwrap(), served.unwrap().0)
}

pub(crate) async fn read(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut got = Vec::new();
    soon("an end or a break", from.read_to_end(&mut got)).await.map(|_| got)
}

async fn wait_for(agent: &Agent, what: impl FnMut(&State) -> bool) -> State {
    let mut state = agent.state();
    soon("the state", state.wait_for(what)).await.unwrap().clone()
}
