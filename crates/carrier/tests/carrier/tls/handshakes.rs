use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};
use tunnel_carrier::{
    quic::Purpose,
    tls::{DialError, Dialer, Failure, Limits, Proxies},
};
use tunnel_identity::tls::Alpn;
use tunnel_model::{GatewayAddr, Reason};

use super::connect;
use crate::cluster::{Cluster, soon};

#[tokio::test]
async fn a_peer_is_told_apart_by_what_it_came_for() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    for (alpn, purpose) in [(Alpn::Tunnel, Purpose::Tunnel), (Alpn::Enrol, Purpose::Enrol)] {
        let addresses = [server.local_addr()];
        let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(alpn));
        let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
        dialled.unwrap();
        let accepted = accepted.unwrap();
        assert_eq!(accepted.purpose, purpose);
        assert_eq!(accepted.chain, accepted.connection.peer_chain());
    }
}

#[tokio::test]
async fn the_first_address_that_answers_wins_and_names_are_resolved() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let port = server.local_addr().port();
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    let gateways: Vec<GatewayAddr> = vec![
        "no-such-host.invalid:443".parse().unwrap(),
        // Nobody listens at port 1.
        "127.0.0.1:1".parse().unwrap(),
        format!("localhost:{port}").parse().unwrap(),
    ];
    let dialled = dialer.dial(&gateways, cluster.client_tls(Alpn::Tunnel));
    let (dialled, _accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    assert_eq!(dialled.unwrap().remote_address().port(), port);
}

#[tokio::test]
async fn n12_a_name_that_does_not_resolve_and_a_port_without_a_listener_are_told_apart() {
    let cluster = Cluster::new();
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    let dial = async |gateway: &str| {
        let gateways = [gateway.parse().unwrap()];
        soon("a failure", dialer.dial(&gateways, cluster.client_tls(Alpn::Tunnel))).await
    };
    assert!(matches!(
        dial("no-such-host.invalid:443").await,
        Err(DialError::Resolve(_))
    ));
    let refused = dial("127.0.0.1:1").await.unwrap_err();
    assert!(
        matches!(refused.failures().next(), Some(Failure::Unreachable(_))),
        "{refused}"
    );
    assert_eq!(refused.to_refusal().reason, Reason::TargetUnreachable);
}

#[tokio::test]
async fn n12_a_certificate_of_another_authority_is_a_diagnosis_of_its_own() {
    let cluster = Cluster::new();
    let server = Cluster::new().serve_tls(&Limits::gateway());
    let why = failure(server.local_addr(), &cluster).await;
    assert_eq!(why, Failure::Inspected);
    assert_eq!(why.to_refusal().reason, Reason::Unauthenticated);
}

#[tokio::test]
async fn n12_what_is_no_tls_is_a_diagnosis_by_name() {
    let cluster = Cluster::new();
    for (answer, failure_expected) in [
        (
            &b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n"[..],
            Failure::Portal,
        ),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", Failure::Portal),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Failure::NotTls),
    ] {
        let address = answering(answer).await;
        assert_eq!(failure(address, &cluster).await, failure_expected);
    }
    let silent = answering(b"").await;
    assert!(matches!(failure(silent, &cluster).await, Failure::Unreachable(_)));
}

#[tokio::test]
async fn an_edge_of_another_cluster_learns_that_its_certificate_was_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let server = cluster.serve_tls(&Limits::gateway());
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    // It trusts this gateway, and shows what the other cluster's authority made.
    let tls =
        tunnel_identity::tls::client_config_node(&cluster.root, &other.node(), &crate::cluster::floor(), Alpn::Tunnel);
    let addresses = [server.local_addr()];
    let dialled = soon("a handshake", dialer.dial_addresses(&addresses, tls.unwrap())).await;
    // TLS 1.3 lets the client go ahead before the server has looked.
    let why = match dialled {
        Ok(connection) => soon("the verdict", connection.closed()).await,
        Err(error) => error.to_refusal(),
    };
    assert_eq!(why.reason, Reason::Unauthenticated, "{why}");
}

#[tokio::test]
async fn a_client_that_asks_for_no_protocol_of_ours_is_not_let_in() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let mut tls = cluster.client_tls(Alpn::Tunnel);
    tls.alpn_protocols.clear();
    let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let name = "gateway.invalid".try_into().unwrap();
    let connecting = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect(name, tcp);
    let mut stream = soon("a handshake", connecting).await.unwrap();
    let read = soon("an end", stream.read(&mut [0; 16])).await;
    assert!(!matches!(read, Ok(n) if n > 0));
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    // The next one is the honest one.
    let (dialled, _) = connect(&dialer, server.local_addr(), &mut server, &cluster).await;
    dialled.unwrap();
}

/// B8: as many as one network may have, each a byte a second, and edges of other networks join at once; at the deadline
/// they are cut.
#[tokio::test]
async fn b8_handshakes_that_take_for_ever_keep_nobody_out_and_are_cut() {
    const SLOW: usize = 1000;
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let address = server.local_addr();
    let start = Instant::now();
    let mut slow = Vec::new();
    for i in 0..SLOW {
        let socket = TcpSocket::new_v4().unwrap();
        // From four networks.
        let source = SocketAddr::from(([127, 0, 1 + u8::try_from(i % 4).unwrap(), 1], 0));
        socket.bind(source).unwrap();
        let mut tcp = socket.connect(address).await.unwrap();
        // The first byte of a record, and no more.
        tcp.write_all(&[22]).await.unwrap();
        slow.push(tcp);
    }
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    for _ in 0..20 {
        let (dialled, _) = connect(&dialer, address, &mut server, &cluster).await;
        dialled.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    for mut tcp in slow {
        let read = soon("the cut", tcp.read(&mut [0; 16])).await;
        assert!(!matches!(read, Ok(n) if n > 0));
    }
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_stops_accepting_keeps_what_it_has_and_waits_for_its_farewell() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let address = server.local_addr();
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    let (edge, gateway) = connect(&dialer, address, &mut server, &cluster).await;
    server.stop_accepting();
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    soon("a closed port", closed).await;
    let edge = edge.unwrap();
    let (mut send, _recv) = edge.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    soon("a stream", gateway.connection.accept_bi()).await.unwrap();
    drop((edge, send, _recv));
    soon("the farewell", server.wait_idle()).await;
    soon("the farewell", dialer.wait_idle()).await;
}

async fn failure(address: SocketAddr, cluster: &Cluster) -> Failure {
    let dialer = Dialer::new(Limits::edge(), Proxies::none());
    let addresses = [address];
    let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    let error = soon("a failure", dialled).await.unwrap_err();
    error.failures().next().unwrap().clone()
}

/// A server that says this to whoever connects and has said something.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        assert_ne!(tcp.read(&mut [0; 4096]).await.unwrap(), 0);
        tcp.write_all(answer).await.unwrap();
        tcp.shutdown().await.unwrap();
    });
    address
}
