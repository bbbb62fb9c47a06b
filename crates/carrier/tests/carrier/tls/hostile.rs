use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tunnel_carrier::tls::{Accepted, Limits, Server, WriteError};
use tunnel_identity::tls::Alpn;
use tunnel_model::{Reason, Refusal};

use crate::cluster::{Cluster, noise, soon};

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const FIN: u16 = 4;

/// What a peer may send on a stream before anybody wants it.
const UNASKED: usize = 12 * 1024;

#[tokio::test]
async fn b1_what_is_not_yamux_or_too_long_ends_the_connection_with_a_reason() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        noise(4096),
        // A frame of 4 GiB, and one of 1 MiB, which yamux would take.
        header(DATA, 0, 3, u32::MAX),
        header(DATA, SYN, 3, 1 << 20),
        // A kind that is not known.
        header(9, 0, 0, 0),
        // Its messages are on its first stream, and that is stream 1.
        frame(DATA, SYN, 3, b"x"),
        // A message that is too long, and the end of all messages.
        frame(DATA, SYN, 1, &[1, 0xff, 0xff]),
        frame(DATA, SYN | FIN, 1, b""),
        // A stream of the other side's numbers.
        [frame(DATA, SYN, 1, b""), frame(DATA, SYN, 4, b"")].concat(),
        // One stream twice.
        [
            frame(DATA, SYN, 1, b""),
            frame(DATA, SYN, 3, b""),
            frame(DATA, SYN, 3, b""),
        ]
        .concat(),
        // An answer to a question that nobody asked.
        header(PING, 2, 0, 99),
    ] {
        let mut peer = Peer::connect(&cluster, &mut server).await;
        peer.send(&garbage).await;
        assert_eq!(peer.verdict().await.reason, Reason::Protocol, "{:?}", &garbage[..12]);
    }
}

/// T2: what a peer sends unasked is bounded: by the stream,
#[tokio::test]
async fn t2_a_peer_that_floods_a_stream_nobody_asked_for_is_cut_off() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let mut peer = Peer::connect(&cluster, &mut server).await;
    peer.send(&frame(DATA, SYN, 1, b"")).await;
    peer.send(&frame(DATA, SYN, 3, &noise(UNASKED))).await;
    // That much is allowed, and stays.
    let (_send, _recv) = soon("the stream", peer.gateway.connection.accept_bi()).await.unwrap();
    assert_eq!(peer.gateway.connection.close_reason(), None);
    peer.send(&frame(DATA, 0, 3, b"x")).await;
    assert_eq!(peer.verdict().await.reason, Reason::Protocol);
}

/// and by the number of streams.
#[tokio::test]
async fn t2_a_peer_that_opens_more_streams_than_it_may_is_cut_off() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let mut peer = Peer::connect(&cluster, &mut server).await;
    peer.send(&frame(DATA, SYN, 1, b"")).await;
    let max = Limits::gateway().max_streams;
    for i in 1..=max {
        peer.send(&frame(DATA, SYN, 1 + 2 * i, &noise(UNASKED))).await;
    }
    for _ in 0..max {
        // Which nobody reads.
        std::mem::forget(soon("a stream", peer.gateway.connection.accept_bi()).await.unwrap());
    }
    assert_eq!(peer.gateway.connection.close_reason(), None);
    peer.send(&header(WINDOW_UPDATE, SYN, 3 + 2 * max, 0)).await;
    assert_eq!(peer.verdict().await.reason, Reason::Protocol);
}

/// A stream that is read grants no more than it has room for: a frame beyond its window is refused.
#[tokio::test]
async fn t2_a_peer_that_floods_the_window_of_a_stream_is_cut_off() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let mut peer = Peer::connect(&cluster, &mut server).await;
    peer.send(&frame(DATA, SYN, 1, b"")).await;
    peer.send(&frame(DATA, SYN, 3, b"x")).await;
    let (_send, recv) = soon("the stream", peer.gateway.connection.accept_bi()).await.unwrap();
    recv.want();
    // The answer says that it is wanted; on its stream of messages comes nothing more.
    peer.heard(|bytes| has_frame(bytes, DATA, 2, 3)).await;
    for _ in 0..7 {
        peer.send(&frame(DATA, 0, 3, &noise(32 * 1024))).await;
    }
    assert_eq!(peer.gateway.connection.close_reason(), None);
    peer.send(&frame(DATA, 0, 3, &noise(40 * 1024))).await;
    assert_eq!(peer.verdict().await.reason, Reason::Protocol);
}

/// What waits for a peer that does not read is bounded, and its writers wait.
#[tokio::test]
async fn a_peer_that_never_reads_makes_its_writers_wait_and_is_left_without_a_farewell() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let peer = Peer::connect(&cluster, &mut server).await;
    let connection = peer.gateway.connection.clone();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..Limits::FIRST_STREAMS {
        let (mut send, _recv) = soon("a stream", connection.open_bi()).await.unwrap();
        writers.spawn(async move {
            let mut written = 0;
            loop {
                match send.write_all(&[7; 1024]).await {
                    Ok(()) => written += 1024,
                    Err(error) => return (written, error),
                }
            }
        });
    }
    // No more streams than it has said that it has room for.
    let more = tokio::time::timeout(std::time::Duration::from_millis(50), connection.open_bi()).await;
    assert!(more.is_err());
    let gone = Refusal::new(Reason::Superseded, "another one came");
    connection.close(&gone);
    while let Some(writer) = writers.join_next().await {
        let (written, error) = writer.unwrap();
        assert_eq!(error, WriteError::ConnectionLost(gone.clone()));
        // It took none of the streams, so little went out and a bounded queue waits.
        assert!(written <= 80 * 1024, "{written}");
    }
    drop((connection, peer.gateway));
    server.stop_accepting();
    soon("the end", server.wait_idle()).await;
}

/// B7: streams that are opened and reset without end are no more than a peer may have, one after another.
#[tokio::test]
async fn b7_a_peer_that_opens_and_resets_without_end_is_held_to_its_credit() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_tls(&Limits::gateway());
    let mut peer = Peer::connect(&cluster, &mut server).await;
    let connection = peer.gateway.connection.clone();
    let accepting = tokio::spawn(async move { while connection.accept_bi().await.is_ok() {} });
    peer.send(&frame(DATA, SYN, 1, b"")).await;
    for i in 1..10_000_u32 {
        let opened = [
            frame(DATA, SYN, 1 + 2 * i, b"x"),
            frame(DATA, 0, 1, &reset(1 + 2 * i)),
            frame(DATA, FIN, 1 + 2 * i, b""),
        ];
        if peer.stream.write_all(&opened.concat()).await.is_err() {
            break;
        }
    }
    let _ = peer.stream.flush().await;
    // Whether they were all dealt with in time or not: it never had more than it may.
    drop(peer.stream);
    soon("the end", accepting).await.unwrap();
}

/// One that speaks TLS and from there on whatever it likes.
struct Peer {
    stream: TlsStream<TcpStream>,
    gateway: Accepted,
    heard: Vec<u8>,
}

impl Peer {
    async fn connect(cluster: &Cluster, server: &mut Server) -> Self {
        let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
        let tls = Arc::new(cluster.client_tls(Alpn::Tunnel));
        let name = "gateway.invalid".try_into().unwrap();
        let connecting = tokio_rustls::TlsConnector::from(tls).connect(name, tcp);
        let stream = soon("a handshake", connecting).await.unwrap();
        let gateway = soon("the peer", server.accept()).await.unwrap();
        Self {
            stream,
            gateway,
            heard: Vec::new(),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads until all that was said says so.
    async fn heard(&mut self, enough: impl Fn(&[u8]) -> bool) {
        while !enough(&self.heard) {
            let read = soon("more", self.stream.read_buf(&mut self.heard)).await.unwrap();
            assert_ne!(read, 0);
        }
    }

    /// Why the gateway ended it, which it also said.
    async fn verdict(&mut self) -> Refusal {
        let verdict = soon("the verdict", self.gateway.connection.closed()).await;
        let _ = soon("the end", self.stream.read_to_end(&mut self.heard)).await;
        let told = self.heard.windows(verdict.message.len());
        assert!(
            told.into_iter().any(|said| said == verdict.message.as_bytes()),
            "{verdict}"
        );
        verdict
    }
}

fn header(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn frame(kind: u8, flags: u16, stream: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&header(kind, flags, stream, length), data].concat()
}

fn reset(stream: u32) -> Vec<u8> {
    let mut message = vec![2, 0, 8];
    message.extend(stream.to_be_bytes());
    message.extend((Reason::Cancelled as u32).to_be_bytes());
    message
}

fn has_frame(bytes: &[u8], kind: u8, flags: u16, stream: u32) -> bool {
    let wanted = header(kind, flags, stream, 0);
    bytes.windows(wanted.len()).any(|seen| seen == wanted)
}
