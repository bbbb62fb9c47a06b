//! What a stream asks for at its far end.

use std::{fmt, str::FromStr};

use crate::{Class, DEFAULT_SERVICES, HostPort, ParseAddressError, Protocol, ServiceName, address::parse_port};

/// What a stream or a flow of datagrams asks for, as the gateway sends it and the edge resolves it.
///
/// The text form is `service:NAME`, `port:N`, `tcp:HOST:PORT`, `udp:N` or `udp:HOST:PORT`; `tcp:N` is read too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A service that the edge declares, by the protocol that it declares.
    Service(ServiceName),
    /// A TCP port of the edge machine itself, on its loopback address. Never 0.
    Port(u16),
    /// A host and TCP port as the edge sees them.
    Tcp(HostPort),
    /// A UDP port of the edge machine itself, on its loopback address. Never 0.
    UdpPort(u16),
    /// A host and UDP port as the edge sees them.
    Udp(HostPort),
}

impl Target {
    /// A port of the edge machine itself. Never 0.
    pub fn local(protocol: Protocol, port: u16) -> Self {
        match protocol {
            Protocol::Tcp => Self::Port(port),
            Protocol::Udp => Self::UdpPort(port),
        }
    }

    /// A host and port as the edge sees them.
    pub fn remote(protocol: Protocol, address: HostPort) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp(address),
            Protocol::Udp => Self::Udp(address),
        }
    }

    /// By which protocol it is reached; of a service only the edge knows.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Service(_) => None,
            Self::Port(_) | Self::Tcp(_) => Some(Protocol::Tcp),
            Self::UdpPort(_) | Self::Udp(_) => Some(Protocol::Udp),
        }
    }

    /// The class of a stream to it when nobody says otherwise; the services that every edge has are ranked as their ports are.
    pub fn class(&self) -> Class {
        match self {
            Self::Port(port) | Self::UdpPort(port) => Class::of_port(*port),
            Self::Tcp(address) | Self::Udp(address) => Class::of_port(address.port()),
            Self::Service(name) => {
                let known = DEFAULT_SERVICES.iter().find(|(known, _)| *known == name.as_str());
                known.map_or_else(Class::default, |&(_, port)| Class::of_port(port))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Port(port) => write!(f, "port:{port}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::UdpPort(port) => write!(f, "udp:{port}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

impl FromStr for Target {
    type Err = ParseAddressError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad_host = || ParseAddressError::BadHost(s.to_owned());
        let bad_port = || ParseAddressError::BadPort(s.to_owned());
        if let (Some(protocol), rest) = Protocol::strip(s) {
            return if rest.contains(':') {
                rest.parse().map(|address| Self::remote(protocol, address))
            } else {
                parse_port(rest)
                    .map(|port| Self::local(protocol, port))
                    .ok_or_else(bad_port)
            };
        }
        match s.split_once(':') {
            Some(("service", name)) => name.parse().map(Self::Service).map_err(|_| bad_host()),
            Some(("port", port)) => parse_port(port).map(Self::Port).ok_or_else(bad_port),
            _ => Err(bad_host()),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = ParseAddressError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl schemars::JsonSchema for Target {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "service:NAME, port:N, tcp:HOST:PORT, udp:N or udp:HOST:PORT"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_they_were_written() {
        for text in [
            "service:web",
            "port:10250",
            "tcp:10.0.0.1:80",
            "tcp:[2001:db8::1]:80",
            "udp:53",
            "udp:db.lan:53",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("tcp:22".parse(), Ok(Target::Port(22)));
        for bad in [
            "",
            "web",
            "service:",
            "service:../x",
            "port:0",
            "port:+22",
            "port:70000",
            "tcp:a",
            "tcp:",
            "udp:0",
            "udp::53",
            "udp:a:x",
            "UDP:53",
            "sctp:a:1",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_keystroke_ranks_above_a_request_and_a_request_above_a_scrape() {
        let class = |target: &str| target.parse::<Target>().unwrap().class();
        assert_eq!(class("port:22"), Class::Interactive);
        assert_eq!(class("service:ssh"), Class::Interactive);
        assert_eq!(class("service:node-exporter"), Class::Metrics);
        assert_eq!(class("service:web"), Class::Api);
        assert_eq!(class("tcp:10.0.0.1:22"), Class::Interactive);
    }
}
