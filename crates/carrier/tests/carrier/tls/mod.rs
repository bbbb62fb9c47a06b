/// Dialling, handshakes, and what stands in their way.
mod handshakes;
/// Peers that keep to TLS and to nothing else.
mod hostile;
/// Through proxies.
mod proxies;
/// Streams: both ways, ended, broken, many, by priority.
mod streams;

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    task::JoinSet,
};
use tunnel_carrier::tls::{Accepted, Connection, DialError, Dialer, Limits, Proxies, RecvStream, SendStream, Server};
use tunnel_identity::tls::{self, Alpn};

use crate::cluster::{Cluster, soon};

impl Cluster {
    pub(crate) fn serve_tls(&self, limits: &Limits) -> Server {
        let tls = tls::server_config(&self.gateway, &self.root).unwrap();
        Server::bind("127.0.0.1:0".parse().unwrap(), tls, limits).unwrap()
    }
}

/// Both ends of a connection, and what they stand on.
struct Pair {
    edge: Connection,
    gateway: Connection,
    _server: Server,
}

impl Pair {
    async fn new() -> Self {
        Self::with(&Limits::edge(), &Limits::gateway()).await
    }

    async fn with(edge: &Limits, gateway: &Limits) -> Self {
        Self::through(edge, gateway, async |server| server).await
    }

    /// A pair whose edge dials the address that `way` leads to the server.
    async fn through(edge: &Limits, gateway: &Limits, way: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> Self {
        let cluster = Cluster::new();
        let mut server = cluster.serve_tls(gateway);
        let address = way(server.local_addr()).await;
        let dialer = Dialer::new(edge.clone(), Proxies::none());
        let (edge, gateway) = connect(&dialer, address, &mut server, &cluster).await;
        Self {
            edge: edge.unwrap(),
            gateway: gateway.connection,
            _server: server,
        }
    }

    /// A stream that the gateway opens and the edge takes: both ends.
    async fn stream(&self) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
        let mut near = soon("a stream", self.gateway.open_bi()).await.unwrap();
        near.0.write_all(b"!").await.unwrap();
        let mut far = soon("the stream", self.edge.accept_bi()).await.unwrap();
        assert_eq!(read(&mut far.1, 1).await, b"!");
        far.1.want();
        (near, far)
    }
}

/// A TCP relay whose way from the server can be held up. Its buffers are small.
#[derive(Debug)]
struct Relay {
    address: SocketAddr,
    /// Bytes that may pass from the server.
    down: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

/// How much the relay reads at once, in bytes.
const STEP: u32 = 1024;

impl Relay {
    fn start(server: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let down = Arc::new(Semaphore::new(1 << 40));
        let mut tasks = JoinSet::new();
        let gate = Arc::clone(&down);
        tasks.spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpSocket::new_v4().unwrap();
            far.set_recv_buffer_size(8 * 1024).unwrap();
            let far = far.connect(server).await.unwrap();
            let (mut near, mut far) = (near, far);
            let (mut near_read, mut near_write) = near.split();
            let (mut far_read, mut far_write) = far.split();
            let up = tokio::io::copy(&mut near_read, &mut far_write);
            let down = async {
                let mut bytes = [0; STEP as usize];
                loop {
                    let permits = gate.acquire_many(STEP).await.unwrap();
                    let n = far_read.read(&mut bytes).await.unwrap_or(0);
                    if n == 0 || near_write.write_all(&bytes[..n]).await.is_err() {
                        return;
                    }
                    permits.forget();
                }
            };
            tokio::select! {
                _ = up => {}
                () = down => {}
            }
        });
        Self {
            address,
            down,
            _tasks: tasks,
        }
    }

    /// Lets nothing more through, but for what it is about to read.
    fn hold(&self) {
        self.down.forget_permits(usize::MAX);
    }

    fn pass(&self, bytes: usize) {
        self.down.add_permits(bytes);
    }
}

async fn connect(
    dialer: &Dialer,
    address: SocketAddr,
    server: &mut Server,
    cluster: &Cluster,
) -> (Result<Connection, DialError>, Accepted) {
    let addresses = [address];
    let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    (dialled, accepted.unwrap())
}

/// Reads exactly so many bytes.
async fn read(recv: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let chunk = soon("data", recv.read_chunk(count - bytes.len())).await.unwrap();
        bytes.extend_from_slice(&chunk.expect("an early end"));
    }
    bytes
}

/// Reads to the end.
async fn read_to_end(recv: &mut RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = soon("data or the end", recv.read_chunk(usize::MAX)).await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}
