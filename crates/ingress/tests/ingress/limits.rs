//! Deadlines, bounds and the end of it all.

use std::{future::pending, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_daemon::shutdown::{self, Deadlines, SignalSource};
use tunnel_ingress::Limits;
use tunnel_model::Reason;

use crate::{
    caller::Caller,
    proxy::{ALICE, Proxy},
};

/// Short enough for a test to wait for, where being cut is what it waits for.
const SOON: Duration = Duration::from_millis(50);

fn quick_handshake() -> Limits {
    Limits {
        handshake: SOON,
        ..Limits::default()
    }
}

/// B8
#[tokio::test]
async fn b8_a_caller_that_says_nothing_is_cut() {
    let proxy = Proxy::with_limits(quick_handshake()).await;
    proxy.caller().await.assert_reset().await;
}

/// B8
#[tokio::test]
async fn b8_a_byte_at_a_time_is_cut_at_the_deadline() {
    let proxy = Proxy::with_limits(quick_handshake()).await;
    // The beginning of a long method, and of a greeting with 255 SOCKS5 methods.
    for (first, told) in [("GET", "HTTP/1.1 408 Request Timeout\r\n"), ("\x05\x7f", "")] {
        let mut caller = proxy.caller().await;
        caller.send(first).await;
        let (mut read, mut write) = caller.io.into_split();
        let dribbling = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(5));
            while write.write_all(b"x").await.is_ok() {
                every.tick().await;
            }
        });
        let mut answer = Vec::new();
        // The end may be a reset: the caller never stops talking.
        let _ = read.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with(told) && answer.is_empty() == told.is_empty(),
            "{answer}"
        );
        dribbling.abort();
    }
    assert_eq!(proxy.metrics.refusals(Reason::BadRequest), 2);
}

#[tokio::test]
async fn a_later_head_has_the_same_deadline() {
    let proxy = Proxy::with_limits(quick_handshake()).await;
    proxy.node("edge1").await.answer_all();
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", "").await;
    assert_eq!(caller.message().await.unwrap().status(), 200);
    caller.send("GET http://edge1/ HT").await;
    assert_eq!(caller.message().await.unwrap().status(), 408);
}

#[tokio::test]
async fn an_idle_connection_ends_in_order() {
    let proxy = Proxy::with_limits(Limits {
        idle: SOON,
        ..Limits::default()
    })
    .await;
    let target = proxy.node("edge1").await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.message().await.unwrap().status(), 200);
    assert_eq!(caller.until_end().await.unwrap(), b"");
    assert_eq!(end.until_end().await.unwrap(), b"");
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_turned_away_and_comes_back() {
    let proxy = Proxy::with_limits(Limits {
        per_address: 2,
        ..Limits::default()
    })
    .await;
    proxy.node("edge1").await.answer_all();
    let (mut first, mut second) = (proxy.caller().await, proxy.caller().await);
    for caller in [&mut first, &mut second] {
        caller.request("GET", "http://edge1/", "").await;
        assert_eq!(caller.message().await.unwrap().status(), 200);
    }
    proxy.caller().await.assert_reset().await;
    first.half_close().await;
    assert_eq!(first.until_end().await.unwrap(), b"");
    drop(first);
    // The place is free once the proxy has seen the end, which the caller cannot see.
    loop {
        let mut again = proxy.caller().await;
        let request = format!("GET http://edge1/ HTTP/1.1\r\nHost: edge1\r\nProxy-Authorization: {ALICE}\r\n\r\n");
        if again.io.write_all(request.as_bytes()).await.is_ok() && again.message().await.is_ok() {
            break;
        }
    }
    second.request("GET", "http://edge1/", "").await;
    assert_eq!(second.message().await.unwrap().status(), 200);
}

/// What a sender gets rid of while nobody reads at the other end, in bytes; kernels buffer a few MiB on loopback.
const HELD: usize = 24 * 1024 * 1024;

#[tokio::test]
async fn a_reader_that_never_reads_stops_the_sender() {
    let proxy = Proxy::start().await;
    let target = proxy.node("edge1").await;
    let (mut one, mut other, mut third) = (proxy.caller().await, proxy.caller().await, proxy.caller().await);

    one.connect("edge1:80").await;
    let mut end = target.accept().await;
    assert_bounded("a tunnel's target", &mut end).await;
    other.connect("edge1:80").await;
    let _end = target.accept().await;
    assert_bounded("a tunnel's caller", &mut other).await;

    third
        .request("POST", "http://edge1/", "Content-Length: 1000000000")
        .await;
    let mut end = target.accept().await;
    end.head().await.unwrap();
    assert_bounded("a request's caller", &mut third).await;
    end.send("HTTP/1.1 200 OK\r\n\r\n").await;
    assert_bounded("an answer's target", &mut end).await;

    let mut early = proxy.caller().await;
    early.request("CONNECT", "never:80", "").await;
    assert_bounded("a caller that does not wait for its tunnel", &mut early).await;
}

async fn assert_bounded(who: &str, sender: &mut Caller) {
    let chunk = [0; 64 * 1024];
    let mut sent = 0;
    // So long without a byte: the sender is stopped, not slow.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), sender.io.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < HELD, "{who} got rid of {sent} bytes that nobody read");
    }
}

#[tokio::test]
async fn once_stopping_the_idle_end_at_once_and_the_busy_after_their_request() {
    let proxy = Proxy::start().await;
    let target = proxy.node("edge1").await;
    let (mut idle, mut busy, mut mute) = (proxy.caller().await, proxy.caller().await, proxy.caller().await);
    for caller in [&mut idle, &mut busy] {
        caller.request("GET", "http://edge1/", "").await;
        let mut end = target.accept().await;
        end.message().await.unwrap();
        end.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
        caller.message().await.unwrap();
    }
    busy.request("GET", "http://edge1/", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();

    proxy.tasks.stop();
    assert_eq!(idle.until_end().await.unwrap(), b"");
    assert_eq!(mute.until_end().await.unwrap(), b"");
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = busy.message().await.unwrap();
    assert_eq!(
        (&answer.body[..], answer.field("connection")),
        (&b"ok"[..], Some("close"))
    );
    assert_eq!(busy.until_end().await.unwrap(), b"");
}

/// N9
#[tokio::test]
async fn n9_what_is_still_open_when_drain_is_over_is_reset() {
    let proxy = Proxy::start().await;
    let target = proxy.node("edge1").await;
    let (mut tunnel, mut plain) = (proxy.caller().await, proxy.caller().await);
    tunnel.connect("edge1:80").await;
    let mut tunnelled = target.accept().await;
    tunnelled.send("half of it").await;
    assert_eq!(tunnel.exactly(4).await.unwrap(), b"half");
    plain.request("GET", "http://edge1/", "").await;
    let mut passed = target.accept().await;
    passed.message().await.unwrap();
    passed.send("HTTP/1.1 200 OK\r\n\r\nwithout a length").await;
    plain.head().await.unwrap();

    proxy.tasks.stop();
    let deadlines = Deadlines {
        drain: SOON,
        ..Deadlines::default()
    };
    let ended = shutdown::run(&proxy.tasks, NoSignal, deadlines).await.unwrap();
    assert_eq!(ended.cut, 2);
    for end in [&mut tunnel, &mut tunnelled, &mut plain, &mut passed] {
        end.assert_reset().await;
    }
}

struct NoSignal;

impl SignalSource for NoSignal {
    async fn recv(&mut self) -> &'static str {
        pending().await
    }
}
