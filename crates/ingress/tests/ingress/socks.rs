//! SOCKS5.

use tunnel_ingress::Way;
use tunnel_model::Reason;

use crate::{
    caller::{GREETING, greet, reply},
    proxy::Proxy,
};

fn ask(host: &str, port: u16) -> Vec<u8> {
    let len = u8::try_from(host.len()).unwrap();
    [&[5, 1, 0, 3, len], host.as_bytes(), &port.to_be_bytes()].concat()
}

#[tokio::test]
async fn a_caller_reaches_a_target_by_name() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    greet(&mut caller).await;
    caller.send(ask("ssh.edge1.edge.test", 22)).await;
    assert_eq!(reply(&mut caller).await, 0);
    let mut end = target.accept().await;
    caller.send("question").await;
    caller.half_close().await;
    assert_eq!(end.until_end().await.unwrap(), b"question");
    end.send("answer").await;
    drop(end);
    assert_eq!(caller.until_end().await.unwrap(), b"answer");
    assert_eq!(proxy.dials()[0].destination.target.to_string(), "service:ssh");
    assert_eq!(proxy.metrics.requests(Way::Socks5), 1);
}

#[tokio::test]
async fn a_caller_that_does_not_wait_for_replies_is_understood() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.send([GREETING, &ask("edge1", 80), b"question"].concat()).await;
    caller.half_close().await;
    assert_eq!(caller.exactly(4).await.unwrap(), [5, 2, 1, 0]);
    assert_eq!(reply(&mut caller).await, 0);
    assert_eq!(target.accept().await.until_end().await.unwrap(), b"question");
}

#[tokio::test]
async fn a_caller_that_dribbles_is_understood() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    for byte in [GREETING, &ask("edge1", 80)].concat() {
        caller.send([byte]).await;
    }
    assert_eq!(caller.exactly(4).await.unwrap(), [5, 2, 1, 0]);
    assert_eq!(reply(&mut caller).await, 0);
    target.accept().await;
}

/// N9
#[tokio::test]
async fn n9_a_target_that_breaks_resets_the_caller() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    greet(&mut caller).await;
    caller.send(ask("edge1", 80)).await;
    assert_eq!(reply(&mut caller).await, 0);
    let mut end = target.accept().await;
    end.send("half of it").await;
    assert_eq!(caller.exactly(4).await.unwrap(), b"half");
    end.reset();
    caller.assert_reset().await;
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let proxy = Proxy::start().await;
    for (host, port, code) in [
        ("nobody", 80, 4),
        ("offline", 80, 4),
        ("denied", 80, 2),
        ("refusing", 80, 5),
        ("slow", 80, 6),
        ("busy", 80, 1),
        ("169.254.169.254", 80, 2),
        ("2852039166", 80, 2),
        ("::1", 80, 2),
        ("offline", 0, 1),
    ] {
        let mut caller = proxy.caller().await;
        greet(&mut caller).await;
        caller.send(ask(host, port)).await;
        assert_eq!(reply(&mut caller).await, code, "{host}:{port}");
        assert_eq!(caller.until_end().await.unwrap(), b"", "{host}:{port}");
    }
    assert_eq!(proxy.dials().len(), 6);
    assert_eq!(proxy.metrics.refusals(Reason::Denied), 4);
}

#[tokio::test]
async fn a_caller_without_a_valid_credential_gets_no_further() {
    let proxy = Proxy::start().await;
    for (greeting, replies) in [
        (&b"\x05\x01\x00"[..], &b"\x05\xff"[..]),
        (b"\x05\x01\x01", b"\x05\xff"),
        (b"\x05\x01\x02\x01\x05alice\x05wrong", b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x00\x00", b"\x05\x02\x01\x01"),
    ] {
        let mut caller = proxy.caller().await;
        caller.send([greeting, &ask("offline", 80)].concat()).await;
        assert_eq!(caller.until_end().await.unwrap(), replies, "{greeting:?}");
    }
    assert_eq!(proxy.dials(), []);
    assert_eq!(proxy.metrics.refusals(Reason::Unauthenticated), 2);
}

#[tokio::test]
async fn other_commands_and_types_of_addresses_are_refused() {
    let proxy = Proxy::start().await;
    for (request, code) in [
        (&b"\x05\x01\x00\x02\xa9\xfe\xa9\xfe\x00\x50"[..], 8),
        (b"\x05\x02\x00\x03\x05edge1\x00\x50", 7),
        (b"\x05\x03\x00\x01\0\0\0\0\0\0", 7),
    ] {
        let mut caller = proxy.caller().await;
        greet(&mut caller).await;
        caller.send(request).await;
        assert_eq!(reply(&mut caller).await, code, "{request:?}");
        assert_eq!(caller.until_end().await.unwrap(), b"");
    }
    assert_eq!(proxy.dials(), []);
}
