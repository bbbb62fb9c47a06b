use bytes::Bytes;
use futures_util::FutureExt as _;
use tunnel_carrier::{Flow, quic::Limits};
use tunnel_model::{Protocol, Reason, Refusal};
use tunnel_proto::{Open, StreamId, encode_datagram};

use crate::cluster::{PATIENCE, Pair, open, soon};

#[tokio::test]
async fn packets_go_both_ways_whole_and_the_first_come_with_the_header() {
    let mut pair = Pair::new().await;
    let mut near = start(&pair, &["early", ""]).await;
    let far = async {
        let mut far = accept(&mut pair).await;
        assert_eq!(receive(&mut far, 2).await, ["early", ""]);
        assert!(far.send(b"answer") && far.send(b""));
        far
    };
    let (mut heard, far) = tokio::join!(receive(&mut near, 2), far);
    heard.sort_unstable();
    assert_eq!(heard, ["", "answer"]);
    assert!(near.send(b"late"));
    let mut far = far;
    assert_eq!(receive(&mut far, 1).await, ["late"]);
}

#[tokio::test]
async fn a_packet_larger_than_a_datagram_arrives_too() {
    let mut pair = Pair::new().await;
    let mut near = start(&pair, &["ask"]).await;
    let large = "x".repeat(20_000);
    let far = async {
        let mut far = accept(&mut pair).await;
        assert_eq!(receive(&mut far, 1).await, ["ask"]);
        assert!(!far.send(&[0; 70_000]), "longer than UDP carries");
        assert!(far.send(large.as_bytes()));
        // Nothing comes, but it moves what goes out.
        let _ = far.recv_many(&mut Vec::new()).await;
    };
    tokio::select! {
        heard = receive(&mut near, 1) => assert_eq!(heard[0], large),
        () = far => panic!("the flow is over"),
    }
}

#[tokio::test]
async fn a_flow_that_does_not_stand_takes_so_many_packets_and_no_more() {
    let pair = Pair::new().await;
    let near = start(&pair, &[]).await;
    let taken = (0..100).filter(|_| near.send(b"early")).count();
    assert_eq!(taken, 16);
    assert_eq!(pair.gateway.tunnel.status().unwrap().dropped_packets, 84);
}

#[tokio::test]
async fn a_refusal_and_a_reset_reach_whoever_waits_for_packets() {
    let mut pair = Pair::new().await;
    let refusal = Refusal::new(Reason::NotAllowed, "edge1 does not allow udp:127.0.0.1:53");
    let mut near = start(&pair, &["early"]).await;
    let (_, answer) = tokio::select! {
        incoming = pair.edge.incoming.recv() => incoming.unwrap().into_parts(),
        _ = next(&mut near) => panic!("nobody has answered"),
    };
    answer.refuse(&refusal).await;
    assert_eq!(next(&mut near).await.unwrap_err(), refusal);

    let mut near = start(&pair, &["early"]).await;
    let far = tokio::select! {
        far = accept(&mut pair) => far,
        _ = next(&mut near) => panic!("nobody has answered"),
    };
    far.reset(&Refusal::new(Reason::TargetRefused, "nothing listens there"));
    assert_eq!(next(&mut near).await.unwrap_err().reason, Reason::TargetRefused);
    drop(near);
    while pair.gateway.tunnel.open_streams() + pair.edge.tunnel.open_streams() > 0 {
        tokio::task::yield_now().await;
    }
}

/// T2: a hostile edge sends datagrams for flows that are not its own.
#[tokio::test]
async fn t2_datagrams_for_unknown_flows_are_dropped_and_counted() {
    let cluster = crate::cluster::Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let dialer = tunnel_carrier::quic::Dialer::bind(0, Limits::edge()).unwrap();
    let tls = cluster.client_tls(tunnel_identity::tls::Alpn::Tunnel);
    let addresses = [server.local_addr().unwrap()];
    let (dialled, accepted) = tokio::join!(dialer.dial_addresses(&addresses, tls), server.accept());
    let hostile = dialled.unwrap();
    let (edge, gateway) = crate::cluster::greet(hostile.clone(), accepted.unwrap()).await;
    for id in 0..100_000 {
        let _ = hostile.send_datagram(encode_datagram(StreamId(id), &[7; 64]));
        // A datagram that ends within its number.
        let _ = hostile.send_datagram(Bytes::from_static(&[0xc0, 1]));
        if id % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    soon("the drops", async {
        while gateway.tunnel.status().unwrap().dropped_packets < 1000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The session is none the worse.
    soon("a pong", edge.tunnel.ping()).await.unwrap();
    assert_eq!(gateway.tunnel.open_streams(), 0);
}

/// T2: what waits for the readers of flows is bounded for all flows of a session together, however large the packets are.
#[tokio::test]
async fn t2_flows_that_nobody_reads_hold_half_a_mebibyte_and_no_more() {
    const SIZE: usize = 1000;
    let mut pair = Pair::new().await;
    let mut flows = Vec::new();
    for _ in 0..4 {
        flows.push(stand(&mut pair).await);
    }
    // As many as all four would hold if only their number counted.
    for round in 0..256 {
        for (near, _) in &flows {
            near.send(&[1; SIZE]);
        }
        if round % 8 == 0 {
            soon("a pong, behind the packets", pair.gateway.tunnel.ping())
                .await
                .unwrap();
        }
    }
    soon("drops", async {
        while pair.edge.tunnel.status().unwrap().dropped_packets < 256 {
            flows[0].0.send(&[1; SIZE]);
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut held = Vec::new();
    for (_, far) in &mut flows {
        while let Some(Ok(())) = far.recv_many(&mut held).now_or_never() {}
    }
    let bytes = held.len() * SIZE;
    assert!((400_000..512 * 1024).contains(&bytes), "{bytes} bytes waited");
    // What was read makes room.
    let (near, far) = &mut flows[3];
    soon("a packet", async {
        near.send(b"now");
        far.recv_many(&mut held).await.unwrap();
    })
    .await;
    assert_eq!(held.last().unwrap(), "now");
}

/// R1: a reader that is slow loses packets of its own flow, and of no other.
#[tokio::test]
async fn r1_a_flow_that_nobody_reads_holds_so_many_packets_and_delays_no_other() {
    let mut pair = Pair::new().await;
    let (slow, slow_far) = stand(&mut pair).await;
    let (quick, mut quick_far) = stand(&mut pair).await;
    for _ in 0..50 {
        for _ in 0..50 {
            slow.send(&[1; 100]);
        }
        soon("a packet of the other flow", async {
            quick.send(b"quick");
            while next(&mut quick_far).await.is_err() {}
        })
        .await;
    }
    soon("drops", async {
        while pair.edge.tunnel.status().unwrap().dropped_packets == 0 {
            slow.send(&[1; 100]);
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(slow_far);
}

async fn stand(pair: &mut Pair) -> (Flow, Flow) {
    let mut near = start(pair, &["first"]).await;
    let (far, answered) = tokio::join!(accept(pair), near.established());
    answered.unwrap();
    let mut far = far;
    assert_eq!(receive(&mut far, 1).await, ["first"]);
    (near, far)
}

async fn start(pair: &Pair, packets: &[&str]) -> Flow {
    let open = Open {
        protocol: Protocol::Udp,
        ..open("udp:53")
    };
    let flow = pair.gateway.tunnel.open(&open, PATIENCE).await.unwrap().into_flow();
    for packet in packets {
        assert!(flow.send(packet.as_bytes()));
    }
    flow
}

async fn accept(pair: &mut Pair) -> Flow {
    let (open, answer) = soon("a flow", pair.edge.incoming.recv()).await.unwrap().into_parts();
    assert_eq!(open.protocol, Protocol::Udp);
    answer.accept_flow().await.unwrap()
}

/// So many packets.
async fn receive(flow: &mut Flow, count: usize) -> Vec<String> {
    let mut packets = Vec::new();
    while packets.len() < count {
        soon("packets", flow.recv_many(&mut packets)).await.unwrap();
    }
    packets
        .into_iter()
        .map(|p| String::from_utf8(p.to_vec()).unwrap())
        .collect()
}

/// What comes next, or why nothing does.
async fn next(flow: &mut Flow) -> Result<Vec<Bytes>, Refusal> {
    let mut packets = Vec::new();
    soon("packets", flow.recv_many(&mut packets)).await.map(|()| packets)
}
