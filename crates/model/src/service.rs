//! Services: targets with a name; and all that an edge offers.

use crate::{HostPort, Protocol, ServiceName, Subnet};

/// Something on the edge's side that may be reached by name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, unique on the edge.
    pub name: ServiceName,
    /// Where the edge dials it.
    pub target: HostPort,
    /// By which protocol.
    #[serde(default, skip_serializing_if = "is_tcp")]
    pub protocol: Protocol,
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_tcp(protocol: &Protocol) -> bool {
    *protocol == Protocol::Tcp
}

/// What an edge offers when its configuration names no service: name and port on loopback.
pub const DEFAULT_SERVICES: [(&str, u16); 3] = [("ssh", 22), ("kubelet", 10250), ("node-exporter", 9100)];

/// All that an edge offers, as it tells the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// What can be reached by name.
    pub services: Vec<Service>,
    /// Subnets that it can reach and would like to be the way to. The gateway decides which of them it becomes.
    pub subnets: Vec<Subnet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_of_tcp_unless_it_says_otherwise() {
        let text = r#"{"name":"web","target":"127.0.0.1:80"}"#;
        let web: Service = serde_json::from_str(text).unwrap();
        assert_eq!(web.protocol, Protocol::Tcp);
        assert_eq!(serde_json::to_string(&web).unwrap(), text);
        let text = r#"{"name":"dns","target":"127.0.0.1:53","protocol":"udp"}"#;
        let dns: Service = serde_json::from_str(text).unwrap();
        assert_eq!(dns.protocol, Protocol::Udp);
        assert_eq!(serde_json::to_string(&dns).unwrap(), text);
    }
}
