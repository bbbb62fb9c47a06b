//! Services: targets with a name; and all that an edge offers.

use crate::{ChosenClass, Encoding, HostPort, Protocol, ServiceName, Subnet, Target};

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
    /// It answers scrapes of metrics: what has changed since the last is all that travels.
    #[serde(default, skip_serializing_if = "is_false")]
    pub scrape: bool,
    /// Whether its streams are compressed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub compress: bool,
    /// The class of its streams, where their callers name none; that of its port unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ChosenClass>,
}

impl Service {
    /// A service by TCP whose streams travel as they are.
    pub fn new(name: ServiceName, target: HostPort) -> Self {
        Self {
            name,
            target,
            protocol: Protocol::Tcp,
            scrape: false,
            compress: false,
            class: None,
        }
    }

    /// How its streams travel.
    pub fn encoding(&self) -> Encoding {
        match self.protocol {
            Protocol::Tcp if self.scrape => Encoding::Scrapes,
            Protocol::Tcp if self.compress => Encoding::Compressed,
            Protocol::Tcp | Protocol::Udp => Encoding::Raw,
        }
    }

    /// Whether this is what stands behind a target: by its name, by a port of the machine, or by its very address.
    pub fn is_behind(&self, target: &Target) -> bool {
        match target {
            Target::Service(name) => self.name == *name,
            Target::Port(port) => self.is_port(Protocol::Tcp, *port),
            Target::UdpPort(port) => self.is_port(Protocol::Udp, *port),
            Target::Tcp(address) => self.protocol == Protocol::Tcp && self.target == *address,
            Target::Udp(address) => self.protocol == Protocol::Udp && self.target == *address,
        }
    }

    /// Whether it is the port of the machine itself.
    pub fn is_port(&self, protocol: Protocol, port: u16) -> bool {
        let this_machine = || {
            let ip = self.target.ip();
            ip.map_or(self.target.host() == "localhost", |ip| ip.to_canonical().is_loopback())
        };
        self.protocol == protocol && self.target.port() == port && this_machine()
    }
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
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
    fn a_service_is_behind_its_name_its_port_and_its_address() {
        let service = |target: &str| Service::new("web".parse().unwrap(), target.parse().unwrap());
        for (target, of, behind) in [
            ("service:web", "10.0.0.7:80", true),
            ("service:wen", "10.0.0.7:80", false),
            ("port:80", "127.0.0.1:80", true),
            ("port:80", "localhost:80", true),
            ("port:80", "[::1]:80", true),
            ("port:80", "10.0.0.7:80", false),
            ("port:81", "127.0.0.1:80", false),
            ("tcp:10.0.0.7:80", "10.0.0.7:80", true),
            ("tcp:10.0.0.8:80", "10.0.0.7:80", false),
            ("udp:80", "127.0.0.1:80", false),
            ("udp:10.0.0.7:80", "10.0.0.7:80", false),
        ] {
            assert_eq!(service(of).is_behind(&target.parse().unwrap()), behind, "{target} {of}");
        }
    }

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
