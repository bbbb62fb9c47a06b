//! A site: hosts in a private network, a NAT, and a link to the isp.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use ipnet::Ipv4Net;
use tunnel_linkem::tun::{TunEnd, TunLink};
use tunnel_linkem::{LinkConfig, LinkPair};

use super::host::Host;
use super::nat::{self, Nat, WAN};

/// Sites whose public addresses fit into 198.51.100.0/24.
const MOST_SITES: u8 = 10;

/// Public addresses that a site has in turn, and private ones that its edge has.
const ADDRS_PER_SITE: u8 = 20;

/// Places in the private range.
const ROUTER: u32 = 1;
const EDGE: u32 = 10;
const NEIGHBOUR: u32 = 100;

/// Packets that a device keeps until the link reads them: enough that only the link drops any.
const DEVICE_QUEUE: u32 = 2_000;

/// What a site is to be: by default behind a port-restricted NAT and a perfect link.
#[derive(Clone, Debug)]
pub struct Site {
    nat: Nat,
    lan: String,
    link: String,
    mtu: u16,
    seed: u64,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            nat: Nat::default(),
            lan: "192.168.1.0/24".to_owned(),
            link: "0ms".to_owned(),
            mtu: 1_500,
            seed: 1,
        }
    }
}

impl Site {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The kind of NAT.
    #[must_use]
    pub fn nat(mut self, nat: Nat) -> Self {
        self.nat = nat;
        self
    }

    /// The private range, a /24 or larger. Sites may have the same.
    #[must_use]
    pub fn lan(mut self, range: &str) -> Self {
        range.clone_into(&mut self.lan);
        self
    }

    /// The link to the isp, like `3mbit,60ms,1%`. What that form cannot say is set on the running
    /// link.
    #[must_use]
    pub fn link(mut self, link: &str) -> Self {
        link.clone_into(&mut self.link);
        self
    }

    /// The link's MTU in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// What decides the fate of packets on the link.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// A site that runs.
#[derive(Debug)]
pub struct LabSite {
    // The link comes first, to be dropped before the namespaces of its devices.
    link: TunLink,
    number: u8,
    nat: Nat,
    lan: Ipv4Net,
    router: Host,
    edge: Host,
    neighbour: Host,
    isp: Arc<Host>,
    changes: Mutex<Changes>,
}

/// How often things have changed.
#[derive(Debug, Default)]
struct Changes {
    public: u8,
    edge: u8,
    bindings: usize,
}

impl LabSite {
    pub(super) fn build(lab: &str, number: u8, site: &Site, isp: &Arc<Host>) -> anyhow::Result<Self> {
        ensure!(number <= MOST_SITES, "a lab has at most {MOST_SITES} sites");
        let lan: Ipv4Net = site
            .lan
            .parse()
            .with_context(|| format!("private range {:?}", site.lan))?;
        ensure!(lan.prefix_len() <= 24, "the private range {lan} is smaller than a /24");
        let link: LinkConfig = site.link.parse()?;

        let router = Host::new(lab, &format!("nat{number}"), inside(lan, ROUTER))?;
        router.route_packets()?;
        router.ip(&[
            "link add br0 type bridge",
            &format!("addr add {}/{} dev br0", router.addr(), lan.prefix_len()),
            "link set br0 up",
        ])?;
        let ends = [(&router, WAN.to_owned()), (isp, far_device(number))].map(|(host, device)| TunEnd {
            namespace: host.namespace_path(),
            device,
        });
        let [near, far] = &ends;
        let link = TunLink::start(near, far, LinkPair::from(link), site.seed).context("could not lay the link")?;
        for (host, end) in [(&router, near), (isp, far)] {
            host.ip(&[&format!(
                "link set {} mtu {} txqueuelen {DEVICE_QUEUE} up",
                end.device, site.mtu
            )])?;
        }
        nat::install(&router, site.nat)?;

        let edge = Host::new(lab, &format!("edge{number}"), inside(lan, EDGE))?;
        let neighbour = Host::new(lab, &format!("lan{number}"), inside(lan, NEIGHBOUR))?;
        for host in [&edge, &neighbour] {
            host.plug_into(&router, lan.prefix_len(), router.addr())?;
        }
        let built = Self {
            link,
            number,
            nat: site.nat,
            lan,
            router,
            edge,
            neighbour,
            isp: Arc::clone(isp),
            changes: Mutex::default(),
        };
        built.take_public_addr(built.public_addr())?;
        Ok(built)
    }

    pub(super) fn hosts(&self) -> [&Host; 3] {
        [&self.router, &self.edge, &self.neighbour]
    }

    /// The host for the agent.
    #[must_use]
    pub fn edge(&self) -> &Host {
        &self.edge
    }

    /// The agent's neighbour in the private network.
    #[must_use]
    pub fn lan(&self) -> &Host {
        &self.neighbour
    }

    /// The router.
    #[must_use]
    pub fn nat(&self) -> &Host {
        &self.router
    }

    /// The link to the isp; `up` is away from the site.
    #[must_use]
    pub fn link(&self) -> &TunLink {
        &self.link
    }

    /// The link carries nothing until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.link.set_link(self.link.link().with_up(false));
    }

    /// The link carries packets again.
    pub fn mend(&self) {
        self.link.set_link(self.link.link().with_up(true));
    }

    /// The address that the site has towards everybody else.
    #[must_use]
    pub fn public_addr(&self) -> Ipv4Addr {
        let turn = self.changes().public % ADDRS_PER_SITE;
        Ipv4Addr::new(198, 51, 100, 1 + (self.number - 1) * ADDRS_PER_SITE + turn)
    }

    /// The site's firewall drops all UDP.
    ///
    /// # Errors
    /// Where `iptables` fails.
    pub fn block_udp(&self) -> anyhow::Result<()> {
        nat::block_udp(&self.router)
    }

    /// The site's firewall lets nothing pass but what a program on the router fetches.
    ///
    /// # Errors
    /// Where `iptables` fails.
    pub fn block_all(&self) -> anyhow::Result<()> {
        nat::block_all(&self.router)
    }

    /// The site's firewall lets UDP pass again.
    ///
    /// # Errors
    /// Where `iptables` fails.
    pub fn allow_udp(&self) -> anyhow::Result<()> {
        nat::allow_udp(&self.router)
    }

    /// Has the NAT forget UDP flows that are silent for so long, and drop what comes in for them.
    ///
    /// # Errors
    /// When the router's kernel takes no such time.
    pub fn forget_silent_flows(&self, after: Duration) -> anyhow::Result<()> {
        nat::forget_silent_flows(&self.router, after)
    }

    /// The NAT forgets all its bindings, as in a restart, and takes other ports for new ones.
    ///
    /// # Errors
    /// Where `iptables` or `conntrack` fails.
    pub fn forget_nat_bindings(&self) -> anyhow::Result<()> {
        let times = self.changes().bindings;
        self.changes().bindings += 1;
        nat::forget(&self.router, self.nat, times)
    }

    /// The site gets another public address, as a modem that dials in anew.
    ///
    /// # Errors
    /// Where `ip` or `conntrack` fails.
    pub fn change_public_address(&self) -> anyhow::Result<()> {
        let before = self.public_addr();
        self.changes().public += 1;
        self.router.ip(&[&format!("addr del {before}/32 dev {WAN}")])?;
        self.isp
            .ip(&[&format!("route del {before}/32 dev {}", far_device(self.number))])?;
        self.take_public_addr(self.public_addr())?;
        nat::forget_connections(&self.router)
    }

    /// The edge gets another private address, as from a DHCP server with a short memory.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn change_edge_address(&self) -> anyhow::Result<()> {
        self.changes().edge += 1;
        let turn = self.changes().edge % ADDRS_PER_SITE;
        let addr = inside(self.lan, EDGE + u32::from(turn));
        self.edge.take_addr(addr, self.lan.prefix_len(), self.router.addr())
    }

    fn take_public_addr(&self, addr: Ipv4Addr) -> anyhow::Result<()> {
        // A device that loses an address may lose its routes with it.
        self.router.ip(&[
            &format!("addr add {addr}/32 dev {WAN}"),
            &format!("route replace default dev {WAN}"),
        ])?;
        self.isp
            .ip(&[&format!("route add {addr}/32 dev {}", far_device(self.number))])
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The isp's end of a site's link.
fn far_device(number: u8) -> String {
    format!("site{number}")
}

fn inside(lan: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(lan.network().to_bits() + offset)
}
