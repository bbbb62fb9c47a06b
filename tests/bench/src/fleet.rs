//! What a gateway and an agent hold: memory of many idle edges, memory and descriptors after many streams.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::ensure;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval},
};
use tunnel_carrier::{
    Carrier, CarrierKind, Connection, Dialer, Driver, Opened, Patience, Tunnel, exchange, tls::Proxies,
};
use tunnel_identity::{
    Credential, EnrolRequest, GatewayIdentity, JoinToken, PrivateKey, Reply, Request, TimeFloor, UnixTime,
    tls::{Alpn, client_config_enrol, client_config_node},
};
use tunnel_model::SessionId;
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use crate::{
    hostile,
    load::{self, Backends},
    process::{descriptors, resident},
    subject::Ours,
};

const STREAMS: usize = 100_000;
/// Streams before anything is counted, by as many callers at once as later: what a process holds for so many at the same
/// time is there then.
const WARM_UP: usize = 5_000;
/// Edges that enrol at the same time.
const AT_ONCE: usize = 16;

const PER_EDGE: u64 = 64 * 1024;
const AGENT: u64 = 15 * 1024 * 1024;
const GROWTH: f64 = 0.05;

/// What was measured.
pub(crate) struct FleetFigures {
    edges: usize,
    /// Bytes of the gateway's resident memory for each idle edge.
    per_edge: u64,
    /// The same for each hostile one, by its carrier.
    per_hostile: [(CarrierKind, u64); 2],
    /// Bytes resident in an idle agent.
    agent: u64,
    gateway_after: Growth,
    edge_after: Growth,
}

/// What a process holds.
#[derive(Clone, Copy)]
struct Held {
    memory: u64,
    descriptors: usize,
}

/// What a process held after the warm-up, after many streams, and after as many again. An allocator takes its time to find
/// its size; something that is kept of every stream shows in the second step as it does in the first.
#[derive(Clone, Copy)]
struct Growth([Held; 3]);

impl Growth {
    /// By how much memory grew in the steps.
    fn steps(&self) -> [f64; 2] {
        let [a, b, c] = self.0.map(|held| held.memory as f64);
        [b / a - 1.0, c / b - 1.0]
    }

    fn is_missed(&self) -> bool {
        let [first, _, last] = self.0;
        last.descriptors > first.descriptors || self.steps()[1] > GROWTH
    }
}

impl FleetFigures {
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![
            (
                format!("gateway, resident for each of {} idle edges", self.edges),
                format!("{:.1} KiB", self.per_edge as f64 / 1024.0),
            ),
            (
                "agent, resident".to_owned(),
                format!("{:.1} MiB", self.agent as f64 / 1024.0 / 1024.0),
            ),
        ];
        for (kind, per_hostile) in self.per_hostile {
            let what = format!(
                "gateway, resident for each of {} hostile edges, by {}",
                hostile::PEERS,
                name(kind)
            );
            lines.insert(
                lines.len() - 1,
                (what, format!("{:.1} KiB", per_hostile as f64 / 1024.0)),
            );
        }
        for (who, growth) in [("gateway", self.gateway_after), ("agent", self.edge_after)] {
            let [before, _, after] = growth.0;
            let [first, again] = growth.steps().map(|step| step * 100.0);
            lines.push((
                format!("{who}, after {STREAMS} streams opened and closed, and as many again"),
                format!(
                    "descriptors {} to {}, memory {first:+.1} %, then {again:+.1} %",
                    before.descriptors, after.descriptors
                ),
            ));
        }
        lines
    }

    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if self.per_edge > PER_EDGE {
            missed.push(format!(
                "{} bytes for each idle edge, the bar is {PER_EDGE}",
                self.per_edge
            ));
        }
        for (kind, per_hostile) in self.per_hostile {
            if per_hostile > hostile::PER_PEER {
                missed.push(format!(
                    "{per_hostile} bytes for each hostile edge by {}, the bar is {}",
                    name(kind),
                    hostile::PER_PEER
                ));
            }
        }
        if self.agent > AGENT {
            missed.push(format!(
                "{} bytes resident in the agent, the bar is {AGENT}",
                self.agent
            ));
        }
        for (who, growth) in [("gateway", self.gateway_after), ("agent", self.edge_after)] {
            if growth.is_missed() {
                missed.push(format!("the {who} kept something of {STREAMS} streams"));
            }
        }
        missed
    }
}

pub(crate) async fn measure(edges: usize, backends: Backends, dir: &Path) -> anyhow::Result<FleetFigures> {
    let (gateway, serve) = Ours::start(dir).await?;
    let edge = gateway.edge(backends).await?;
    let entry = gateway.entry().await?;
    let (gateway_pid, edge_pid) = (serve.pid()?, edge.pid()?);
    let agent = resident(edge_pid)?;

    eprintln!("fleet: twice {STREAMS} streams");
    let mut points = Vec::new();
    for streams in [WARM_UP, STREAMS, STREAMS] {
        load::requests(&entry, streams).await?;
        points.push((held(gateway_pid).await?, held(edge_pid).await?));
    }
    let [a, b, c] = points[..] else {
        anyhow::bail!("three points were measured");
    };

    eprintln!("fleet: {edges} idle edges");
    let token = gateway
        .cloud(&["token", "create", "--uses", &edges.to_string()])
        .await?;
    let empty = resident(gateway_pid)?;
    let fleet = idle_edges(edges, token.parse()?).await?;
    let full = resident(gateway_pid)?;
    ensure!(fleet.len() == edges, "an edge of the fleet lost its session");
    drop(fleet);

    let mut per_hostile = [(CarrierKind::Quic, 0), (CarrierKind::Tls, 0)];
    for (kind, measured) in &mut per_hostile {
        *measured = hostile_edges(*kind, &dir.join(kind.to_string())).await?;
    }
    Ok(FleetFigures {
        edges,
        per_edge: full.saturating_sub(empty) / edges as u64,
        per_hostile,
        agent,
        gateway_after: Growth([a.0, b.0, c.0]),
        edge_after: Growth([a.1, b.1, c.1]),
    })
}

/// Against a gateway of their own: in another, what was held before would be used again.
async fn hostile_edges(kind: CarrierKind, dir: &Path) -> anyhow::Result<u64> {
    std::fs::create_dir(dir)?;
    let (gateway, serve) = Ours::start(dir).await?;
    let token = gateway
        .cloud(&["token", "create", "--uses", &hostile::PEERS.to_string()])
        .await?;
    hostile::measure(serve.pid()?, token.parse()?, kind).await
}

fn name(kind: CarrierKind) -> &'static str {
    match kind {
        CarrierKind::Quic => "QUIC",
        CarrierKind::Tls => "TLS",
    }
}

/// Memory and descriptors of a process, once it holds no more of the connections that have just ended.
async fn held(pid: u32) -> anyhow::Result<Held> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut every = interval(Duration::from_millis(500));
    let mut last = usize::MAX;
    loop {
        every.tick().await;
        let now = descriptors(pid)?;
        if now >= last || Instant::now() > deadline {
            return Ok(Held {
                memory: resident(pid)?,
                descriptors: now,
            });
        }
        last = now;
    }
}

/// Enrols edges and keeps their sessions, all in this process.
async fn idle_edges(count: usize, token: JoinToken) -> anyhow::Result<JoinSet<()>> {
    let dialer = Dialer::bind(0, Proxies::none())?.only(Some(CarrierKind::Quic));
    let token = Arc::new(token);
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut enrolling = JoinSet::new();
    for _ in 0..count {
        let (dialer, token, gate) = (dialer.clone(), Arc::clone(&token), Arc::clone(&gate));
        enrolling.spawn(async move {
            let _place = gate.acquire_owned().await?;
            idle_edge(&dialer, &token).await
        });
    }
    let mut running = JoinSet::new();
    while let Some(edge) = enrolling.join_next().await {
        let (opened, driver) = edge??;
        running.spawn(async move {
            driver.run().await;
            // Its handles live as long as its session.
            drop(opened);
        });
    }
    Ok(running)
}

async fn idle_edge(dialer: &Dialer, token: &JoinToken) -> anyhow::Result<(Opened, Driver)> {
    session(member(dialer, token).await?).await
}

/// Enrols an edge, and connects as it.
pub(crate) async fn member(dialer: &Dialer, token: &JoinToken) -> anyhow::Result<Connection> {
    let now = UnixTime::from(std::time::SystemTime::now());
    let floor = TimeFloor::new(now, None);
    let dial = async |tls| dialer.dial(token.gateways(), &tls, Patience::default()).await;
    let connection = dial(client_config_enrol(token.pin(), &floor)?).await?;
    let (root, _) = GatewayIdentity::from_pinned_chain(&connection.peer_chain(), &token.pin(), &floor)?;
    let key = PrivateKey::generate()?;
    let request = EnrolRequest::build(token, &connection.channel_binding()?, &key, None)?;
    let answer = exchange::ask(&connection, &Request::Enrol(request).encode()?).await?;
    let issued = match Reply::decode(&answer)? {
        Reply::Issued(issued) => issued,
        Reply::Refused(refusal) => return Err(refusal.into()),
    };
    let credential = Credential::new(issued.chain, key)?;
    Ok(dial(client_config_node(&root, &credential, &floor, Alpn::Tunnel)?).await?)
}

async fn session(connection: Connection) -> anyhow::Result<(Opened, Driver)> {
    let hello = Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: SessionId::from_bytes([0; 16]),
        carrier: 1,
        continues: false,
        resume_for: Config::default().resume_for,
        software: "tunnel-bench".to_owned(),
        name: String::new(),
        unix_millis: 0,
    };
    let config = Config {
        keepalive: Some(Duration::from_secs(25)),
        ..Config::default()
    };
    let carrier = Carrier::dial(connection, hello, config.patience).await?;
    let opened = Tunnel::new(Side::Edge, config);
    let driver = opened.tunnel.attach(carrier)?;
    Ok((opened, driver))
}
