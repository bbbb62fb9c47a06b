//! HTTP to a port where `Host` decides.

use std::sync::atomic::Ordering;

use tunnel_ingress::{Door, Way};
use tunnel_model::{Host, HostPort, Principal, Reason, is_local};

use crate::{
    caller::{Caller, Message},
    proxy::{ALICE, BOB, Proxy},
    spellings::{SPELLINGS, Verdict},
};

const OFFER: &str = "Connection: Upgrade\r\nUpgrade: echo\r\n";

#[tokio::test]
async fn the_host_says_which_node_and_the_port_which_target() {
    let proxy = Proxy::door(Door::Http).await;
    proxy.node("edge1").await.answer_all();
    let mut caller = proxy.caller().await;
    for (host, destination) in [
        ("edge1", "edge1:port:80"),
        ("edge1.edge.test:8080", "edge1:port:8080"),
        ("web.Edge1.edge.test", "edge1:service:web"),
        ("web.edge1.edge.test.:7081", "edge1:service:web"),
        ("10.1.2.3.via.edge1.edge.test", "edge1:tcp:10.1.2.3:80"),
    ] {
        let answer = get(&mut caller, host, "").await;
        assert_eq!(answer.status(), 200, "{host}");
        // What the target got, host as it was written.
        let seen = String::from_utf8(answer.body).unwrap();
        assert!(
            seen.starts_with(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n")),
            "{seen}"
        );
        let dialled = proxy.dials().pop().unwrap();
        assert_eq!(dialled.destination, destination.parse().unwrap(), "{host}");
        assert_eq!((dialled.way, dialled.principal), (Way::Host, localhost()));
    }
    assert_eq!(proxy.metrics.requests(Way::Host), 5);
}

#[tokio::test]
async fn a_connection_lasts_and_each_host_keeps_its_own_target() {
    let proxy = Proxy::door(Door::Http).await;
    proxy.node("edge1").await.answer_all();
    proxy.node("edge2").await.answer_all();
    let mut caller = proxy.caller().await;
    for host in ["edge1", "edge1", "edge2", "edge1"] {
        let answer = get(&mut caller, host, "").await;
        assert!(
            String::from_utf8(answer.body)
                .unwrap()
                .contains(&format!("Host: {host}\r\n"))
        );
    }
    let nodes: Vec<_> = proxy.dials().iter().map(|d| d.destination.node.to_string()).collect();
    assert_eq!(nodes, ["edge1", "edge2", "edge1"]);
}

#[tokio::test]
async fn a_credential_for_the_target_goes_on_and_one_for_the_gateway_stays() {
    let proxy = Proxy::door(Door::Http).await;
    proxy.node("edge1").await.answer_all();
    let mut caller = proxy.caller().await;
    let fields = format!("Authorization: Bearer theirs\r\nProxy-Authorization: {ALICE}\r\n");
    let answer = get(&mut caller, "edge1", &fields).await;
    let seen = String::from_utf8(answer.body).unwrap();
    assert!(seen.contains("Authorization: Bearer theirs\r\n"), "{seen}");
    assert!(!seen.contains("Proxy-Authorization"), "{seen}");
    assert_eq!(proxy.dials()[0].principal.to_string(), "user:alice");

    // Another principal on the same connection has a stream of its own: rights were checked when one was opened.
    get(&mut caller, "edge1", &format!("Proxy-Authorization: {BOB}\r\n")).await;
    get(&mut caller, "edge1", "").await;
    let who: Vec<_> = proxy.dials().iter().map(|d| d.principal.to_string()).collect();
    assert_eq!(who, ["user:alice", "user:bob", "cidr:127.0.0.1"]);
}

#[tokio::test]
async fn a_credential_for_the_target_is_none_for_the_gateway() {
    let proxy = Proxy::door(Door::Http).await;
    proxy.gateway.trusting.store(false, Ordering::Relaxed);
    let _target = proxy.node("edge1").await;
    for fields in [
        "",
        "Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
        "Proxy-Authorization: Basic eDp5\r\n",
    ] {
        let mut caller = proxy.caller().await;
        let answer = get(&mut caller, "edge1", fields).await;
        assert_eq!(
            (answer.status(), answer.field("tunnel-reason")),
            (403, Some("unauthenticated")),
            "{fields}"
        );
        assert_eq!(answer.field("proxy-authenticate"), None);
    }
    assert_eq!(proxy.dials(), []);
}

#[tokio::test]
async fn a_refusal_says_why_and_the_connection_goes_on() {
    let proxy = Proxy::door(Door::Http).await;
    let mut caller = proxy.caller().await;
    for (host, status, reason) in [
        ("nobody", 404, "unknown-node"),
        ("denied", 403, "denied"),
        ("www.example.com", 403, "denied"),
        ("offline", 503, "node-offline"),
        ("refusing", 502, "target-refused"),
    ] {
        let answer = get(&mut caller, host, "").await;
        assert_eq!(
            (answer.status(), answer.field("tunnel-reason")),
            (status, Some(reason)),
            "{host}"
        );
    }
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let proxy = Proxy::door(Door::Http).await;
    for hello in [
        &b"CONNECT edge1:22 HTTP/1.1\r\nHost: edge1:22\r\n\r\n"[..],
        b"\x05\x01\0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    ] {
        let mut caller = proxy.caller().await;
        caller.send(hello).await;
        assert_eq!(caller.message().await.unwrap().status(), 400, "{hello:?}");
    }
    assert_eq!(proxy.dials(), []);
}

#[tokio::test]
async fn an_upgrade_passes_where_host_decides() {
    let proxy = Proxy::door(Door::Http).await;
    let target = proxy.node("edge1").await;
    let mut caller = proxy.caller().await;
    caller
        .send(format!("GET / HTTP/1.1\r\nHost: edge1\r\n{OFFER}\r\n"))
        .await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome")
        .await;
    assert_eq!(caller.head().await.unwrap().status(), 101);
    assert_eq!(caller.exactly(7).await.unwrap(), b"welcome");
    caller.send("thanks").await;
    caller.half_close().await;
    assert_eq!(end.until_end().await.unwrap(), b"thanks");
    drop(end);
    assert_eq!(caller.until_end().await.unwrap(), b"");
    assert_eq!(proxy.metrics.requests(Way::Upgrade), 1);
}

/// B15
#[tokio::test]
async fn b15_bytes_after_an_offer_are_refused_where_host_decides() {
    let proxy = Proxy::door(Door::Http).await;
    let target = proxy.node("edge1").await;
    let offer = format!("GET / HTTP/1.1\r\nHost: edge1\r\n{OFFER}\r\n");
    let smuggled = "GET /admin HTTP/1.1\r\nHost: edge1\r\n\r\n";
    let mut caller = proxy.caller().await;
    caller.send(format!("{offer}{smuggled}")).await;
    assert_one_refusal(&mut caller).await;
    assert_eq!(proxy.dials(), []);

    let mut caller = proxy.caller().await;
    caller.send(&offer).await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    caller.send(smuggled).await;
    assert_one_refusal(&mut caller).await;
    end.assert_reset().await;
}

/// B16
#[tokio::test]
async fn b16_the_stream_of_a_failed_upgrade_is_not_used_again_where_host_decides() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let proxy = Proxy::door(Door::Http).await;
        let target = proxy.node("edge1").await;
        let mut caller = proxy.caller().await;
        caller
            .send(format!("GET / HTTP/1.1\r\nHost: edge1\r\n{OFFER}\r\n"))
            .await;
        let mut end = target.accept().await;
        end.message().await.unwrap();
        end.send(answer).await;
        assert_eq!(caller.message().await.unwrap().field("connection"), Some("close"));
        caller.send("GET /admin HTTP/1.1\r\nHost: edge1\r\n\r\n").await;
        assert_eq!(caller.until_end().await.unwrap(), b"");
        assert_eq!(end.until_end().await.unwrap(), b"", "{answer}");
    }
}

/// N9
#[tokio::test]
async fn n9_a_cut_answer_does_not_look_whole_where_host_decides() {
    let proxy = Proxy::door(Door::Http).await;
    let target = proxy.node("edge1").await;
    for head in ["", "Transfer-Encoding: chunked\r\n", "Content-Length: 100\r\n"] {
        let mut caller = proxy.caller().await;
        caller.send("GET / HTTP/1.1\r\nHost: edge1\r\n\r\n").await;
        let mut end = target.accept().await;
        end.message().await.unwrap();
        end.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n4\r\nhalf")).await;
        caller.head().await.unwrap();
        caller.exactly(7).await.unwrap();
        end.reset();
        caller.assert_reset().await;
    }
}

/// B14: with routes to everything approved, what is dialled is the address that `Host` spells, or a node of that name.
#[tokio::test]
async fn b14_no_host_is_read_as_another_address_than_it_spells() {
    let proxy = Proxy::door(Door::Http).await;
    proxy.everything_routed();
    for &(spelling, verdict) in SPELLINGS {
        let before = proxy.dials().len();
        let mut caller = proxy.caller().await;
        caller
            .send(format!(
                "GET / HTTP/1.1\r\nHost: {spelling}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        let said = caller.message().await.unwrap().status();
        let dialled = proxy.dials().get(before).map(|dial| dial.destination.to_string());
        match verdict {
            Verdict::Is(ip, port) if !is_local(ip.parse().unwrap()) => {
                let target = HostPort::from_ip(ip.parse().unwrap(), port);
                assert_eq!(dialled, Some(format!("edge1:tcp:{target}")), "{spelling:?}");
            }
            Verdict::Ours(_) => {
                let named = Host::parse(spelling, &"edge.test".parse().unwrap());
                let Ok(Host::Named(destination)) = named else {
                    assert_eq!(dialled, None, "{spelling:?}");
                    continue;
                };
                assert!(
                    dialled.is_none() || dialled == Some(destination.to_string()),
                    "{spelling:?}"
                );
            }
            Verdict::Is(..) | Verdict::No => {
                assert_eq!(dialled, None, "{spelling:?}");
                assert!(matches!(said, 400 | 403), "{spelling:?}: {said}");
            }
        }
    }
}

async fn get(caller: &mut Caller, host: &str, fields: &str) -> Message {
    caller
        .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
        .await;
    caller.message().await.unwrap()
}

async fn assert_one_refusal(caller: &mut Caller) {
    let all = String::from_utf8(caller.until_end().await.unwrap()).unwrap();
    assert!(
        all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1").count() == 1,
        "{all}"
    );
}

fn localhost() -> Principal {
    Principal::address([127, 0, 0, 1].into())
}

/// The refusals count as others do.
#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let proxy = Proxy::door(Door::Http).await;
    let mut caller = proxy.caller().await;
    get(&mut caller, "nobody", "").await;
    assert_eq!(proxy.metrics.refusals(Reason::UnknownNode), 1);
}
