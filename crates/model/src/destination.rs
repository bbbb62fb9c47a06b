//! Where somebody wants to go: a node, and something on it.

use std::{fmt, str::FromStr};

use crate::{NodeName, Protocol, Target, address::parse_port};

/// A node and something on it.
///
/// The text form is `NODE:TARGET`, such as `edge1:port:22` or `cloud:service:web`; `edge1:22` is read too. What callers
/// write as a host name is a [`crate::Host`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The node; [`crate::CLOUD`] for the cloud side.
    pub node: NodeName,
    /// What on the node.
    pub target: Target,
}

/// A text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a destination: {why}; write NODE:PORT, NODE:udp:PORT, NODE:service:NAME or NODE:tcp:HOST:PORT"
)]
pub struct ParseDestinationError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.target)
    }
}

impl FromStr for Destination {
    type Err = ParseDestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why: String| ParseDestinationError {
            text: text.to_owned(),
            why,
        };
        let (node, target) = text
            .split_once(':')
            .ok_or_else(|| fail("it names no target".to_owned()))?;
        let node: NodeName = node.parse().map_err(|e| fail(format!("{e}")))?;
        let target = match parse_port(target) {
            Some(port) => Target::local(Protocol::Tcp, port),
            None => target.parse().map_err(|e| fail(format!("{e}")))?,
        };
        if node.is_reserved() && !matches!(target, Target::Service(_)) {
            return Err(fail("the cloud side has services and nothing else".to_owned()));
        }
        Ok(Self { node, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_node_and_a_target() {
        for (text, shown) in [
            ("edge1:22", "edge1:port:22"),
            ("edge1:udp:53", "edge1:udp:53"),
            ("edge1:service:web", "edge1:service:web"),
            ("edge1:tcp:[::1]:80", "edge1:tcp:[::1]:80"),
            ("cloud:service:web", "cloud:service:web"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "edge1",
            "edge1:",
            "edge1:0",
            "edge1:web",
            "Edge1:22",
            "10.0.0.1:22",
            "cloud:22",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad:?}");
        }
    }
}
