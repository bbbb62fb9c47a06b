use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tunnel_e2e::{Need, Service, Site, require};

use crate::stream::head;
use crate::world::{SOON, World};

const PORT: u16 = 8081;

#[tokio::test]
async fn websocket_messages_come_back_through_connect() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, edge) = World::with_edge(Site::new().link("20mbit,40ms,0.5%")).await?;
    world.offer(&edge, Service::WsEcho, PORT).await?;
    let stream = world.connect("edge1:8081").await?;
    let (socket, _) = timeout(SOON, tokio_tungstenite::client_async("ws://edge1:8081/", stream)).await??;
    exchange(socket).await
}

#[tokio::test]
async fn websocket_messages_come_back_through_plain_proxying() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, edge) = World::with_edge(Site::new()).await?;
    world.offer(&edge, Service::WsEcho, PORT).await?;
    let mut stream = BufReader::new(world.client().connect(world.proxy()).await?);
    let request = format!(
        "GET http://edge1:8081/ HTTP/1.1\r\nHost: edge1:8081\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n{}\r\n",
        generate_key(),
        world.user.field(),
    );
    stream.write_all(request.as_bytes()).await?;
    let head = timeout(SOON, head(&mut stream)).await.context("no answer")??;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    exchange(WebSocketStream::from_raw_socket(stream, Role::Client, None).await).await
}

pub(super) async fn exchange(mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) -> anyhow::Result<()> {
    for message in [Message::text("there and back"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await?;
        let echo = timeout(SOON, socket.next()).await.context("no echo")?;
        assert_eq!(echo.context("closed")??, message);
    }
    socket.close(None).await?;
    // The other side's close, and then the end.
    timeout(SOON, async {
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await
    .context("the socket was not closed")
}
