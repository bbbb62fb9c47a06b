//! What edges with valid certificates can make a gateway hold, each by itself and without anybody's leave.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tunnel_carrier::quic::{Dialer, Limits};
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
/// How long the gateway is watched afterwards: below the ten seconds after which it gives up on what never ends.
const WATCHED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that a gateway holds for each of so many such edges, at the most.
pub(crate) async fn measure(gateway: u32, token: JoinToken) -> anyhow::Result<u64> {
    eprintln!("hostile: {PEERS} edges");
    let dialer = Dialer::bind(0, Limits::edge())?;
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
        anyhow::ensure!(
            peer.connection.close_reason().is_none(),
            "a hostile edge was cut before it was measured"
        );
    }
    Ok(most.saturating_sub(before) / PEERS as u64)
}

/// An edge that stays within the protocol and has nothing but bad intentions.
struct Peer {
    connection: Connection,
    _streams: Vec<(SendStream, RecvStream)>,
}

impl Peer {
    /// Has the gateway hold as much as it can be made to.
    async fn pin(connection: Connection) -> anyhow::Result<Self> {
        let (mut send, mut recv) = connection.open_bi().await?;
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
        send.write_all(&said).await?;
        answered(&mut recv, &Control::Pong(7)).await?;
        // A frame that is as long as one may be, and never ends.
        send.write_all(&unfinished(MAX_CONTROL_FRAME)).await?;
        let mut streams = vec![(send, recv)];
        // As many as the gateway lets it open.
        while let Ok(opened) = timeout(Duration::ZERO, connection.open_bi()).await {
            let (mut send, recv) = opened?;
            // Headers that never end either.
            send.write_all(&unfinished(MAX_HEADER_FRAME)).await?;
            streams.push((send, recv));
        }
        for id in 0..DATAGRAMS {
            connection
                .send_datagram_wait(encode_datagram(StreamId(id), &[7; DATAGRAM]))
                .await?;
        }
        Ok(Self {
            connection,
            _streams: streams,
        })
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
async fn answered(recv: &mut RecvStream, wanted: &Control) -> anyhow::Result<()> {
    let mut reader = FrameReader::new(MAX_CONTROL_FRAME);
    loop {
        while let Some(frame) = reader.next_frame()? {
            if Control::decode(&frame)?.as_ref() == Some(wanted) {
                return Ok(());
            }
        }
        let chunk = recv.read_chunk(MAX_CONTROL_FRAME, true).await?;
        reader.push(&chunk.context("the gateway ended the session")?.bytes);
    }
}
