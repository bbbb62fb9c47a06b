//! What edges with valid certificates can make a gateway hold, each by itself and without anybody's leave.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tunnel_carrier::{CarrierKind, Connection, Dialer, tls};
use tunnel_identity::JoinToken;
use tunnel_model::{Offer, Reason, Refusal, Service};
use tunnel_proto::{
    Config, Control, FrameReader, Hello, MAX_CONTROL_FRAME, MAX_HEADER_FRAME, StreamId, VERSIONS, check_offer,
    encode_datagram,
};

use crate::{fleet, process::resident};

/// So many edges at once, that each of them counts.
pub(crate) const PEERS: usize = 64;
/// What each may make the gateway hold.
pub(crate) const PER_PEER: u64 = 1024 * 1024;

/// Datagrams for flows that nobody has, and how large they are.
const DATAGRAMS: u64 = 4_000;
const DATAGRAM: usize = 1_000;
/// Streams that are said to be void before they are opened; a gateway keeps in mind the last 1024 of them.
const VOID: u64 = 1_200;
/// The longest text that a message may have.
const TEXT: usize = 256;
/// What a gateway takes over TLS of a stream that it has not looked at, in bytes.
const UNASKED: usize = 12 * 1024;
/// How many headers a gateway reads at once.
const LOOKED_AT: usize = 16;
/// Until no more room for streams is told.
const NO_MORE_ROOM: Duration = Duration::from_millis(500);
/// How long the gateway is watched afterwards: below the ten seconds after which it gives up on what never ends.
const WATCHED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that a gateway holds for each of so many such edges that come this way, at the most.
pub(crate) async fn measure(gateway: u32, token: JoinToken, kind: CarrierKind) -> anyhow::Result<u64> {
    eprintln!("hostile: {PEERS} edges by {kind}");
    let dialer = Dialer::bind(0, tls::Proxies::none())?.only(Some(kind));
    let token = Arc::new(token);
    let before = resident(gateway)?;
    let mut peers = JoinSet::new();
    for _ in 0..PEERS {
        let (dialer, token) = (dialer.clone(), Arc::clone(&token));
        peers.spawn(async move {
            let connection = fleet::member(&dialer, &token).await?;
            timeout(PATIENCE, Peer::pin(connection)).await?
        });
    }
    // None of them leaves before the last has done what it can.
    let mut kept = Vec::new();
    while let Some(peer) = peers.join_next().await {
        kept.push(peer??);
    }
    let (mut most, until) = (0, Instant::now() + WATCHED);
    let mut every = interval(Duration::from_millis(50));
    while Instant::now() < until {
        every.tick().await;
        most = most.max(resident(gateway)?);
    }
    for peer in &kept {
        if let Some(why) = peer.cut() {
            anyhow::bail!("a hostile edge was cut before it was measured: {why}");
        }
    }
    Ok(most.saturating_sub(before) / PEERS as u64)
}

/// An edge that stays within the protocol and has nothing but bad intentions.
struct Peer {
    connection: Connection,
    _streams: Vec<Stream>,
}

impl Peer {
    /// Has the gateway hold as much as it can be made to.
    async fn pin(connection: Connection) -> anyhow::Result<Self> {
        let mut control = Stream::open(&connection).await?.context("no room for one stream")?;
        let mut said = BytesMut::new();
        said.put(Control::Hello(hello()).encode());
        said.put(Control::Offer(large_offer()?).encode());
        for n in 0..VOID {
            said.put(
                Control::Reset {
                    id: StreamId(1_000_001 + 2 * n),
                    refusal: Refusal::new(Reason::Cancelled, "x".repeat(TEXT)),
                }
                .encode(),
            );
        }
        said.put(Control::Ping(7).encode());
        control.write(&said).await?;
        answered(&mut control, &Control::Pong(7)).await?;
        // A frame that is as long as one may be, and never ends.
        control.write(&unfinished(MAX_CONTROL_FRAME)).await?;
        let mut streams = vec![control];
        // As many as the gateway lets it open.
        while let Some(mut stream) = Stream::open(&connection).await? {
            // Headers that never end either; or more than a header, where the gateway has too many to look at.
            stream.write(&unfinished(MAX_HEADER_FRAME)).await?;
            if matches!(stream, Stream::Tls(..)) && streams.len() > LOOKED_AT {
                stream.write(&vec![7; UNASKED - MAX_HEADER_FRAME]).await?;
            }
            streams.push(stream);
        }
        if let Connection::Quic(connection) = &connection {
            for id in 0..DATAGRAMS {
                connection
                    .send_datagram_wait(encode_datagram(StreamId(id), &[7; DATAGRAM]))
                    .await?;
            }
        }
        Ok(Self {
            connection,
            _streams: streams,
        })
    }

    /// Why it was cut off, if it was.
    fn cut(&self) -> Option<String> {
        match &self.connection {
            Connection::Quic(connection) => connection.close_reason().map(|why| why.to_string()),
            Connection::Tls(connection) => connection.close_reason().map(|why| why.to_string()),
        }
    }
}

/// A stream, over either carrier.
enum Stream {
    Quic(quinn::SendStream, quinn::RecvStream),
    Tls(tls::SendStream, tls::RecvStream),
}

impl Stream {
    /// Nothing, if the gateway has no room for another.
    async fn open(connection: &Connection) -> anyhow::Result<Option<Self>> {
        match connection {
            Connection::Quic(connection) => match timeout(NO_MORE_ROOM, connection.open_bi()).await {
                Ok(opened) => {
                    let (send, recv) = opened?;
                    Ok(Some(Self::Quic(send, recv)))
                }
                Err(_) => Ok(None),
            },
            Connection::Tls(connection) => match timeout(NO_MORE_ROOM, connection.open_bi()).await {
                Ok(opened) => {
                    let (send, recv) = opened?;
                    Ok(Some(Self::Tls(send, recv)))
                }
                Err(_) => Ok(None),
            },
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Quic(send, _) => send.write_all(bytes).await?,
            Self::Tls(send, _) => send.write_all(bytes).await?,
        }
        Ok(())
    }

    async fn read(&mut self) -> anyhow::Result<Bytes> {
        let chunk = match self {
            Self::Quic(_, recv) => recv.read_chunk(MAX_CONTROL_FRAME, true).await?.map(|chunk| chunk.bytes),
            Self::Tls(_, recv) => recv.read_chunk(MAX_CONTROL_FRAME).await?,
        };
        chunk.context("the gateway ended the session")
    }
}

fn hello() -> Hello {
    Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: tunnel_model::SessionId::from_bytes([0; 16]),
        carrier: 1,
        continues: false,
        resume_for: Config::default().resume_for,
        software: "x".repeat(TEXT),
        name: "x".repeat(TEXT),
        unix_millis: 0,
    }
}

/// As many services as fit into an offer.
fn large_offer() -> anyhow::Result<Offer> {
    let mut offer = Offer::default();
    for n in 0.. {
        offer.services.push(Service::new(
            format!("s{n}").parse()?,
            format!("{}.example:80", "x".repeat(48)).parse()?,
        ));
        if check_offer(&offer).is_err() {
            offer.services.pop();
            break;
        }
    }
    Ok(offer)
}

/// A frame of this length without its last byte.
fn unfinished(length: usize) -> Bytes {
    let mut frame = BytesMut::new();
    let mut rest = length;
    while rest > 0x7f {
        frame.put_u8(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    frame.put_u8(rest.to_le_bytes()[0]);
    frame.put_bytes(0, length - 1);
    frame.freeze()
}

/// Reads until the gateway says this.
async fn answered(control: &mut Stream, wanted: &Control) -> anyhow::Result<()> {
    let mut reader = FrameReader::new(MAX_CONTROL_FRAME);
    loop {
        while let Some(frame) = reader.next_frame()? {
            if Control::decode(&frame)?.as_ref() == Some(wanted) {
                return Ok(());
            }
        }
        reader.push(&control.read().await?);
    }
}
