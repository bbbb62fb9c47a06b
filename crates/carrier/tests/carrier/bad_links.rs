//! Links that lose, repeat, reorder and spoil what they carry.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};
use tunnel_carrier::{
    Arriving, Carrier, Patience,
    quic::{Dialer, Limits},
    tls::Proxies,
};
use tunnel_identity::tls::Alpn;
use tunnel_linkem::{LinkConfig, Loss, Probability, relay::UdpRelay};

use crate::{
    cluster::{Cluster, PATIENCE, Pair, hello, noise, soon},
    resume::both_ways,
};

/// N3: the edge dials as it does while streams wait, until a gateway has greeted it.
#[tokio::test]
async fn n3_a_gateway_is_reached_where_a_third_of_all_packets_is_lost_in_bursts_both_ways() {
    let cluster = Cluster::new();
    let mut tried = JoinSet::new();
    for seed in 1..=4 {
        let mut server = cluster.serve(&Limits::gateway());
        let link = LinkConfig {
            loss: Loss::bursts(share(0.3), 3.0).unwrap(),
            .."60ms".parse().unwrap()
        };
        let relay = UdpRelay::start(server.local_addr().unwrap(), link.into(), seed)
            .await
            .unwrap();
        let tls = cluster.client_tls(Alpn::Tunnel);
        tried.spawn(async move {
            let greeting = tokio::spawn(async move {
                let mut arriving = JoinSet::new();
                while let Some(accepted) = server.accept().await {
                    arriving.spawn(async move {
                        let arriving = Arriving::accept(accepted.connection, PATIENCE).await?;
                        arriving.answer(hello(), PATIENCE).await
                    });
                }
            });
            let dialer = tunnel_carrier::Dialer::bind(0, Proxies::none()).unwrap();
            let gateways = [quic_address(&relay)];
            let patience = Patience {
                again: Some(Duration::from_millis(750)),
                ..Patience::default()
            };
            loop {
                let Ok(connection) = dialer.dial(&gateways, &tls, patience).await else {
                    continue;
                };
                if Carrier::dial(connection, hello(), PATIENCE).await.is_ok() {
                    break greeting.abort();
                }
            }
        });
    }
    let all = timeout(Duration::from_secs(120), tried.join_all()).await;
    all.expect("a gateway was not reached");
}

fn quic_address(relay: &UdpRelay) -> tunnel_model::GatewayAddr {
    relay.local_addr().to_string().parse().unwrap()
}

/// N8: each byte is compared at the other end.
#[tokio::test]
async fn n8_nothing_is_lost_doubled_or_spoilt_where_packets_are_from_carrier_to_carrier() {
    let link = LinkConfig {
        duplicate: share(0.05),
        reorder: share(0.05),
        corrupt: share(0.02),
        ..LinkConfig::default()
    };
    let (mut pair, relay) = Pair::over(link, 8, &Limits::gateway()).await;
    let (mut near, mut far) = pair.stream().await;
    for round in 0..4 {
        let moved = timeout(Duration::from_secs(60), both_ways(&mut near, &mut far, 700_000 + round)).await;
        moved.expect("the stream stands still");
        if round % 2 == 0 {
            pair.next_carrier_by_tls().await;
        } else {
            pair.next_carrier().await;
        }
    }
    let stats = relay.stats();
    for way in [stats.up, stats.down] {
        assert!(way.duplicated > 0 && way.corrupted > 0 && way.reordered > 0, "{way:?}");
    }
}

/// By Cubic alone it would come to some ten packets.
#[tokio::test]
async fn losses_by_chance_leave_the_congestion_window_wide() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let link: LinkConfig = "50ms,2%".parse().unwrap();
    let relay = UdpRelay::start(server.local_addr().unwrap(), link.into(), 2)
        .await
        .unwrap();
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let addresses = [relay.local_addr()];
    let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    let (edge, gateway) = (dialled.unwrap(), accepted.unwrap().connection);
    let (mut send, _recv) = gateway.open_bi().await.unwrap();
    let sending = async {
        send.write_all(&noise(6_000_000)).await.unwrap();
        send.finish().unwrap();
    };
    let reading = async {
        let (_send, mut recv) = edge.accept_bi().await.unwrap();
        recv.read_to_end(6_000_000).await.unwrap()
    };
    let ((), read) = soon("6 MB", async { tokio::join!(sending, reading) }).await;
    assert_eq!(read.len(), 6_000_000);
    let window = gateway.congestion_state().window();
    assert!(window >= 256 * 1024, "{window}");
}

fn share(of: f64) -> Probability {
    Probability::new(of).unwrap()
}
