use std::{net::SocketAddr, path::Path, time::Duration};

use ring::digest;
use rustls::ClientConfig;
use tokio::{sync::mpsc, task::JoinHandle};
use tunnel_carrier::{
    Established, Incoming, Notice, Stream, Tunnel,
    quic::{Accepted, Dialer, Limits, Server},
};
use tunnel_identity::{
    Authority, ClusterRoot, Credential, GatewayFiles, PrivateKey, TimeFloor, UnixTime,
    tls::{self, Alpn},
};
use tunnel_model::{Class, ClusterId, NodeId, Refusal, SessionId, Target, TraceId};
use tunnel_proto::{Config, Hello, Open, Side, VERSIONS};

/// The same for every life of a gateway.
const RESET_KEY: [u8; 32] = [7; 32];

/// A certificate authority and the gateway that it made.
pub(crate) struct Cluster {
    pub(crate) root: ClusterRoot,
    pub(crate) authority: Authority,
    pub(crate) gateway: Credential,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = init(dir.path());
        let authority = files.authority().unwrap();
        Self {
            root: authority.root().clone(),
            gateway: files.gateway().unwrap(),
            authority,
        }
    }

    pub(crate) fn node(&self) -> Credential {
        let key = PrivateKey::generate().unwrap();
        let id = NodeId::random(&mut rand::rng());
        let name = "edge1".parse().unwrap();
        let chain = self
            .authority
            .issue_node(&key.public().unwrap(), id, &name, now())
            .unwrap();
        Credential::new(chain, key).unwrap()
    }

    pub(crate) fn client_tls(&self, alpn: Alpn) -> ClientConfig {
        tls::client_config_node(&self.root, &self.node(), &floor(), alpn).unwrap()
    }

    pub(crate) fn serve(&self, limits: &Limits) -> Server {
        self.serve_at("127.0.0.1:0".parse().unwrap(), limits)
    }

    pub(crate) fn serve_at(&self, address: SocketAddr, limits: &Limits) -> Server {
        let tls = tls::server_config(&self.gateway, &self.root).unwrap();
        Server::bind(address, tls, &RESET_KEY, limits).unwrap()
    }
}

fn init(dir: &Path) -> GatewayFiles {
    let cluster = ClusterId::random(&mut rand::rng());
    GatewayFiles::init(dir, cluster, &["gw.example.com".to_owned()], now()).unwrap()
}

pub(crate) fn now() -> UnixTime {
    std::time::SystemTime::now().into()
}

pub(crate) fn floor() -> TimeFloor {
    TimeFloor::new(UnixTime::from_secs(0), None)
}

/// One end of a session that runs.
pub(crate) struct End {
    pub(crate) tunnel: Tunnel,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) driver: JoinHandle<Refusal>,
}

impl End {
    fn run(established: Established) -> Self {
        Self {
            tunnel: established.tunnel,
            incoming: established.incoming,
            notices: established.notices,
            driver: tokio::spawn(established.driver.run()),
        }
    }

    /// Accepts the next stream that the peer opens.
    pub(crate) async fn accept(&mut self) -> Stream {
        let (_, answer) = self.incoming.recv().await.unwrap().into_parts();
        answer.accept().await.unwrap()
    }
}

/// Both ends of a session, and what they stand on.
pub(crate) struct Pair {
    pub(crate) edge: End,
    pub(crate) gateway: End,
    pub(crate) dialer: Dialer,
    pub(crate) server: Server,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self::with(&Limits::edge(), &Limits::gateway()).await
    }

    pub(crate) async fn with(edge: &Limits, gateway: &Limits) -> Self {
        Self::through(edge, gateway, async |server| server).await
    }

    /// A pair whose edge dials the address that `way` leads to the server.
    pub(crate) async fn through(
        edge: &Limits,
        gateway: &Limits,
        way: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        let cluster = Cluster::new();
        let mut server = cluster.serve(gateway);
        let address = way(server.local_addr().unwrap()).await;
        let dialer = Dialer::bind(0, edge.clone()).unwrap();
        let tls = cluster.client_tls(Alpn::Tunnel);
        let addresses = [address];
        let (dialled, accepted) = tokio::join!(dialer.dial_addresses(&addresses, tls), server.accept());
        let (edge, gateway) = greet(dialled.unwrap(), accepted.unwrap()).await;
        Self {
            edge,
            gateway,
            dialer,
            server,
        }
    }

    /// A stream from the gateway to the edge; both its ends.
    pub(crate) async fn stream(&mut self) -> (Stream, Stream) {
        let open = open("port:22");
        let (near, far) = tokio::join!(connect(&self.gateway.tunnel, &open), self.edge.accept());
        (near.unwrap(), far)
    }
}

/// A stream whose target is there.
pub(crate) async fn connect(tunnel: &Tunnel, open: &Open) -> Result<Stream, Refusal> {
    let mut stream = tunnel.open(open, PATIENCE).await?;
    stream.established().await?;
    Ok(stream)
}

/// How long streams wait for their answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) async fn greet(dialled: quinn::Connection, accepted: Accepted) -> (End, End) {
    let config = Config {
        keepalive: Some(Duration::from_secs(25)),
        ..Config::default()
    };
    // Each end runs as soon as it has heard the other, as it would elsewhere: its own hello may still be on its way.
    tokio::join!(
        async { End::run(Tunnel::establish(dialled, Side::Edge, config, hello()).await.unwrap()) },
        async {
            let gateway = Tunnel::establish(accepted.connection, Side::Gateway, Config::default(), hello());
            End::run(gateway.await.unwrap())
        }
    )
}

pub(crate) fn hello() -> Hello {
    Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: SessionId::from_bytes([7; 16]),
        software: "test".to_owned(),
        name: "edge1".to_owned(),
        unix_millis: 0,
    }
}

pub(crate) fn open(target: &str) -> Open {
    Open {
        target: target.parse::<Target>().unwrap(),
        protocol: tunnel_model::Protocol::Tcp,
        class: Class::Api,
        trace: TraceId::from_bytes([1; 16]),
        principal: "user:alice".to_owned(),
        node: None,
    }
}

/// Bytes that no two pieces of look alike.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

pub(crate) fn hash(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

/// Waits for what must come; a test that hangs says where.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(20), future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
