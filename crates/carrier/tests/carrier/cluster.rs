use std::{net::SocketAddr, path::Path, time::Duration};

use ring::digest;
use rustls::ClientConfig;
use tokio::{sync::mpsc, task::JoinHandle};
use tunnel_carrier::{
    Arriving, Carrier, Connection, Incoming, Notice, Opened, Stream, Tunnel,
    quic::{Accepted, Dialer, Limits, Server},
    tls,
};
use tunnel_identity::{
    Authority, ClusterRoot, Credential, GatewayFiles, PrivateKey, TimeFloor, UnixTime,
    tls::{Alpn, client_config_node, server_config},
};
use tunnel_linkem::{LinkPair, relay::UdpRelay};
use tunnel_model::{Class, ClusterId, NodeId, Reason, Refusal, SessionId, Target, TraceId};
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
        client_config_node(&self.root, &self.node(), &floor(), alpn).unwrap()
    }

    pub(crate) fn serve(&self, limits: &Limits) -> Server {
        self.serve_at("127.0.0.1:0".parse().unwrap(), limits)
    }

    pub(crate) fn serve_at(&self, address: SocketAddr, limits: &Limits) -> Server {
        let tls = server_config(&self.gateway, &self.root).unwrap();
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
    pub(crate) notices: mpsc::Receiver<Box<Notice>>,
    pub(crate) driver: JoinHandle<Refusal>,
}

impl End {
    /// A session that begins on this carrier.
    fn run(opened: Opened, carrier: Carrier) -> Self {
        let driver = opened.tunnel.attach(carrier).unwrap();
        Self {
            tunnel: opened.tunnel,
            incoming: opened.incoming,
            notices: opened.notices,
            driver: tokio::spawn(driver.run()),
        }
    }

    /// It goes on over this one.
    pub(crate) fn go_on(&mut self, carrier: Carrier) {
        self.driver = tokio::spawn(self.tunnel.attach(carrier).unwrap().run());
    }

    /// Accepts the next stream that the peer opens.
    pub(crate) async fn accept(&mut self) -> Stream {
        let (_, answer) = self.incoming.recv().await.unwrap().into_parts();
        answer.accept().await.unwrap()
    }
}

/// Both ends of a session, and what they stand on.
pub(crate) struct Pair {
    cluster: Cluster,
    address: SocketAddr,
    dials: u64,
    /// The first connection, as the edge has it.
    pub(crate) connection: quinn::Connection,
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

    /// A pair with a link between its edge and its gateway.
    pub(crate) async fn over(link: impl Into<LinkPair>, seed: u64, gateway: &Limits) -> (Self, UdpRelay) {
        let mut relay = None;
        let pair = Self::through(&Limits::edge(), gateway, async |server| {
            let started = UdpRelay::start(server, link.into(), seed).await.unwrap();
            relay.insert(started).local_addr()
        })
        .await;
        (pair, relay.unwrap())
    }

    /// A pair whose edge dials the address that `way` leads to the server.
    async fn through(edge: &Limits, gateway: &Limits, way: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> Self {
        let cluster = Cluster::new();
        let mut server = cluster.serve(gateway);
        let address = way(server.local_addr().unwrap()).await;
        let dialer = Dialer::bind(0, edge.clone()).unwrap();
        let tls = cluster.client_tls(Alpn::Tunnel);
        let addresses = [address];
        let (dialled, accepted) = tokio::join!(dialer.dial_addresses(&addresses, tls), server.accept());
        let connection = dialled.unwrap();
        let (edge, gateway) = greet(connection.clone(), accepted.unwrap()).await;
        Self {
            cluster,
            address,
            dials: 1,
            connection,
            edge,
            gateway,
            dialer,
            server,
        }
    }

    /// Dials anew, and has the session go on over that.
    pub(crate) async fn next_carrier(&mut self) {
        self.dials += 1;
        let (addresses, tls) = ([self.address], self.cluster.client_tls(Alpn::Tunnel));
        let dial = self.dialer.dial_addresses(&addresses, tls);
        let (dialled, accepted) = tokio::join!(dial, self.server.accept());
        let (edge, gateway) = carriers(dialled.unwrap(), accepted.unwrap().connection, self.dials).await;
        self.edge.go_on(edge);
        self.gateway.go_on(gateway);
    }

    /// Dials by TLS, and has the session go on over that.
    pub(crate) async fn next_carrier_by_tls(&mut self) {
        self.dials += 1;
        let mut server = self.cluster.serve_tls(&tls::Limits::gateway());
        let dialer = tls::Dialer::new(tls::Limits::edge(), tls::Proxies::none());
        let (addresses, config) = ([server.local_addr()], self.cluster.client_tls(Alpn::Tunnel));
        let dial = dialer.dial_addresses(&addresses, config);
        let (dialled, accepted) = tokio::join!(dial, server.accept());
        let (edge, gateway) = carriers(dialled.unwrap(), accepted.unwrap().connection, self.dials).await;
        self.edge.go_on(edge);
        self.gateway.go_on(gateway);
    }

    /// The connection breaks under both ends.
    pub(crate) async fn cut(&mut self) {
        let lost = Refusal::new(Reason::CarrierLost, "the link broke");
        self.edge.tunnel.give_up_carrier(&lost);
        for driver in [&mut self.edge.driver, &mut self.gateway.driver] {
            let why = soon("the loss", driver).await.unwrap();
            assert_eq!(why.reason, Reason::CarrierLost);
        }
    }

    /// A stream from the gateway to the edge; both its ends.
    pub(crate) async fn stream(&mut self) -> (Stream, Stream) {
        self.stream_of(open("port:22").class).await
    }

    /// Likewise, of this class.
    pub(crate) async fn stream_of(&mut self, class: Class) -> (Stream, Stream) {
        let open = Open {
            class,
            ..open("port:22")
        };
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
    let (edge, gateway) = carriers(dialled, accepted.connection, 1).await;
    let config = Config {
        keepalive: Some(Duration::from_secs(25)),
        ..Config::default()
    };
    (
        End::run(Tunnel::new(Side::Edge, config), edge),
        End::run(Tunnel::new(Side::Gateway, Config::default()), gateway),
    )
}

/// Both ends of a carrier with this number.
pub(crate) async fn carriers(
    dialled: impl Into<Connection>,
    accepted: impl Into<Connection>,
    number: u64,
) -> (Carrier, Carrier) {
    let patience = Config::default().patience;
    let said = Hello {
        carrier: number,
        ..hello()
    };
    let answer = Hello {
        continues: number > 1,
        ..hello()
    };
    tokio::join!(async { Carrier::dial(dialled, said, patience).await.unwrap() }, async {
        let arriving = Arriving::accept(accepted, patience).await.unwrap();
        arriving.answer(answer, patience).await.unwrap()
    })
}

pub(crate) fn hello() -> Hello {
    Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: SessionId::from_bytes([7; 16]),
        carrier: 1,
        continues: false,
        resume_for: Config::default().resume_for,
        software: "test".to_owned(),
        name: "edge1".to_owned(),
        unix_millis: 0,
    }
}

pub(crate) fn open(target: &str) -> Open {
    Open {
        target: target.parse::<Target>().unwrap(),
        protocol: tunnel_model::Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
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
