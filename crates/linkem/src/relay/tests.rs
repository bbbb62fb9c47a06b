use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::config::LinkConfig;

#[tokio::test]
async fn datagrams_cross_both_ways_and_each_client_has_its_own_address() {
    let (server, relay) = relayed(LinkPair::default()).await;
    let (one, other) = (client(&relay).await, client(&relay).await);
    let first = exchange(&one, &server, b"one").await;
    let second = exchange(&other, &server, b"other").await;
    assert_ne!(first, second);
    assert_eq!(exchange(&one, &server, b"again").await, first);
    assert_eq!(relay.stats().up.delivered_packets, 3);
    assert_eq!(relay.stats().down.delivered_packets, 3);
}

#[tokio::test]
async fn a_rebound_client_comes_from_a_new_address() {
    let (server, relay) = relayed(LinkPair::default()).await;
    let client = client(&relay).await;
    let before = exchange(&client, &server, b"before").await;
    relay.rebind();
    assert_ne!(exchange(&client, &server, b"after").await, before);
}

#[tokio::test]
async fn a_round_trip_takes_the_round_trip_time() {
    let (server, relay) = relayed("40ms".parse::<LinkConfig>().unwrap().into()).await;
    let client = client(&relay).await;
    let start = Instant::now();
    exchange(&client, &server, b"ping").await;
    assert!(start.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn headers_count_towards_the_rate() {
    let link = LinkConfig {
        rate: NonZeroU64::new(80_000),
        ..LinkConfig::default()
    };
    let (server, relay) = relayed(link.into()).await;
    let client = client(&relay).await;
    let start = Instant::now();
    // 72 + 28 bytes take 10 ms each way.
    exchange(&client, &server, &[0; 72]).await;
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert_eq!(relay.stats().up.delivered_bytes, 100);
}

#[tokio::test]
async fn a_cut_relay_carries_nothing_until_it_is_mended() {
    let (server, relay) = relayed(LinkPair::default()).await;
    let client = client(&relay).await;
    relay.set_link(relay.link().with_up(false));
    client.send(b"into the void").await.unwrap();
    // The same socket's datagrams reach the relay in order, so the first has met the cut when the
    // relay has seen it.
    while relay.stats().up.cut == 0 {
        tokio::task::yield_now().await;
    }
    relay.set_link(relay.link().with_up(true));
    exchange(&client, &server, b"mended").await;
    assert_eq!(relay.stats().up.delivered_packets, 1);
}

#[tokio::test]
async fn a_server_that_comes_late_is_reached() {
    let reserved = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = reserved.local_addr().unwrap();
    drop(reserved);
    let relay = UdpRelay::start(addr, LinkPair::default(), 1).await.unwrap();
    let client = client(&relay).await;
    client.send(b"nobody listens").await.unwrap();
    while relay.stats().up.delivered_packets == 0 {
        tokio::task::yield_now().await;
    }
    let server = UdpSocket::bind(addr).await.unwrap();
    exchange(&client, &server, b"now").await;
}

#[tokio::test]
async fn a_relay_that_ends_frees_its_port() {
    let (_server, relay) = relayed(LinkPair::default()).await;
    let addr = relay.local_addr();
    relay.shutdown().await;
    UdpSocket::bind(addr).await.unwrap();
}

#[tokio::test]
async fn the_client_that_was_silent_longest_makes_room_for_one_too_many() {
    let (server, relay) = relayed(LinkPair::default()).await;
    let first = client(&relay).await;
    let address = exchange(&first, &server, b"first").await;
    let mut others = Vec::new();
    for _ in 1..MAX_FLOWS {
        others.push(client(&relay).await);
        exchange(&others[others.len() - 1], &server, b"one more").await;
    }
    assert!(
        UdpSocket::bind(address).await.is_err(),
        "the first flow still holds its port"
    );
    let last = client(&relay).await;
    exchange(&last, &server, b"one too many").await;
    while UdpSocket::bind(address).await.is_err() {
        tokio::task::yield_now().await;
    }
}

async fn relayed(link: LinkPair) -> (UdpSocket, UdpRelay) {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    (server, UdpRelay::start(addr, link, 1).await.unwrap())
}

async fn client(relay: &UdpRelay) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(relay.local_addr()).await.unwrap();
    socket
}

/// There and back; returns the client's address as the server sees it.
async fn exchange(client: &UdpSocket, server: &UdpSocket, payload: &[u8]) -> SocketAddr {
    let mut buffer = [0; 2_000];
    client.send(payload).await.unwrap();
    let (len, from) = server.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..len], payload);
    server.send_to(payload, from).await.unwrap();
    let len = client.recv(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..len], payload);
    from
}
