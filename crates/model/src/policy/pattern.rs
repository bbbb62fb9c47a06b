//! What on a node a rule is about.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use super::{Glob, ParseRuleError};
use crate::{HostPort, Protocol, Subnet, Target, address::parse_ports, subnet::ParseSubnetError};

/// Every port.
const ALL_PORTS: RangeInclusive<u16> = 1..=u16::MAX;

/// Some of the targets.
///
/// | text | targets |
/// |---|---|
/// | `*` | all that the edge allows, by TCP and UDP |
/// | `service:web`, `service:db-*` | services of this name, or of such names |
/// | `tcp:22`, `udp:8000-8100` | ports of the node itself |
/// | `10.42.0.0/16`, `10.42.0.7` | every port of these addresses, by TCP and UDP |
/// | `tcp:10.42.0.0/16`, `udp:10.0.0.0/8:53`, `tcp:[2001:db8::/32]:80-90` | these addresses by one protocol, at every or these ports |
///
/// A target that is a host by name is in no subnet, whatever it resolves to: only `*` means it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TargetPattern {
    /// All that the edge allows.
    All,
    /// Services with such names; a pattern without gaps means one.
    Service(Glob),
    /// Ports of the node itself.
    Ports(Protocol, RangeInclusive<u16>),
    /// Addresses that the node reaches, by one protocol or both.
    Net(Option<Protocol>, Subnet, RangeInclusive<u16>),
}

impl TargetPattern {
    /// Whether a target is one of them.
    pub fn matches(&self, target: &Target) -> bool {
        match (self, target) {
            (Self::All, _) => true,
            (Self::Service(glob), Target::Service(name)) => glob.matches(name.as_str()),
            (Self::Ports(Protocol::Tcp, ports), Target::Port(port))
            | (Self::Ports(Protocol::Udp, ports), Target::UdpPort(port)) => ports.contains(port),
            (Self::Net(None | Some(Protocol::Tcp), net, ports), Target::Tcp(host))
            | (Self::Net(None | Some(Protocol::Udp), net, ports), Target::Udp(host)) => holds(net, ports, host),
            _ => false,
        }
    }
}

fn holds(net: &Subnet, ports: &RangeInclusive<u16>, host: &HostPort) -> bool {
    ports.contains(&host.port()) && host.ip().is_some_and(|ip| net.contains(ip))
}

impl FromStr for TargetPattern {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why: String| ParseRuleError::Target {
            text: text.to_owned(),
            why,
        };
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(name) = text.strip_prefix("service:") {
            return name.parse().map(Self::Service).map_err(|e| fail(format!("{e}")));
        }
        let (protocol, rest) = Protocol::strip(text);
        let ports_of = |text| parse_ports(text).map_err(|why| fail(why.to_owned()));
        match protocol {
            Some(protocol) if !rest.contains(['.', ':', '/']) => Ok(Self::Ports(protocol, ports_of(rest)?)),
            _ => {
                let (net, ports) = split_net(rest);
                let net = net.parse().map_err(|e: ParseSubnetError| fail(e.to_string()))?;
                match (protocol, ports) {
                    (_, None) => Ok(Self::Net(protocol, net, ALL_PORTS)),
                    (Some(_), Some(ports)) => Ok(Self::Net(protocol, net, ports_of(ports)?)),
                    (None, Some(_)) => Err(fail("with a port it needs tcp: or udp: before it".to_owned())),
                }
            }
        }
    }
}

/// The subnet, without brackets, and what is written as its ports.
fn split_net(text: &str) -> (&str, Option<&str>) {
    if let Some((net, behind)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match behind.strip_prefix(':') {
            Some(ports) => (net, Some(ports)),
            None if behind.is_empty() => (net, None),
            // Not of this form: the whole is what cannot be read.
            None => (text, None),
        };
    }
    match text.split_once(':') {
        Some((net, ports)) if !ports.contains(':') && net.contains('.') => (net, Some(ports)),
        _ => (text, None),
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Service(glob) => write!(f, "service:{glob}"),
            Self::Ports(protocol, ports) => {
                write!(f, "{protocol}:")?;
                show_ports(ports, f)
            }
            Self::Net(protocol, net, ports) => {
                if let Some(protocol) = protocol {
                    write!(f, "{protocol}:")?;
                }
                let every = *ports == ALL_PORTS;
                match net.address() {
                    IpAddr::V6(_) if !every => write!(f, "[{}]", net.short())?,
                    _ => f.write_str(&net.short())?,
                }
                if !every {
                    f.write_str(":")?;
                    show_ports(ports, f)?;
                }
                Ok(())
            }
        }
    }
}

fn show_ports(ports: &RangeInclusive<u16>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => write!(f, "{first}"),
        (first, last) => write!(f, "{first}-{last}"),
    }
}

super::as_text!(
    TargetPattern,
    "*, tcp:PORTS, udp:PORTS, service:NAME, SUBNET, tcp:SUBNET:PORTS or udp:SUBNET:PORTS"
);
