//! A small internet in network namespaces.
//!
//! ```text
//!   gw    203.0.113.10 --+
//!   user1 203.0.113.20 --+-- isp 203.0.113.1 ==link N== natN (198.51.100.x) -- edgeN .10, lanN .100
//!   user2 203.0.113.21 --+      (each site N behind its own NAT, in a private range of its choice)
//! ```
//!
//! The isp routes no private address, and a NAT lets nothing in that was not asked for. The public
//! addresses are those kept for documentation (RFC 5737) and exist inside the namespaces only.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use tempfile::TempDir;

pub use host::Host;
pub use nat::Nat;
pub use site::{LabSite, Site};

mod host;
mod nat;
mod netns;
mod site;

const ISP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const FIRST_USER: u8 = 20;
const MOST_USERS: u8 = 100;

/// A running lab. It is torn down when this is dropped, with whatever runs in its hosts.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: the links first, as their devices live in the namespaces.
    sites: Vec<LabSite>,
    hosts: Vec<Host>,
    isp: Arc<Host>,
    dir: TempDir,
}

impl Lab {
    /// A lab without sites and with one user.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder {
            sites: Vec::new(),
            users: 1,
        }
    }

    /// The host of that name: `gw`, `userN`, `edgeN`, `lanN`, `natN` or `isp`.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.sites
            .iter()
            .flat_map(LabSite::hosts)
            .chain(&self.hosts)
            .chain([&*self.isp])
            .find(|host| host.name() == name)
            .unwrap_or_else(|| panic!("the lab has no host {name:?}"))
    }

    /// Site number `number`, from 1 on.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn site(&self, number: usize) -> &LabSite {
        let site = number.checked_sub(1).and_then(|index| self.sites.get(index));
        site.unwrap_or_else(|| panic!("the lab has no site {number}"))
    }

    /// A directory for configurations, state and logs, that goes with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Every router swallows the message that a packet is too big, as many a firewall does (RFC 2923),
    /// so that senders must find the path's MTU by themselves.
    ///
    /// # Errors
    /// Where `iptables` fails.
    pub fn block_too_big(&self) -> anyhow::Result<()> {
        let routers = self.sites.iter().map(LabSite::nat).chain([&*self.isp]);
        for router in routers {
            for chain in ["OUTPUT", "FORWARD"] {
                router.iptables(&format!("-I {chain} -p icmp --icmp-type fragmentation-needed -j DROP"))?;
            }
        }
        Ok(())
    }
}

/// What a lab is to be.
#[derive(Debug)]
pub struct LabBuilder {
    sites: Vec<Site>,
    users: u8,
}

impl LabBuilder {
    /// One site more. The first is number 1.
    #[must_use]
    pub fn site(mut self, site: Site) -> Self {
        self.sites.push(site);
        self
    }

    /// How many users there are.
    #[must_use]
    pub fn users(mut self, users: u8) -> Self {
        self.users = users;
        self
    }

    /// Builds the lab. Needs what [`Need::Lab`](crate::Need::Lab) says.
    ///
    /// # Errors
    /// Where a site's settings cannot be read, or a program of the system fails.
    pub fn build(self) -> anyhow::Result<Lab> {
        ensure!(self.users <= MOST_USERS, "a lab has at most {MOST_USERS} users");
        let name = unique_name();
        let isp = Arc::new(Host::new(&name, "isp", ISP)?);
        isp.ip(&[
            "link add br0 type bridge",
            &format!("addr add {ISP}/24 dev br0"),
            "link set br0 up",
        ])?;
        isp.route_packets()?;
        let users = (0..self.users).map(|index| {
            let [a, b, c, _] = ISP.octets();
            let addr = Ipv4Addr::new(a, b, c, FIRST_USER + index);
            (format!("user{}", index + 1), addr)
        });
        let hosts = std::iter::once(("gw".to_owned(), GATEWAY))
            .chain(users)
            .map(|(host, addr)| {
                let host = Host::new(&name, &host, addr)?;
                host.plug_into(&isp, 24, ISP)?;
                Ok(host)
            })
            .collect::<anyhow::Result<_>>()?;
        let sites = (1u8..)
            .zip(self.sites)
            .map(|(number, site)| {
                LabSite::build(&name, number, &site, &isp).with_context(|| format!("could not build site {number}"))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Lab {
            sites,
            hosts,
            isp,
            dir: tempfile::tempdir()?,
        })
    }
}

/// A prefix for the names of namespaces that no other lab has now, of this process or of another.
fn unique_name() -> String {
    static LABS: AtomicU32 = AtomicU32::new(0);
    let number = LABS.fetch_add(1, Ordering::Relaxed);
    format!("lab{}-{number}", std::process::id())
}
