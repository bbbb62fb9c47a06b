use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};
use tunnel_carrier::{
    Arriving, Carrier, Tunnel,
    quic::{DialError, Dialer, Limits, Purpose, close},
};
use tunnel_identity::tls::{self, ALPN_TUNNEL, Alpn};
use tunnel_linkem::{LinkPair, relay::UdpRelay};
use tunnel_model::{Class, GatewayAddr, Reason, Refusal};
use tunnel_proto::{Config, Control, Open, Side, StreamId};

use crate::cluster::{Cluster, PATIENCE, Pair, connect, floor, greet, hash, hello, noise, open, soon};

#[tokio::test]
async fn a_dead_address_does_not_keep_the_edge_from_a_live_one() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    // It takes packets and answers none.
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gateways = [dead.local_addr().unwrap(), server.local_addr().unwrap()].map(gateway);
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let dialled = dialer.dial(&gateways, cluster.client_tls(Alpn::Tunnel));
    let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    let reached = dialled.unwrap().remote_address();
    assert_eq!(reached.port(), server.local_addr().unwrap().port());
    assert_eq!(accepted.unwrap().purpose, Purpose::Tunnel);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_from_a_gateway_that_does_not_answer() {
    let cluster = Cluster::new();
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let gateways = ["no-such-host.invalid:7443".parse().unwrap()];
    let error = dialer
        .dial(&gateways, cluster.client_tls(Alpn::Tunnel))
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Resolve(_)), "{error}");
}

#[tokio::test]
async fn every_connection_leaves_from_the_same_port() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let mut ports = Vec::new();
    for _ in 0..2 {
        let (dialled, accepted) = dial(&dialer, server.local_addr().unwrap(), &mut server, &cluster).await;
        ports.push(accepted.connection.remote_address().port());
        close(&dialled.unwrap(), &Refusal::new(Reason::Cancelled, "again"));
    }
    assert_eq!(ports, [dialer.local_addr().unwrap().port(); 2]);
}

/// T6: wrong CA, and not a byte of a token is on the wire, for the handshake fails.
#[tokio::test]
async fn t6_a_gateway_of_another_cluster_is_refused_in_the_handshake() {
    let (ours, other) = (Cluster::new(), Cluster::new());
    let server = other.serve(&Limits::gateway());
    let addresses = [server.local_addr().unwrap()];
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let pinned = tls::client_config_enrol(ours.root.pin(), &floor()).unwrap();
    for tls in [pinned, ours.client_tls(Alpn::Tunnel)] {
        let error = dialer.dial_addresses(&addresses, tls).await.unwrap_err();
        assert_eq!(error.to_refusal().reason, Reason::Unauthenticated, "{error}");
    }
}

/// B10: a node of another cluster learns that it is its certificate.
#[tokio::test]
async fn b10_a_node_of_another_cluster_is_refused() {
    let (ours, other) = (Cluster::new(), Cluster::new());
    let server = ours.serve(&Limits::gateway());
    let tls = tls::client_config_node(&ours.root, &other.node(), &floor(), Alpn::Tunnel).unwrap();
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let refusal = match dialer.dial_addresses(&[server.local_addr().unwrap()], tls).await {
        // In TLS 1.3 the client is done before its certificate is judged.
        Ok(connection) => tunnel_carrier::quic::refusal_of(&soon("the alert", connection.closed()).await),
        Err(error) => error.to_refusal(),
    };
    assert_eq!(refusal.reason, Reason::Unauthenticated, "{refusal}");
}

#[tokio::test]
async fn another_protocol_is_told_as_such() {
    let cluster = Cluster::new();
    let server = cluster.serve(&Limits::gateway());
    let mut tls = cluster.client_tls(Alpn::Tunnel);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let error = dialer
        .dial_addresses(&[server.local_addr().unwrap()], tls)
        .await
        .unwrap_err();
    assert_eq!(error.to_refusal().reason, Reason::UnsupportedVersion, "{error}");
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_seen_as_nobody() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let addresses = [server.local_addr().unwrap()];
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let mut tls: ClientConfig = tls::client_config_enrol(cluster.root.pin(), &floor()).unwrap();
    tls.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    let (_dialled, accepted) = tokio::join!(dialer.dial_addresses(&addresses, tls), server.accept());
    let accepted = accepted.unwrap();
    assert_eq!((accepted.purpose, accepted.chain.len()), (Purpose::Tunnel, 0));
}

/// B8: those who hold the door do not keep others out.
#[tokio::test]
async fn b8_handshakes_that_stand_still_hold_up_nobody() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let address = server.local_addr().unwrap();
    // The server's answers are lost, so that its side of each handshake stays open.
    let mut deaf = LinkPair::default();
    deaf.down.up = false;
    let relay = UdpRelay::start(address, deaf, 1).await.unwrap();
    let mut stuck = JoinSet::new();
    for _ in 0..50 {
        let (tls, through) = (cluster.client_tls(Alpn::Tunnel), relay.local_addr());
        stuck.spawn(async move {
            let dialer = Dialer::bind(0, Limits::edge()).unwrap();
            dialer.dial_addresses(&[through], tls).await
        });
    }
    let held = async {
        while relay.stats().up.delivered_packets < 50 {
            tokio::task::yield_now().await;
        }
    };
    soon("50 first packets", held).await;
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let start = Instant::now();
    let (dialled, _) = dial(&dialer, address, &mut server, &cluster).await;
    dialled.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// N5: the edge takes a new socket under a stream that runs.
#[tokio::test]
async fn n5_a_new_socket_under_a_running_stream_loses_nothing() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let dialer = pair.dialer.clone();
    let moving = || dialer.rebind().unwrap();
    transfer(near, far, moving).await;
    drop(pair.server);
}

/// N5: a NAT forgets the flow and gives it another address, again and again.
#[tokio::test]
async fn n5_a_nat_that_rebinds_under_a_running_stream_loses_nothing() {
    let (mut pair, relay) = Pair::over(LinkPair::default(), 5, &Limits::gateway()).await;
    let before = pair.gateway.tunnel.status().unwrap().remote;
    let (near, far) = pair.stream().await;
    transfer(near, far, || relay.rebind()).await;
    assert_ne!(pair.gateway.tunnel.status().unwrap().remote, before);
}

/// N2: a peer that vanished is found, and its streams break.
#[tokio::test]
async fn n2_a_peer_that_vanished_is_found_within_the_idle_time() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(500),
        ..Limits::gateway()
    };
    let (mut pair, relay) = Pair::over(LinkPair::default(), 2, &limits).await;
    let (mut near, _far) = pair.stream().await;
    relay.set_link(relay.link().with_up(false));
    let why = soon("the verdict", &mut pair.gateway.driver).await.unwrap();
    assert_eq!(why.reason, Reason::IdleTimeout);
    // Its streams wait for another connection.
    assert!(near.read_to_end(&mut Vec::new()).now_or_never().is_none());
}

/// N9: a gateway that was killed and is back knows nothing of its old connections, and says so.
#[tokio::test]
async fn n9_a_gateway_that_was_killed_and_is_back_says_so_at_the_next_packet() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let address = server.local_addr().unwrap();
    let relay = UdpRelay::start(address, LinkPair::default(), 3).await.unwrap();
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let (dialled, accepted) = dial(&dialer, relay.local_addr(), &mut server, &cluster).await;
    let (edge, gateway) = greet(dialled.unwrap(), accepted).await;
    // Its last words do not get through.
    relay.set_link(relay.link().with_up(false));
    gateway.tunnel.close(&Refusal::new(Reason::Internal, "killed"));
    soon("the end of the old gateway", gateway.driver).await.unwrap();
    server.wait_idle().await;
    drop((server, gateway.tunnel, gateway.incoming, gateway.notices));
    soon("its port", async {
        while UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _back = cluster.serve_at(address, &Limits::gateway());
    relay.set_link(relay.link().with_up(true));
    soon("no answer", edge.tunnel.ping()).await.unwrap_err();
    let why = soon("the verdict", edge.driver).await.unwrap();
    assert_eq!(why.reason, Reason::CarrierLost);
}

/// B4
#[tokio::test]
async fn b4_an_edge_of_another_version_learns_that_it_is() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let (dialled, accepted) = dial(&dialer, server.local_addr().unwrap(), &mut server, &cluster).await;
    let mut newer = hello();
    (newer.min_version, newer.max_version) = (8, 9);
    let (edge, gateway) = tokio::join!(
        async {
            Carrier::dial(dialled.unwrap(), newer, PATIENCE)
                .await
                .map(drop)
                .map_err(Refusal::from)
        },
        async {
            let arriving = Arriving::accept(accepted.connection, PATIENCE).await?;
            arriving.answer(hello(), PATIENCE).await.map(drop)
        }
    );
    for end in [edge, gateway] {
        assert_eq!(end.unwrap_err().reason, Reason::UnsupportedVersion);
    }
}

/// B7: more resets than any honest peer has streams.
#[tokio::test]
async fn b7_a_peer_that_resets_without_end_is_cut_off() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let (dialled, accepted) = dial(&dialer, server.local_addr().unwrap(), &mut server, &cluster).await;
    let flooding = tokio::spawn(async move {
        let connection = dialled.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&Control::Hello(hello()).encode()).await.unwrap();
        for id in 0..50_000 {
            let (id, refusal) = (StreamId(2 * id + 1), Refusal::new(Reason::Cancelled, ""));
            if send.write_all(&Control::Reset { id, refusal }.encode()).await.is_err() {
                break;
            }
        }
        connection.closed().await
    });
    let arriving = Arriving::accept(accepted.connection, PATIENCE);
    let arriving = soon("the hello", arriving).await.unwrap();
    let carrier = arriving.answer(hello(), PATIENCE).await.unwrap();
    let gateway = Tunnel::new(Side::Gateway, Config::default());
    let driver = gateway.tunnel.attach(carrier).unwrap();
    let why = soon("the session's end", driver.run()).await;
    assert_eq!(why.reason, Reason::Protocol);
    let told = tunnel_carrier::quic::refusal_of(&soon("the news", flooding).await.unwrap());
    assert_eq!(told, why);
}

#[tokio::test]
async fn the_reason_for_closing_a_session_reaches_the_peer() {
    let pair = Pair::new().await;
    let revoked = Refusal::new(Reason::Revoked, "edge1 was revoked");
    pair.gateway.tunnel.close(&revoked);
    assert_eq!(soon("the end", pair.edge.driver).await.unwrap(), revoked);
    assert_eq!(pair.edge.tunnel.ping().await.unwrap_err(), revoked);
}

#[tokio::test]
async fn a_server_that_stops_accepting_keeps_what_it_has() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let address = server.local_addr().unwrap();
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let (dialled, accepted) = dial(&dialer, address, &mut server, &cluster).await;
    let (edge, _gateway) = greet(dialled.unwrap(), accepted).await;
    server.stop_accepting();
    let addresses = [address];
    let refused = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    soon("a refusal", refused).await.unwrap_err();
    soon("a pong", edge.tunnel.ping()).await.unwrap();
}

async fn dial(
    dialer: &Dialer,
    address: SocketAddr,
    server: &mut tunnel_carrier::quic::Server,
    cluster: &Cluster,
) -> (Result<quinn::Connection, DialError>, tunnel_carrier::quic::Accepted) {
    let addresses = [address];
    let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    (dialled, accepted.unwrap())
}

/// Sends a few MiB and disturbs the path five times on the way.
async fn transfer(near: tunnel_carrier::Stream, far: tunnel_carrier::Stream, disturb: impl Fn()) {
    const PART: usize = 512 * 1024;
    let data = noise(5 * PART);
    let (mut near, mut far) = (near, far);
    let (sent, got) = soon("the transfer", async {
        tokio::join!(
            async {
                near.write_all(&data).await.unwrap();
                near.shutdown().await.unwrap();
                hash(&data)
            },
            async {
                let mut got = vec![0; 5 * PART];
                for part in got.chunks_mut(PART) {
                    far.read_exact(part).await.unwrap();
                    disturb();
                }
                far.read_to_end(&mut got).await.unwrap();
                hash(&got)
            }
        )
    })
    .await;
    assert_eq!(sent, got);
}

fn gateway(address: SocketAddr) -> GatewayAddr {
    address.to_string().parse().unwrap()
}

/// A silence is judged by what was asked, and an acknowledgement asks nothing.
#[tokio::test]
async fn what_is_received_and_acknowledged_asks_nothing_and_a_ping_does() {
    let mut pair = Pair::new().await;
    let open = Open {
        class: Class::Interactive,
        ..open("port:22")
    };
    let (near, mut far) = tokio::join!(connect(&pair.gateway.tunnel, &open), pair.edge.accept());
    let mut near = near.unwrap();
    let edge = &pair.edge.tunnel;
    let counted = || edge.counted().unwrap();
    // At first the connection asks how large its packets may be.
    soon("a line that is only acknowledged", async {
        loop {
            let (before, sent) = (counted(), edge.status().unwrap().sent_bytes);
            near.write_all(b"a line").await.unwrap();
            far.read_exact(&mut [0; 6]).await.unwrap();
            while edge.status().unwrap().sent_bytes == sent {
                tokio::task::yield_now().await;
            }
            let after = counted();
            assert_eq!(after.moved, before.moved + 6);
            assert!(after.received > before.received);
            if after.asked == before.asked {
                break;
            }
        }
    })
    .await;
    let before = counted();
    assert_eq!((before.streams, before.interactive), (1, 1));
    soon("a pong", edge.ping()).await.unwrap();
    assert!(counted().asked > before.asked);
}
