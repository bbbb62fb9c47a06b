//! Other protocols after HTTP.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, protocol::Role},
};
use tunnel_ingress::Way;

use crate::{proxy::Proxy, target::Target};

const OFFER: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: echo";

/// The fields of a WebSocket handshake (RFC 6455 section 1.3).
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn a_websocket_passes_a_plain_proxy() {
    let (proxy, target) = Proxy::with_target().await;
    let echoing = tokio::spawn(echo(target));
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/chat", WEBSOCKET).await;
    let answer = caller.head().await.unwrap();
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("websocket")));
    assert_eq!(
        answer.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    converse(WebSocketStream::from_raw_socket(caller.io, Role::Client, None).await).await;
    echoing.await.unwrap();
    assert_eq!(proxy.metrics.requests(Way::Upgrade), 1);
}

#[tokio::test]
async fn a_websocket_passes_a_tunnel() {
    let (proxy, target) = Proxy::with_target().await;
    let echoing = tokio::spawn(echo(target));
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let (socket, _) = client_async("ws://edge1/chat", caller.io).await.unwrap();
    converse(socket).await;
    echoing.await.unwrap();
}

/// Echoes the messages of one WebSocket until it is closed.
async fn echo(target: Target) {
    let mut socket = accept_async(target.accept().await.io).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.unwrap();
        }
    }
}

async fn converse(mut socket: WebSocketStream<TcpStream>) {
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn what_follows_the_switch_at_once_is_not_lost() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", OFFER).await;
    let mut end = target.accept().await;
    let request = end.message().await.unwrap();
    assert_eq!(
        (request.field("connection"), request.field("upgrade")),
        (Some("Upgrade"), Some("echo"))
    );
    end.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome")
        .await;
    assert_eq!(caller.head().await.unwrap().status(), 101);
    assert_eq!(caller.exactly(7).await.unwrap(), b"welcome");
    caller.send("thanks").await;
    caller.half_close().await;
    assert_eq!(end.until_end().await.unwrap(), b"thanks");
    end.send("bye").await;
    drop(end);
    assert_eq!(caller.until_end().await.unwrap(), b"bye");
}

/// B15
#[tokio::test]
async fn b15_bytes_right_after_an_offer_are_refused() {
    let (proxy, _target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    let offer = format!("GET http://edge1/ HTTP/1.1\r\nHost: edge1\r\n{OFFER}\r\n\r\n");
    caller
        .send(format!("{offer}GET /admin HTTP/1.1\r\nHost: edge1\r\n\r\n"))
        .await;
    let all = String::from_utf8(caller.until_end().await.unwrap()).unwrap();
    assert!(
        all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1").count() == 1,
        "{all}"
    );
    assert_eq!(proxy.dials(), []);
}

/// B15
#[tokio::test]
async fn b15_bytes_between_an_offer_and_its_answer_are_refused_and_reach_nobody() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", OFFER).await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    caller.send("GET /admin HTTP/1.1\r\nHost: edge1\r\n\r\n").await;
    let all = String::from_utf8(caller.until_end().await.unwrap()).unwrap();
    assert!(
        all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1").count() == 1,
        "{all}"
    );
    end.assert_reset().await;
}

/// B16
#[tokio::test]
async fn b16_the_stream_of_a_failed_upgrade_is_not_used_again() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", OFFER).await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = caller.message().await.unwrap();
    assert_eq!(
        (answer.status(), answer.field("connection"), &answer.body[..]),
        (200, Some("close"), &b"no"[..])
    );
    caller
        .send("GET http://edge1/admin HTTP/1.1\r\nHost: edge1\r\n\r\n")
        .await;
    assert_eq!(caller.until_end().await.unwrap(), b"");
    assert_eq!(
        end.until_end().await.unwrap(),
        b"",
        "nothing followed on the target's connection"
    );
}
