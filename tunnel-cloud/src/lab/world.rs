//! The lab's inhabitants.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};
use tunnel_carrier::Tunnel;
use tunnel_daemon::{
    accept::AcceptMetrics,
    error::{CliError, Exit},
    metrics::Metrics,
    readiness::Readiness,
    shutdown::Tasks,
};
use tunnel_edge::{
    agent::{Agent, Home},
    config::Config as EdgeConfig,
    join,
    metrics::EdgeMetrics,
};
use tunnel_identity::{JoinToken, UnixTime};
use tunnel_ingress::IngressMetrics;
use tunnel_linkem::{LinkConfig, relay::UdpRelay};
use tunnel_model::{GatewayAddr, HostPort, Labels, NodeName, Service};

use super::{broken, demo, sshd::Sshd};
use crate::{
    config::Config,
    gateway::{self, Running},
    state::{NewCluster, State, init},
    store::Token,
    tunnel::Registry,
};

/// Where the proxy listens if the port is free, so that pasted lines stay good from run to run.
const PROXY_PORT: u16 = 7080;
/// How long an edge may take to join and to connect over the worst of links.
const PATIENCE: Duration = Duration::from_secs(60);
/// The seed of the first edge's link; each next one has the next.
const SEED: u64 = 1;

/// A gateway, edges, links and services.
pub(super) struct World {
    pub(super) gateway: Running,
    pub(super) edges: Vec<Edge>,
    /// NAME:SECRET of the admin.
    pub(super) credential: String,
    /// An SSH server that all edges offer, if OpenSSH is installed.
    pub(super) sshd: Option<Sshd>,
    /// Keys, store and configuration; gone with the lab.
    pub(super) dir: TempDir,
}

/// One edge and its link.
pub(super) struct Edge {
    pub(super) name: NodeName,
    pub(super) link: Arc<UdpRelay>,
    _agent: Agent,
}

/// What the live figures are read from.
pub(super) struct Handles {
    pub(super) edges: Vec<(NodeName, Arc<UdpRelay>)>,
    state: Arc<State>,
    registry: Arc<Registry>,
}

impl Handles {
    /// The session of a node, which may be waiting for a connection.
    pub(super) fn tunnel(&self, name: &NodeName) -> Option<Tunnel> {
        let id = self.state.directory.read(|all| all.by_name(name).map(|node| node.id))?;
        self.registry.get(id)
    }
}

impl World {
    /// Starts everything; what fails is named.
    pub(super) async fn start(nodes: usize, link: LinkConfig, tasks: &Tasks) -> Result<Self, CliError> {
        let dir = TempDir::with_prefix("tunnel-lab-").map_err(|e| broken("no temporary directory", e))?;
        let gateway = gateway::start(gateway_config(dir.path()).await?, tasks).await?;
        let sshd = Sshd::start(dir.path()).await;
        let mut edges = Vec::new();
        for index in 0..nodes {
            edges.push(Edge::start(index, link, dir.path(), &gateway, sshd.as_ref(), tasks).await?);
        }
        let secret = std::fs::read_to_string(dir.path().join("state/admin.secret"))
            .map_err(|e| broken("the admin's secret cannot be read", e))?;
        Ok(Self {
            gateway,
            edges,
            credential: format!("admin:{}", secret.trim()),
            sshd,
            dir,
        })
    }

    pub(super) fn proxy(&self) -> SocketAddr {
        self.gateway.listening.proxy
    }

    pub(super) fn handles(&self) -> Handles {
        Handles {
            edges: self
                .edges
                .iter()
                .map(|e| (e.name.clone(), Arc::clone(&e.link)))
                .collect(),
            state: Arc::clone(&self.gateway.state),
            registry: Arc::clone(&self.gateway.registry),
        }
    }
}

/// A new cluster that listens on loopback, on ports that are free.
async fn gateway_config(dir: &Path) -> Result<Config, CliError> {
    let any = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let proxy = match TcpListener::bind(any(PROXY_PORT)).await {
        Ok(_) => any(PROXY_PORT),
        Err(_) => any(0),
    };
    let new = NewCluster {
        config: dir.join("cloud.toml"),
        state: dir.join("state"),
        // Edges get the address of their own link; this one stands in the certificate.
        public: GatewayAddr(HostPort::from_ip(Ipv4Addr::LOCALHOST.into(), 7000)),
        proxy,
        zone: tunnel_model::Zone::default(),
    };
    init(&new, now()).await?;
    let mut config = Config::load(&new.config)?;
    config.listen.public = any(0);
    config.listen.metrics = any(0);
    Ok(config)
}

impl Edge {
    /// Makes a link to the gateway, joins across it, and connects.
    async fn start(
        index: usize,
        link: LinkConfig,
        dir: &Path,
        gateway: &Running,
        sshd: Option<&Sshd>,
        tasks: &Tasks,
    ) -> Result<Self, CliError> {
        let name: NodeName = format!("edge{}", index + 1).parse().map_err(|e| broken("no name", e))?;
        let link = UdpRelay::start(gateway.listening.public, link.into(), SEED + index as u64)
            .await
            .map_err(|e| broken("no link", e))?;
        let plan = join::Plan {
            token: token(&name, link.local_addr(), gateway).await?,
            config: dir.join(format!("{name}.toml")),
            state: dir.join(name.as_str()),
            name: Some(name.clone()),
        };
        let late = |what: &str| {
            CliError::new(
                Exit::Timeout,
                "lab-slow",
                format!("{name} did not {what} within {} s", PATIENCE.as_secs()),
            )
            .with_hint("is the link too bad? try --link 3mbit,60ms,1%")
        };
        timeout(PATIENCE, join::join(&plan, |_| {}))
            .await
            .map_err(|_| late("join"))??;

        let mut config = EdgeConfig::load(&plan.config)?;
        let web = demo::serve(&name, tasks)
            .await
            .map_err(|e| broken("no demo service", e))?;
        config.services = vec![service("web", web)?];
        if let Some(sshd) = sshd {
            config.services.push(service("ssh", sshd.address())?);
        }
        let metrics = Metrics::new("tunnel_edge");
        let home = Home {
            tasks: tasks.clone(),
            metrics: EdgeMetrics::new(&metrics),
            accepts: AcceptMetrics::new(&metrics),
            ingress: IngressMetrics::new(&metrics),
            check: Readiness::new().check("tunnel"),
        };
        let agent = Agent::start_in(&config, home).map_err(|e| broken("no agent", e))?;
        timeout(PATIENCE, agent.connected())
            .await
            .map_err(|_| late("connect"))?;
        Ok(Self {
            name,
            link: Arc::new(link),
            _agent: agent,
        })
    }
}

/// A join token that leads over the edge's own link.
async fn token(name: &NodeName, link: SocketAddr, gateway: &Running) -> Result<JoinToken, CliError> {
    let address = GatewayAddr(HostPort::from_ip(link.ip(), link.port()));
    let pin = gateway.state.authority.root().pin();
    let token = JoinToken::generate(pin, vec![address], &mut rand::rng()).ok_or_else(|| broken("no token", name))?;
    let now = now();
    let kept = Token {
        id: token.id(),
        key: token.secret().key(),
        name: Some(name.clone()),
        labels: Labels::default(),
        created_at: now.secs(),
        expires_at: now.plus(PATIENCE * 2).secs(),
        uses_left: 1,
        revoked_at: None,
    };
    gateway.state.store.add_token(kept).await?;
    Ok(token)
}

fn service(name: &str, target: SocketAddr) -> Result<Service, CliError> {
    Ok(Service::new(
        name.parse().map_err(|e| broken("no name", e))?,
        HostPort::from_ip(target.ip(), target.port()),
    ))
}

fn now() -> UnixTime {
    SystemTime::now().into()
}
