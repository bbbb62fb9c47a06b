//! Hosts as callers write them: a name of this gateway, or an address that a route decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    CLOUD, Destination, HostPort, NodeName, ServiceName, Target, Zone,
    address::{parse_ip, parse_port},
};

/// A host is neither a name of this gateway nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHostError {
    /// The host has none of the forms of a [`Host`].
    #[error(
        "{host:?} is not a name of this gateway; write NODE, NODE.{zone}, SERVICE.NODE, SERVICE.NODE.{zone} or ADDRESS.via.NODE"
    )]
    NotAName {
        /// What the caller wrote.
        host: String,
        /// The gateway's zone.
        zone: Zone,
    },
    /// The host is the cloud side itself, or an address behind it.
    #[error("{0:?} names no service; of the cloud side only services can be reached, write SERVICE.{CLOUD}")]
    CloudHasServices(String),
    /// The text has no port.
    #[error("{0:?} has no port; write HOST:PORT")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} has a port that is not a number from 1 to 65535")]
    BadPort(String),
}

/// A host and port as a caller wrote them.
///
/// | host | what it stands for |
/// |---|---|
/// | `node`, `node.<zone>` | the given port of the machine itself |
/// | `service.node`, `service.node.<zone>` | the service; the port is the caller's own affair, the edge knows the real one |
/// | `10.1.2.3.via.node`, `2001-db8--1.via.node`, with or without `.<zone>` | the address as that node reaches it |
/// | `10.1.2.3`, `2001:db8::1` | the address, by the node to which a route leads |
///
/// Case does not matter in names and one trailing dot is allowed, as in DNS. An address is one only in its canonical
/// spelling, four decimal numbers without leading zeros (RFC 6943 section 3.1.1, "strict" form) or IPv6 text (RFC 4291
/// section 2.2) without a zone; what others would read as an address, such as `0x7f.1`, is refused. Nothing is ever looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// It says which node is meant.
    Named(Destination),
    /// A route decides which node is meant.
    Address {
        /// The address; never one of IPv4 in IPv6.
        ip: IpAddr,
        /// The port, never 0.
        port: u16,
    },
}

impl Host {
    /// Reads `HOST:PORT`; an IPv6 address stands in brackets.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, ParseHostError> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| ParseHostError::NoPort(text.to_owned()))?;
        let port = parse_port(port).ok_or_else(|| ParseHostError::BadPort(text.to_owned()))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(not_a_name(host, zone));
        }
        Self::new(host, port, zone)
    }

    /// Reads a host; an IPv6 address may stand in brackets.
    pub fn new(host: &str, port: u16, zone: &Zone) -> Result<Self, ParseHostError> {
        if port == 0 {
            return Err(ParseHostError::BadPort(format!("{host}:{port}")));
        }
        let address = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
                Some(
                    inner
                        .map(|ip| ip.to_canonical())
                        .ok_or_else(|| not_a_name(host, zone))?,
                )
            }
            None => parse_ip(host),
        };
        match address {
            Some(ip) => Ok(Self::Address { ip, port }),
            None => named(host, port, zone).map(Self::Named),
        }
    }
}

/// The name by which an address is reached through a node whatever the routes say.
pub fn via_name(ip: IpAddr, node: &NodeName) -> String {
    let label = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let text = v6.to_string().replace(':', "-");
            // A label neither begins nor ends with a hyphen (RFC 1123 section 2.1).
            let first = if text.starts_with('-') { "0" } else { "" };
            let last = if text.ends_with('-') { "0" } else { "" };
            format!("{first}{text}{last}")
        }
    };
    format!("{label}.via.{node}")
}

fn named(host: &str, port: u16, zone: &Zone) -> Result<Destination, ParseHostError> {
    let lower = host.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let name = name
        .strip_suffix(zone.as_str())
        .and_then(|rest| rest.strip_suffix('.'))
        .unwrap_or(name);
    let read = match name.rsplit_once(".via.") {
        Some((address, node)) => via(address, node, port),
        None => match name.split_once('.') {
            None => name.parse().ok().map(|node| (node, Target::Port(port))),
            Some((service, node)) => service_of(service, node),
        },
    };
    let (node, target) = read.ok_or_else(|| not_a_name(host, zone))?;
    if node.is_reserved() && !matches!(target, Target::Service(_)) {
        return Err(ParseHostError::CloudHasServices(host.to_owned()));
    }
    Ok(Destination { node, target })
}

fn service_of(service: &str, node: &str) -> Option<(NodeName, Target)> {
    let service: ServiceName = service.parse().ok()?;
    Some((node.parse().ok()?, Target::Service(service)))
}

fn via(address: &str, node: &str, port: u16) -> Option<(NodeName, Target)> {
    let ip = match address.parse::<Ipv4Addr>() {
        Ok(v4) => v4.into(),
        Err(_) => {
            let is_label = !address.contains(['.', ':']) && !address.starts_with('-') && !address.ends_with('-');
            let v6 = is_label.then(|| address.replace('-', ":").parse::<Ipv6Addr>())?.ok()?;
            v6.to_canonical()
        }
    };
    Some((node.parse().ok()?, Target::Tcp(HostPort::from_ip(ip, port))))
}

fn not_a_name(host: &str, zone: &Zone) -> ParseHostError {
    ParseHostError::NotAName {
        host: host.to_owned(),
        zone: zone.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, ParseHostError> {
        Host::parse(text, &"edge.example".parse().unwrap()).map(|host| match host {
            Host::Named(destination) => destination.to_string(),
            Host::Address { ip, port } => format!("{ip} {port}"),
        })
    }

    #[test]
    fn a_host_is_a_port_a_service_or_an_address() {
        for (text, means) in [
            ("edge1:10250", "edge1:port:10250"),
            ("EDGE1:22", "edge1:port:22"),
            ("edge1.edge.example:22", "edge1:port:22"),
            ("edge1.edge.example.:22", "edge1:port:22"),
            ("web.edge1:80", "edge1:service:web"),
            ("web.edge1.edge.example:80", "edge1:service:web"),
            ("web.cloud:80", "cloud:service:web"),
            ("web.cloud.edge.example:80", "cloud:service:web"),
            ("10.1.2.3:80", "10.1.2.3 80"),
            ("[2001:DB8::1]:80", "2001:db8::1 80"),
            ("10.1.2.3.via.edge1:80", "edge1:tcp:10.1.2.3:80"),
            ("10.1.2.3.via.Edge1.edge.example.:80", "edge1:tcp:10.1.2.3:80"),
            ("2001-db8--1.via.edge1:80", "edge1:tcp:[2001:db8::1]:80"),
            ("0--ffff-a01-203.via.edge1:80", "edge1:tcp:10.1.2.3:80"),
            // A service may have this name, and a node too.
            ("via.edge1:80", "edge1:service:via"),
            ("web.via:80", "via:service:web"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(means), "{text}");
        }
    }

    #[test]
    fn of_the_cloud_only_services_are_reached() {
        for bad in ["cloud:80", "cloud.edge.example:80", "10.1.2.3.via.cloud:80"] {
            assert!(matches!(parse(bad), Err(ParseHostError::CloudHasServices(_))), "{bad}");
        }
    }

    /// B13; the spellings of addresses are in `tests/spellings`.
    #[test]
    fn paths_and_foreign_names_are_no_hosts() {
        for bad in [
            "../x:80",
            "%2e%2e:80",
            "a.b.c:80",
            "web.edge1.example.com:80",
            "example.com.:0",
            "edge1",
            "edge1:",
            "edge1:0",
            "edge1:+80",
            "edge1:65536",
            ":80",
            ".edge.example:80",
            "edge.example..:80",
            "a_b:80",
            "localhost.:x",
            ".via.edge1:80",
            "web.via.edge1:80",
            "10.1.2.3.via.:80",
            "10.1.2.via.edge1:80",
            "10.1.2.3.via.web.edge1:80",
            "2001:db8--1.via.edge1:80",
            "--1.via.edge1:80",
            "2001-db8.via.edge1:80",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was taken for {:?}", parse(bad));
        }
    }

    proptest! {
        #[test]
        fn every_address_has_a_name_by_each_node(bytes: [u8; 16], v4: bool) {
            let ip: IpAddr = match v4 {
                true => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                false => IpAddr::from(bytes).to_canonical(),
            };
            let node = "edge1".parse().unwrap();
            let read = Host::new(&via_name(ip, &node), 80, &Zone::default());
            prop_assert_eq!(read, Ok(Host::Named(Destination { node, target: Target::Tcp(HostPort::from_ip(ip, 80)) })));
        }

        #[test]
        fn an_address_has_no_second_reading(text in "[0-9a-fx.:\\[\\]%]{1,24}") {
            // Whatever is made of digits, dots and colons is an address of that very spelling, a name, or nothing.
            if let Ok(Host::Address { ip, .. }) = Host::new(&text, 80, &Zone::default()) {
                let bare = text.trim_start_matches('[').trim_end_matches(']');
                prop_assert_eq!(bare.parse::<IpAddr>().map(|ip| ip.to_canonical()), Ok(ip));
            }
        }
    }
}
