//! What a site's router does: translate addresses, and let nothing in uninvited.

use std::time::Duration;

use anyhow::Context as _;

use super::host::Host;

/// How a site's NAT chooses the public port of a connection. Either kind lets packets in only from
/// where the inside has sent to before (RFC 4787: address and port-dependent filtering).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// A socket keeps one public port towards everybody, its own where that is free.
    #[default]
    PortRestricted,
    /// Each peer of a socket sees another, random port.
    Symmetric,
}

/// The interface towards the isp.
pub(super) const WAN: &str = "wan";

/// Where a site's passing rules come first; empty while nothing is forbidden.
const FORBIDDEN: &str = "FORBIDDEN";

/// After the bindings are forgotten, new ports come from these ranges in turn, so that none is what
/// it was. They lie above the range from which Linux takes local ports.
const PORT_RANGES: [&str; 4] = ["61000-61999", "62000-62999", "63000-63999", "64000-64999"];

pub(super) fn install(router: &Host, nat: Nat) -> anyhow::Result<()> {
    for protocol in ["udp", "tcp", "icmp"] {
        router.iptables(&format!(
            "-t nat -A POSTROUTING -o {WAN} -p {protocol}{}",
            masquerade(nat, None)
        ))?;
    }
    router.iptables(&format!("-N {FORBIDDEN}"))?;
    router.iptables(&format!("-A FORWARD -j {FORBIDDEN}"))?;
    for chain in ["FORWARD", "INPUT"] {
        router.iptables(&format!(
            "-A {chain} -i {WAN} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
        ))?;
        router.iptables(&format!("-A {chain} -i {WAN} -j DROP"))?;
    }
    Ok(())
}

/// Drops UDP in both directions.
pub(super) fn block_udp(router: &Host) -> anyhow::Result<()> {
    allow_udp(router)?;
    router.iptables(&format!("-A {FORBIDDEN} -p udp -j DROP"))
}

/// Drops everything in both directions, but for what the router itself sends and what answers that.
pub(super) fn block_all(router: &Host) -> anyhow::Result<()> {
    allow_udp(router)?;
    router.iptables(&format!("-A {FORBIDDEN} -j DROP"))
}

pub(super) fn allow_udp(router: &Host) -> anyhow::Result<()> {
    router.iptables(&format!("-F {FORBIDDEN}"))
}

/// Forgets every binding. `times` says how often that has happened before.
pub(super) fn forget(router: &Host, nat: Nat, times: usize) -> anyhow::Result<()> {
    let ports = PORT_RANGES[times % PORT_RANGES.len()];
    for (rule, protocol) in [(1, "udp"), (2, "tcp")] {
        let target = masquerade(nat, Some(ports));
        router.iptables(&format!("-t nat -R POSTROUTING {rule} -o {WAN} -p {protocol}{target}"))?;
    }
    forget_connections(router)
}

pub(super) fn forget_silent_flows(router: &Host, after: Duration) -> anyhow::Result<()> {
    router.enter(|| {
        for what in ["udp_timeout", "udp_timeout_stream"] {
            let file = format!("/proc/sys/net/netfilter/nf_conntrack_{what}");
            std::fs::write(&file, after.as_secs().to_string()).with_context(|| file.clone())?;
        }
        Ok(())
    })
}

pub(super) fn forget_connections(router: &Host) -> anyhow::Result<()> {
    router.system("conntrack", "-F")
}

fn masquerade(nat: Nat, ports: Option<&str>) -> String {
    let ports = ports.map_or_else(String::new, |ports| format!(" --to-ports {ports}"));
    let random = match nat {
        Nat::PortRestricted => "",
        Nat::Symmetric => " --random-fully",
    };
    format!(" -j MASQUERADE{ports}{random}")
}
