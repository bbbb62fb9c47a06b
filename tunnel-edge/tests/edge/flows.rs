use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tunnel_carrier::Flow;
use tunnel_edge::agent::Agent;
use tunnel_model::{Class, Protocol, Reason, Refusal, Service, TraceId};
use tunnel_proto::Open;

use crate::gateway::{Gateway, Session, soon};

#[tokio::test]
async fn packets_reach_a_udp_service_and_its_answers_come_back_of_any_size() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    let mut flow = open(&session, "service:dns").await;
    for size in [0, 12, 1_200, 9_000] {
        assert!(flow.send(&vec![7; size]));
        let mut heard = vec![0; 65_536];
        let (length, from) = tokio::select! {
            received = soon("the question", target.recv_from(&mut heard)) => received.unwrap(),
            over = next(&mut flow) => panic!("{over:?}"),
        };
        assert_eq!(length, size);
        target.send_to(&vec![8; size + 1], from).await.unwrap();
        assert_eq!(next(&mut flow).await.unwrap(), [vec![8; size + 1]]);
    }
}

#[tokio::test]
async fn nobody_but_the_target_is_heard() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    let mut flow = open(&session, "service:dns").await;
    assert!(flow.send(b"question"));
    let mut heard = [0; 100];
    let from = tokio::select! {
        received = soon("the question", target.recv_from(&mut heard)) => received.unwrap().1,
        over = next(&mut flow) => panic!("{over:?}"),
    };
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(b"poison", ("127.0.0.1", from.port())).await.unwrap();
    target.send_to(b"answer", from).await.unwrap();
    assert_eq!(next(&mut flow).await.unwrap(), [&b"answer"[..]]);
}

#[tokio::test]
async fn a_service_where_nothing_listens_ends_the_flow_with_that_reason() {
    let mut gateway = Gateway::new();
    let (_agent, _state, target) = edge(&gateway).await;
    let session = gateway.session().await;
    drop(target);
    let mut flow = open(&session, "service:dns").await;
    assert!(flow.send(b"question"));
    assert_eq!(next(&mut flow).await.unwrap_err().reason, Reason::TargetRefused);
}

/// T4
#[tokio::test]
async fn t4_what_is_not_allowed_by_udp_is_refused() {
    let mut gateway = Gateway::new();
    let (_agent, _state, _target) = edge(&gateway).await;
    let session = gateway.session().await;
    for (target, reason) in [
        ("udp:53", Reason::NotAllowed),
        ("udp:169.254.169.254:53", Reason::NotAllowed),
        ("service:ntp", Reason::UnknownService),
    ] {
        let mut flow = open(&session, target).await;
        assert!(flow.send(b"question"));
        assert_eq!(next(&mut flow).await.unwrap_err().reason, reason, "{target}");
    }
    let refusal = soon("the refusal", session.connect("service:dns")).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::BadRequest);
}

async fn edge(gateway: &Gateway) -> (Agent, tempfile::TempDir, UdpSocket) {
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    let state = gateway.enrolled(Duration::ZERO);
    let mut config = gateway.config(state.path(), &[]);
    config.services.push(Service {
        protocol: Protocol::Udp,
        ..Service::new("dns".parse().unwrap(), address.to_string().parse().unwrap())
    });
    let agent = Agent::start(&config).unwrap();
    (agent, state, target)
}

async fn open(session: &Session, target: &str) -> Flow {
    let open = Open {
        target: target.parse().unwrap(),
        protocol: Protocol::Udp,
        encoding: tunnel_model::Encoding::Raw,
        class: Class::Api,
        trace: TraceId::from_bytes([1; 16]),
        principal: "user:alice".to_owned(),
        node: None,
    };
    let stream = session.tunnel.open(&open, Duration::from_secs(15)).await;
    stream.unwrap().into_flow()
}

/// What comes next, or why nothing does.
async fn next(flow: &mut Flow) -> Result<Vec<Bytes>, Refusal> {
    let mut packets = Vec::new();
    soon("packets", flow.recv_many(&mut packets)).await.map(|()| packets)
}
