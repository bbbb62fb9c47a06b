use quinn::{Connection, RecvStream, SendStream};
use tunnel_carrier::quic::{Dialer, Limits, LinkRate, Server};
use tunnel_identity::tls::Alpn;
use tunnel_proto::Rate;

use crate::cluster::{Cluster, noise, soon};

/// Both ends of a connection on loopback, and what they stand on.
struct Pair {
    near: Connection,
    far: Connection,
    _stand: (Dialer, Server),
}

impl Pair {
    async fn new() -> Self {
        let cluster = Cluster::new();
        let mut server = cluster.serve(&Limits::gateway());
        let dialer = Dialer::bind(0, Limits::edge()).unwrap();
        let addresses = [server.local_addr().unwrap()];
        let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
        let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
        Self {
            near: dialled.unwrap(),
            far: accepted.unwrap().connection,
            _stand: (dialer, server),
        }
    }

    async fn transfer(&self, bytes: usize) {
        let (stream, _) = self.near.open_bi().await.unwrap();
        let sending = tokio::spawn(send(stream, bytes));
        let (_, stream) = soon("the stream", self.far.accept_bi()).await.unwrap();
        assert_eq!(soon("the data", read_all(stream)).await, bytes);
        sending.await.unwrap();
    }
}

async fn send(mut stream: SendStream, bytes: usize) {
    stream.write_all(&noise(bytes)).await.unwrap();
    stream.finish().unwrap();
}

async fn read_all(mut stream: RecvStream) -> usize {
    let mut all = 0;
    while let Some(chunk) = stream.read_chunk(64 * 1024, true).await.unwrap() {
        all += chunk.bytes.len();
    }
    all
}

#[tokio::test]
async fn the_window_follows_a_rate_that_is_given_and_is_the_controllers_again_without() {
    let pair = Pair::new().await;
    let window = || pair.near.congestion_state().window();
    pair.transfer(8 << 20).await;
    // A few packets are left in flight between two ends of one machine, and few more while both are busy.
    let most = 128 * 1024;
    assert!(window() > most, "{}", window());
    let link = LinkRate::of(&pair.near).unwrap();
    link.give(Rate::from_bits_per_second(1_000_000));
    for _ in 0..8 {
        pair.transfer(16 << 10).await;
    }
    assert!(window() <= most, "{}", window());
    assert!(link.send_buffer() <= 2 * most, "{}", link.send_buffer());
    link.give(None);
    pair.transfer(8 << 20).await;
    assert!(window() > most, "{}", window());
}
