use std::net::SocketAddr;

use quinn::udp::{Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};
use tunnel_carrier::quic::{Dialer, Limits, Server};
use tunnel_identity::tls::Alpn;

use crate::cluster::{Cluster, noise, soon};

/// Datagrams of each shape.
const EACH: usize = 250_000;

/// What is sent before the gateway is asked whether it has read so far: it fits into the socket's buffer, so that the
/// kernel drops none.
const BATCH: usize = 50;

/// The least that a client's first datagram holds (RFC 9000 section 14.1).
const INITIAL: usize = 1200;

/// B5: 10^6 datagrams, every one of which reaches the gateway. They are dropped, what is answered is at most three times
/// what was sent, and edges connect before, between and after.
#[tokio::test]
async fn b5_a_million_datagrams_of_noise_are_dropped_while_edges_connect() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let mut flood = Flood::new(server.local_addr().unwrap()).await;
    for shape in Shape::ALL {
        let (sent, answered) = (flood.sent, flood.answered);
        let connecting = connect(&cluster, &mut server);
        tokio::join!(flood.run(shape, EACH), connecting);
        let (sent, answered) = (flood.sent - sent, flood.answered - answered);
        assert!(answered <= 3 * sent, "{shape:?}: {answered} bytes for {sent}");
    }
    connect(&cluster, &mut server).await;
    assert_eq!(dropped_by_the_kernel(flood.gateway), 0);
}

/// What a datagram pretends to be.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Noise,
    /// A long header of the version that the gateway speaks (RFC 9000 section 17.2).
    Long,
    /// A packet of a connection that is not there (RFC 9000 section 17.3).
    Short,
    /// A whole first packet, but for its seal.
    Initial,
}

impl Shape {
    const ALL: [Self; 4] = [Self::Noise, Self::Long, Self::Short, Self::Initial];

    /// Makes noise look like it.
    fn stamp(self, datagram: &mut [u8]) {
        match self {
            Self::Noise => {}
            Self::Long => {
                datagram[0] |= 0xc0;
                datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
            Self::Short => datagram[0] = datagram[0] & 0x7f | 0x40,
            Self::Initial => {
                datagram[0] = 0xc0 | datagram[0] & 0x0f;
                datagram[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
                datagram[14] = 8;
                // No token, and the length of what follows.
                datagram[23] = 0;
                let rest = u16::try_from(INITIAL - 26).unwrap();
                datagram[24..26].copy_from_slice(&(rest | 0x4000).to_be_bytes());
            }
        }
    }

    fn size(self, round: usize) -> usize {
        match self {
            Self::Initial => INITIAL,
            _ => 26 + round * 37 % 1270,
        }
    }
}

/// Who sends it all, from one socket.
struct Flood {
    socket: UdpSocket,
    state: UdpSocketState,
    gateway: SocketAddr,
    noise: Vec<u8>,
    batches: usize,
    /// Bytes.
    sent: usize,
    answered: usize,
}

impl Flood {
    async fn new(gateway: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self {
            state: UdpSocketState::new((&socket).into()).unwrap(),
            socket,
            gateway,
            noise: noise(1 << 20),
            batches: 0,
            sent: 0,
            answered: 0,
        }
    }

    async fn run(&mut self, shape: Shape, datagrams: usize) {
        for _ in 0..datagrams / BATCH {
            self.batches += 1;
            let size = shape.size(self.batches);
            let start = self.batches * 4099 % (self.noise.len() - BATCH * size);
            let mut batch = self.noise[start..start + BATCH * size].to_vec();
            for datagram in batch.chunks_mut(size) {
                shape.stamp(datagram);
            }
            self.send(&batch, size).await;
            self.settle().await;
        }
    }

    async fn send(&mut self, batch: &[u8], size: usize) {
        for contents in batch.chunks(size * self.state.max_gso_segments().min(BATCH)) {
            let transmit = Transmit {
                destination: self.gateway,
                ecn: None,
                contents,
                segment_size: Some(size),
                src_ip: None,
            };
            let send = || self.state.try_send((&self.socket).into(), &transmit);
            self.socket.async_io(Interest::WRITABLE, send).await.unwrap();
            self.sent += contents.len();
        }
    }

    /// Waits until the gateway has read all that was sent: it answers in turn to a packet of a version that it does not
    /// speak (RFC 9000 section 6).
    async fn settle(&mut self) {
        let mark = self.batches.to_be_bytes();
        let mut question = vec![0; INITIAL];
        question[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
        question[14] = 8;
        question[15..23].copy_from_slice(&mark);
        self.send(&question, INITIAL).await;
        let mut answer = [0; 2048];
        loop {
            let received = soon("an answer about versions", self.socket.recv(&mut answer));
            self.answered += received.await.unwrap();
            if answer[1..6] == [0, 0, 0, 0, 8] && answer[6..14] == mark {
                return;
            }
        }
    }
}

/// How many datagrams to a socket were dropped before it could read them: the last column of the kernel's table.
fn dropped_by_the_kernel(socket: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let port = format!(":{:04X}", socket.port());
    let mut rows = table.lines().map(str::split_whitespace);
    let row = rows.find(|row| row.clone().nth(1).is_some_and(|local| local.ends_with(&port)));
    row.and_then(Iterator::last).unwrap().parse().unwrap()
}

/// An edge connects.
async fn connect(cluster: &Cluster, server: &mut Server) {
    let addresses = [server.local_addr().unwrap()];
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    dialled.unwrap();
    accepted.unwrap();
}
