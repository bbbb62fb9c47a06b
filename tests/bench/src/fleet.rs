//! What a gateway and an agent hold: memory of many idle edges, memory and descriptors after many streams.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval},
};
use tunnel_carrier::{
    Carrier, Driver, Opened, Tunnel, exchange,
    quic::{Dialer, Limits},
};
use tunnel_identity::{
    ChannelBinding, ClusterRoot, Credential, EXPORTER_LABEL, EnrolRequest, GatewayIdentity, JoinToken, PrivateKey,
    Reply, Request, TimeFloor, UnixTime,
    tls::{Alpn, client_config_enrol, client_config_node},
};
use tunnel_model::{GatewayAddr, SessionId};
use tunnel_proto::{Config, Hello, Side, VERSIONS};

use crate::{
    load::{self, Backends},
    process::{descriptors, resident},
    subject::Ours,
};

const STREAMS: usize = 100_000;
/// Streams before the baseline is taken, so that pools and caches have their size.
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
    /// Bytes resident in an idle agent.
    agent: u64,
    gateway_after: Held,
    edge_after: Held,
}

/// What a process held before and after many streams.
#[derive(Clone, Copy)]
struct Held {
    memory: (u64, u64),
    descriptors: (usize, usize),
}

impl Held {
    fn growth(&self) -> f64 {
        self.memory.1 as f64 / self.memory.0 as f64 - 1.0
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
        for (who, held) in [("gateway", self.gateway_after), ("agent", self.edge_after)] {
            lines.push((
                format!("{who}, after {STREAMS} streams opened and closed"),
                format!(
                    "descriptors {} to {}, memory {:+.1} %",
                    held.descriptors.0,
                    held.descriptors.1,
                    held.growth() * 100.0
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
        if self.agent > AGENT {
            missed.push(format!(
                "{} bytes resident in the agent, the bar is {AGENT}",
                self.agent
            ));
        }
        for (who, held) in [("gateway", self.gateway_after), ("agent", self.edge_after)] {
            if held.descriptors.1 > held.descriptors.0 || held.growth() > GROWTH {
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

    eprintln!("fleet: {STREAMS} streams");
    load::requests(&entry, WARM_UP).await?;
    let before = [held(gateway_pid).await?, held(edge_pid).await?];
    load::requests(&entry, STREAMS).await?;
    let after = [held(gateway_pid).await?, held(edge_pid).await?];
    let compare = |i: usize| Held {
        memory: (before[i].0, after[i].0),
        descriptors: (before[i].1, after[i].1),
    };

    eprintln!("fleet: {edges} idle edges");
    let token = gateway
        .cloud(&["token", "create", "--uses", &edges.to_string()])
        .await?;
    let empty = resident(gateway_pid)?;
    let fleet = idle_edges(edges, token.parse()?).await?;
    let full = resident(gateway_pid)?;
    ensure!(fleet.len() == edges, "an edge of the fleet lost its session");
    Ok(FleetFigures {
        edges,
        per_edge: full.saturating_sub(empty) / edges as u64,
        agent,
        gateway_after: compare(0),
        edge_after: compare(1),
    })
}

/// Memory and descriptors of a process, once it holds no more of the connections that have just ended.
async fn held(pid: u32) -> anyhow::Result<(u64, usize)> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut every = interval(Duration::from_millis(500));
    let mut last = usize::MAX;
    loop {
        every.tick().await;
        let now = descriptors(pid)?;
        if now >= last || Instant::now() > deadline {
            return Ok((resident(pid)?, now));
        }
        last = now;
    }
}

/// Enrols edges and keeps their sessions, all in this process.
async fn idle_edges(count: usize, token: JoinToken) -> anyhow::Result<JoinSet<()>> {
    let dialer = Dialer::bind(0, Limits::edge())?;
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
    let now = UnixTime::from(std::time::SystemTime::now());
    let floor = TimeFloor::new(now, None);
    let tls = client_config_enrol(token.pin(), &floor)?;
    let connection = dialer.dial(token.gateways(), tls).await?;
    let shown = connection
        .peer_identity()
        .and_then(|identity| {
            identity
                .downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>()
                .ok()
        })
        .context("the gateway shows no certificate")?;
    let (root, _) = GatewayIdentity::from_pinned_chain(&shown, &token.pin(), &floor)?;
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
        .map_err(|_| anyhow::anyhow!("no exporter"))?;
    let key = PrivateKey::generate()?;
    let request = EnrolRequest::build(token, &ChannelBinding::new(exporter), &key, None)?;
    let answer = exchange::ask(&connection, &Request::Enrol(request).encode()?).await?;
    let issued = match Reply::decode(&answer)? {
        Reply::Issued(issued) => issued,
        Reply::Refused(refusal) => return Err(refusal.into()),
    };
    session(
        dialer,
        token.gateways(),
        &root,
        &Credential::new(issued.chain, key)?,
        &floor,
    )
    .await
}

async fn session(
    dialer: &Dialer,
    gateways: &[GatewayAddr],
    root: &ClusterRoot,
    credential: &Credential,
    floor: &TimeFloor,
) -> anyhow::Result<(Opened, Driver)> {
    let tls = client_config_node(root, credential, floor, Alpn::Tunnel)?;
    let connection = dialer.dial(gateways, tls).await?;
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
