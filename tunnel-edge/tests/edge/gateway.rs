use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tunnel_carrier::{
    Arriving, Incoming, Notice, Stream, Tunnel, exchange,
    quic::{self, Accepted, Limits, Purpose, Server},
};
use tunnel_edge::config::Config as EdgeConfig;
use tunnel_identity::{
    Authority, ClusterRoot, Expiry, GatewayFiles, Issued, JoinToken, NodeFiles, NodeIdentity, RENEWABLE_FOR, Reply,
    Request, TokenGrant, UnixTime, tls, verify_enrol,
};
use tunnel_model::{
    AllowList, ClusterId, GatewayAddr, HostPort, NodeId, NodeName, Protocol, Reason, Refusal, Service, Subnet, Target,
    TraceId,
};
use tunnel_proto::{Config, Hello, Open, Side, VERSIONS};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A gateway that enrols whoever holds its token, renews, and hands out sessions.
pub(crate) struct Gateway {
    pub(crate) address: GatewayAddr,
    pub(crate) token: String,
    pub(crate) dir: tempfile::TempDir,
    state: Arc<State>,
    sessions: mpsc::Receiver<Session>,
    admitted: mpsc::Sender<Session>,
}

struct State {
    files: GatewayFiles,
    root: ClusterRoot,
    authority: Authority,
    grant: Mutex<TokenGrant>,
    /// Nodes are let in as nobody's.
    revoked: AtomicBool,
    renewals: AtomicUsize,
    questions: AtomicUsize,
    connections: AtomicUsize,
}

/// A session with an edge.
pub(crate) struct Session {
    pub(crate) tunnel: Tunnel,
    pub(crate) services: Vec<Service>,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) hello: Hello,
    pub(crate) notices: mpsc::Receiver<Box<Notice>>,
    /// Streams that the edge opens.
    pub(crate) incoming: mpsc::Receiver<Incoming>,
}

impl Session {
    /// A stream whose target is there.
    pub(crate) async fn connect(&self, target: &str) -> Result<Stream, Refusal> {
        self.connect_as(tunnel_model::Class::Api, target).await
    }

    /// The same for a stream of this class.
    pub(crate) async fn connect_as(&self, class: tunnel_model::Class, target: &str) -> Result<Stream, Refusal> {
        let open = Open {
            target: target.parse::<Target>().unwrap(),
            protocol: Protocol::Tcp,
            encoding: tunnel_model::Encoding::Raw,
            class,
            trace: TraceId::from_bytes([1; 16]),
            principal: "user:alice".to_owned(),
            node: None,
        };
        let mut stream = self.tunnel.open(&open, Duration::from_secs(15)).await?;
        stream.established().await?;
        Ok(stream)
    }
}

impl Gateway {
    pub(crate) fn new() -> Self {
        Self::with_token_name(None)
    }

    /// A gateway whose token is for a node of this name.
    pub(crate) fn with_token_name(name: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::random(&mut rand::rng());
        // A month old, so that it may have issued what has expired since.
        let files = GatewayFiles::init(dir.path(), cluster, &["localhost".to_owned()], now().minus(30 * DAY)).unwrap();
        let authority = files.authority().unwrap();
        let root = authority.root().clone();
        let (server, address) = listen(&files, &root);
        let token = JoinToken::generate(root.pin(), vec![address.clone()], &mut rand::rng()).unwrap();
        let grant = TokenGrant {
            key: token.secret().key(),
            expires: now().plus(DAY),
            uses_left: 1,
            name: name.map(|name| name.parse().unwrap()),
        };
        let state = Arc::new(State {
            files,
            root,
            authority,
            grant: Mutex::new(grant),
            revoked: AtomicBool::new(false),
            renewals: AtomicUsize::new(0),
            questions: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let (sender, sessions) = mpsc::channel(8);
        tokio::spawn(accept(server, Arc::clone(&state), sender.clone()));
        Self {
            address,
            token: token.to_string(),
            dir,
            state,
            sessions,
            admitted: sender,
        }
    }

    /// Another gateway of the same cluster, whose sessions come out here too.
    pub(crate) fn another(&self) -> GatewayAddr {
        let (server, address) = listen(&self.state.files, &self.state.root);
        tokio::spawn(accept(server, Arc::clone(&self.state), self.admitted.clone()));
        address
    }

    /// The next session that an edge opens, once it has declared its services.
    pub(crate) async fn session(&mut self) -> Session {
        soon("a session", self.sessions.recv()).await.unwrap()
    }

    pub(crate) fn revoke_all(&self) {
        self.state.revoked.store(true, Ordering::SeqCst);
    }

    pub(crate) fn renewals(&self) -> usize {
        self.state.renewals.load(Ordering::SeqCst)
    }

    /// How many questions were asked on connections for enrolment.
    pub(crate) fn questions(&self) -> usize {
        self.state.questions.load(Ordering::SeqCst)
    }

    /// How many handshakes went through.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// A state directory as joining this long ago would have left it.
    pub(crate) fn enrolled(&self, ago: Duration) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let files = NodeFiles::open(dir.path()).unwrap();
        files.save_root(&self.state.root).unwrap();
        let key = files.node().begin().unwrap();
        let chain = self.state.issue(
            &key.public().unwrap(),
            NodeId::random(&mut rand::rng()),
            now().minus(ago),
        );
        files.node().commit(chain).unwrap();
        dir
    }

    /// The configuration of an edge of this gateway.
    pub(crate) fn config(&self, state: &Path, services: &[(&str, std::net::SocketAddr)]) -> EdgeConfig {
        let service = |(name, target): &(&str, std::net::SocketAddr)| {
            Service::new(name.parse().unwrap(), HostPort::from_ip(target.ip(), target.port()))
        };
        EdgeConfig {
            state: state.to_owned(),
            gateways: vec![self.address.clone()],
            services: services.iter().map(service).collect(),
            allow: AllowList::default(),
            advertise: Vec::new(),
            link_carrier: None,
            local_port: 0,
            link_rate: None,
            link_budget: tunnel_edge::config::LinkBudget::default(),
            link_proxy: None,
            metrics: None,
            listeners: Vec::new(),
            proxy: None,
            log: tunnel_daemon::logs::LogConfig::default(),
        }
    }

    /// The same as a file, beside the gateway's own.
    pub(crate) fn config_file(&self, state: &Path, rest: &str) -> PathBuf {
        let path = self.dir.path().join("edge.toml");
        let text = format!(
            "state = {:?}\n[gateway]\naddresses = [\"{}\"]\n{rest}",
            state.display().to_string(),
            self.address
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl State {
    fn issue(
        &self,
        key: &tunnel_identity::PublicKey,
        node: NodeId,
        at: UnixTime,
    ) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        let name: NodeName = "edge1".parse().unwrap();
        self.authority.issue_node(key, node, &name, at).unwrap()
    }

    fn identify(&self, accepted: &Accepted, expiry: Expiry) -> Result<NodeId, Refusal> {
        let revoked = self.revoked.load(Ordering::SeqCst);
        let check = |_: NodeId, _: &tunnel_identity::Serial| revoked;
        NodeIdentity::from_chain(&accepted.chain, &self.root, now(), expiry, &check)
            .map(|identity| identity.node)
            .map_err(|error| match error {
                tunnel_identity::IdentityError::Revoked => Refusal::new(Reason::Revoked, error.to_string()),
                _ => Refusal::new(Reason::Unauthenticated, error.to_string()),
            })
    }

    fn reply(&self, accepted: &Accepted, question: &[u8]) -> Reply {
        let granted = match Request::decode(question).unwrap() {
            Request::Enrol(request) => {
                let binding = quic::channel_binding(&accepted.connection).unwrap();
                let mut grant = self.grant.lock().unwrap();
                verify_enrol(&request, Some(&grant), &binding, now())
                    .map(|verified| {
                        grant.uses_left -= 1;
                        (verified.public_key, NodeId::random(&mut rand::rng()), verified.name)
                    })
                    .map_err(|error| error.to_refusal())
            }
            Request::Renew(request) => self.identify(accepted, Expiry::Within(RENEWABLE_FOR)).map(|node| {
                self.renewals.fetch_add(1, Ordering::SeqCst);
                (request.public_key().unwrap(), node, None)
            }),
        };
        match granted {
            Ok((key, node, name)) => Reply::Issued(Issued {
                chain: self.issue(&key, node, now()),
                name: name.unwrap_or_else(|| "edge1".parse().unwrap()),
                time: now(),
            }),
            Err(refusal) => Reply::Refused(refusal),
        }
    }
}

fn listen(files: &GatewayFiles, root: &ClusterRoot) -> (Server, GatewayAddr) {
    let tls = tls::server_config(&files.gateway().unwrap(), root).unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), tls, &[7; 32], &Limits::gateway()).unwrap();
    let address = server.local_addr().unwrap().to_string().parse().unwrap();
    (server, address)
}

async fn accept(mut server: Server, state: Arc<State>, sessions: mpsc::Sender<Session>) {
    while let Some(accepted) = server.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        match accepted.purpose {
            Purpose::Enrol => tokio::spawn(enrol(Arc::clone(&state), accepted)),
            Purpose::Tunnel => tokio::spawn(serve(Arc::clone(&state), accepted, sessions.clone())),
        };
    }
}

async fn enrol(state: Arc<State>, accepted: Accepted) {
    if let Ok((question, answering)) = exchange::question(&accepted.connection.clone().into()).await {
        state.questions.fetch_add(1, Ordering::SeqCst);
        let reply = state.reply(&accepted, &question);
        // The edge closes the connection; until then it must stay.
        let _ = answering.answer(&reply.encode().unwrap()).await;
        accepted.connection.closed().await;
    }
}

async fn serve(state: Arc<State>, accepted: Accepted, sessions: mpsc::Sender<Session>) {
    if let Err(refusal) = state.identify(&accepted, Expiry::Full) {
        return quic::close(&accepted.connection, &refusal);
    }
    let hello = Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: tunnel_model::SessionId::from_bytes([0; 16]),
        carrier: 0,
        continues: false,
        resume_for: Config::default().resume_for,
        software: "test gateway".to_owned(),
        name: "edge1".to_owned(),
        unix_millis: now().secs() * 1000,
    };
    let config = Config::default();
    let Ok(arriving) = Arriving::accept(accepted.connection, config.patience).await else {
        return;
    };
    let Ok(carrier) = arriving.answer(hello, config.patience).await else {
        return;
    };
    // It keeps no session: each carrier begins another.
    let mut opened = Tunnel::new(Side::Gateway, config);
    let peer = carrier.negotiated.peer.clone();
    let driver = tokio::spawn(opened.tunnel.attach(carrier).unwrap().run());
    if let Some(notice) = opened.notices.recv().await
        && let Notice::Offer(offer) = *notice
    {
        let session = Session {
            tunnel: opened.tunnel,
            services: offer.services,
            subnets: offer.subnets,
            hello: peer,
            notices: opened.notices,
            incoming: opened.incoming,
        };
        // A test that looks at no more sessions has ended.
        let _ = sessions.send(session).await;
    }
    let _ = driver.await;
}

pub(crate) fn now() -> UnixTime {
    std::time::SystemTime::now().into()
}

/// Waits for what must come; a test that hangs says where.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(20), future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
