//! The tunnel, as a user sets it up: init, serve, token, join, run.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::Value;
use tokio::process::Command;
use tunnel_linkem::{LinkPair, relay::UdpRelay};

use super::{Place, Started, local, udp_port};
use crate::{
    load::{Backends, Entry},
    process::{Running, capture, find, free_ports, wait_for_port},
};

/// A gateway that is up.
pub(crate) struct Ours {
    cloud: PathBuf,
    edge: PathBuf,
    dir: PathBuf,
    config: String,
    public: SocketAddr,
    proxy: u16,
    /// Where TLS gets in by its server name.
    sni: SocketAddr,
    /// Where packets for the edge's sink get in.
    udp: SocketAddr,
    /// The ports that lead to the servers.
    ports: (SocketAddr, SocketAddr),
}

/// How clients get in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// By a port for each server.
    Port,
    /// By the proxy, with a credential and a name.
    Proxy,
}

impl Ours {
    /// How callers name the first server.
    pub(crate) const BULK: &str = "bulk.edge1.tunnel";

    /// And the second one, where it is for scrapes.
    pub(crate) const METRICS: &str = "metrics.edge1.tunnel";

    /// Makes a gateway in `dir` and runs it, for edges beside it.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<(Self, Running)> {
        Self::start_at(&Place::loopback(), dir).await
    }

    pub(crate) async fn start_at(place: &Place, dir: &Path) -> anyhow::Result<(Self, Running)> {
        let missing = "is not built; run `cargo build --release --bins`";
        let cloud = find("tunnel-cloud").with_context(|| format!("tunnel-cloud {missing}"))?;
        let edge = find("tunnel-edge").with_context(|| format!("tunnel-edge {missing}"))?;
        let [public, proxy, sni, bulk, page] = free_ports()?;
        let ours = Self {
            config: dir.join("cloud.toml").display().to_string(),
            cloud,
            edge,
            dir: dir.to_owned(),
            public: place.near_port(public),
            proxy,
            sni: local(sni),
            udp: udp_port()?,
            ports: (local(bulk), local(page)),
        };
        let state = ours.path("cloud-state");
        let (public, proxy) = (ours.public.to_string(), format!("127.0.0.1:{proxy}"));
        let init = [
            "init",
            "--config",
            &ours.config,
            "--state",
            &state,
            "--public",
            &public,
            "--proxy",
            &proxy,
        ];
        capture(Command::new(&ours.cloud).args(init)).await?;
        // One user opens everything here, which none of the peers limits.
        let text = std::fs::read_to_string(&ours.config)?;
        let text = text.replace("127.0.0.1:7090", "127.0.0.1:0");
        let mut text = text.replace("[listen]\n", &format!("[listen]\nsni = \"{}\"\n", ours.sni));
        text += "\n[limits]\nprincipal_opens_per_second = 1000000\nnode_opens_per_second = 1000000\n";
        // Ports and server names carry no credential: who reaches them may use them.
        text += "\n[[rule]]\nsubjects = [\"cidr:127.0.0.1/32\"]\nnodes = \"edge1\"\n\
                 targets = [\"service:packets\", \"service:bulk\", \"service:page\"]\n";
        for (listen, service, protocol) in [
            (ours.udp, "packets", "udp"),
            (ours.ports.0, "bulk", "tcp"),
            (ours.ports.1, "page", "tcp"),
        ] {
            text += &format!(
                "\n[[forward]]\nlisten = \"{listen}\"\nnode = \"edge1\"\ntarget = \"service:{service}\"\n\
                 protocol = \"{protocol}\"\n"
            );
        }
        std::fs::write(&ours.config, text)?;
        let log = ours.dir.join("cloud.log");
        let serve = Running::start(&ours.cloud, &["serve", "--config", &ours.config], &log)?;
        let listening = wait_for_port(proxy.parse()?).await;
        listening.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok((ours, serve))
    }

    /// Runs a verb of the gateway's command line and gives what it says on stdout.
    pub(crate) async fn cloud(&self, args: &[&str]) -> anyhow::Result<String> {
        capture(Command::new(&self.cloud).args(["--config", &self.config]).args(args)).await
    }

    /// A link to the gateway.
    pub(crate) async fn link(&self, link: LinkPair) -> anyhow::Result<UdpRelay> {
        Ok(UdpRelay::start(self.public, link, 1).await?)
    }

    /// Where edges dial it.
    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    /// What the session goes over, as the edge at this place says and as the gateway says.
    pub(crate) async fn carriers(&self, place: &Place) -> anyhow::Result<[String; 2]> {
        let config = self.path("edge.toml");
        let status = ["--config", &config, "status", "-o", "json"];
        // An agent that is not connected says so and fails.
        let said = place.capture(&self.edge, &status).await.unwrap_or_default();
        let edge: Value = serde_json::from_str(&said).unwrap_or_default();
        let gateway: Value = serde_json::from_str(&self.cloud(&["nodes", "show", "edge1", "-o", "json"]).await?)?;
        Ok([&edge["link"]["carrier"], &gateway["carrier"]].map(|said| said.as_str().unwrap_or("none").to_owned()))
    }

    /// A file of the edge's state.
    pub(crate) fn edge_state(&self, file: &str) -> PathBuf {
        self.dir.join("edge-state").join(file)
    }

    /// Where TLS gets in by its server name.
    pub(crate) fn sni(&self) -> SocketAddr {
        self.sni
    }

    /// Enrols an edge that offers the servers, and runs it.
    pub(crate) async fn edge(&self, backends: Backends) -> anyhow::Result<Running> {
        self.edge_at(backends, self.public).await
    }

    /// The same, and the edge finds the gateway at `gateway`.
    pub(crate) async fn edge_at(&self, backends: Backends, gateway: SocketAddr) -> anyhow::Result<Running> {
        self.edge_in(&Place::loopback(), backends, gateway, None).await
    }

    /// The same, somewhere, with this in the edge's table `link`, if anything.
    pub(crate) async fn edge_in(
        &self,
        place: &Place,
        backends: Backends,
        gateway: SocketAddr,
        link: Option<&str>,
    ) -> anyhow::Result<Running> {
        let token = self.cloud(&["token", "create", "--name", "edge1"]).await?;
        let (config, state) = (self.path("edge.toml"), self.path("edge-state"));
        let join = ["join", &token, "--config", &config, "--state", &state];
        place.capture(&self.edge, &join).await?;
        let text = std::fs::read_to_string(&config)?;
        let mut text = text.replace(&self.public.to_string(), &gateway.to_string());
        for (name, target) in [("bulk", backends.tcp), ("page", backends.http)] {
            text += &format!("\n[[service]]\nname = \"{name}\"\ntarget = \"{target}\"\n");
        }
        text += &format!(
            "\n[[service]]\nname = \"metrics\"\ntarget = \"{}\"\nscrape = true\n",
            backends.http
        );
        text += &format!(
            "\n[[service]]\nname = \"packets\"\ntarget = \"{}\"\nprotocol = \"udp\"\n",
            backends.udp
        );
        if let Some(link) = link {
            text += &format!("\n[link]\n{link}\n");
        }
        std::fs::write(&config, text)?;
        let log = self.dir.join("edge.log");
        let run = place.start(&self.edge, &["run", "--config", &config], &log)?;
        let wait = ["--config", &config, "wait", "--timeout", "20s"];
        place.capture(&self.edge, &wait).await?;
        Ok(run)
    }

    /// How an admin gets in.
    pub(crate) async fn entry(&self) -> anyhow::Result<Entry> {
        let secret = self.cloud(&["users", "create", "bench", "--group", "admins"]).await?;
        Ok(Entry::Proxy {
            proxy: ([127, 0, 0, 1], self.proxy).into(),
            credential: format!("bench:{secret}"),
            tcp: format!("{}:80", Self::BULK),
            http: "page.edge1:80".to_owned(),
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// Both ends, the way in, and what the edge's table `link` says, if anything.
pub(super) async fn start(
    place: &Place,
    backends: Backends,
    dir: &Path,
    way: Way,
    link: Option<&str>,
) -> anyhow::Result<Started> {
    let (gateway, serve) = Ours::start_at(place, dir).await?;
    let edge = gateway.edge_in(place, backends, gateway.public, link).await?;
    Ok(Started {
        entry: match way {
            Way::Port => Entry::Ports {
                tcp: gateway.ports.0,
                http: gateway.ports.1,
            },
            Way::Proxy => gateway.entry().await?,
        },
        // Packets are dropped where they would wait behind other data.
        udp: link.is_none_or(|link| !link.contains("tls")).then_some(gateway.udp),
        _processes: vec![serve, edge],
    })
}
