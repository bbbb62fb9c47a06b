//! Host names as callers write them: who is meant, and what on it.

use std::str::FromStr;

use crate::{NodeName, ServiceName, Target, Zone};

/// A host name does not name a node or a service of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDestinationError {
    /// The host is not `node` or `service.node`, with or without the zone.
    #[error("{host:?} is not a name of this gateway; write NODE, NODE.{zone}, SERVICE.NODE or SERVICE.NODE.{zone}")]
    NotAName {
        /// What the caller wrote.
        host: String,
        /// The gateway's zone.
        zone: Zone,
    },
    /// The text has no port.
    #[error("{0:?} has no port; write HOST:PORT")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} has a port that is not a number from 1 to 65535")]
    BadPort(String),
}

/// A node and something on it, as a caller named them.
///
/// | host | target |
/// |---|---|
/// | `node`, `node.<zone>` | the given port of the machine itself |
/// | `service.node`, `service.node.<zone>` | the service; the port is the caller's own affair, the edge knows the real one |
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The node.
    pub node: NodeName,
    /// What on the node.
    pub target: Target,
}

impl Destination {
    /// Reads `HOST:PORT`.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, ParseDestinationError> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| ParseDestinationError::NoPort(text.to_owned()))?;
        let all_digits = port.bytes().all(|b| b.is_ascii_digit());
        match port.parse() {
            Ok(port) if all_digits => Self::new(host, port, zone),
            _ => Err(ParseDestinationError::BadPort(text.to_owned())),
        }
    }

    /// Reads a host name; case does not matter and one trailing dot is allowed, as in DNS.
    pub fn new(host: &str, port: u16, zone: &Zone) -> Result<Self, ParseDestinationError> {
        if port == 0 {
            return Err(ParseDestinationError::BadPort(format!("{host}:{port}")));
        }
        let lower = host.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let name = name
            .strip_suffix(zone.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .unwrap_or(name);
        let read = match name.split_once('.') {
            None => NodeName::from_str(name).map(|node| Self {
                node,
                target: Target::Port(port),
            }),
            Some((service, node)) => ServiceName::from_str(service).and_then(|service| {
                Ok(Self {
                    node: node.parse()?,
                    target: Target::Service(service),
                })
            }),
        };
        read.map_err(|_| ParseDestinationError::NotAName {
            host: host.to_owned(),
            zone: zone.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, String), ParseDestinationError> {
        let zone = "edge.example".parse().unwrap();
        Destination::parse(text, &zone).map(|d| (d.node.to_string(), d.target.to_string()))
    }

    #[test]
    fn the_four_forms_name_a_port_or_a_service() {
        for (text, node, target) in [
            ("edge1:10250", "edge1", "port:10250"),
            ("EDGE1:22", "edge1", "port:22"),
            ("edge1.edge.example:22", "edge1", "port:22"),
            ("edge1.edge.example.:22", "edge1", "port:22"),
            ("web.edge1:80", "edge1", "service:web"),
            ("web.edge1.edge.example:80", "edge1", "service:web"),
        ] {
            assert_eq!(parse(text), Ok((node.to_owned(), target.to_owned())), "{text}");
        }
    }

    /// B13, B14
    #[test]
    fn addresses_paths_and_foreign_names_are_no_destinations() {
        for bad in [
            "169.254.169.254:80",
            "2852039166:80",
            "0xa9fea9fe:80:",
            "[::ffff:a9fe:a9fe]:80",
            "0:80",
            "../x:80",
            "%2e%2e:80",
            "a.b.c:80",
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
        ] {
            assert!(
                parse(bad).is_err(),
                "{bad:?} was taken for a destination: {:?}",
                parse(bad)
            );
        }
    }
}
