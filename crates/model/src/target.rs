//! What a stream asks for at its far end.

use std::{fmt, str::FromStr};

use crate::{HostPort, ParseAddressError, ServiceName};

/// What a stream asks for, as the gateway sends it and the edge resolves it.
///
/// The text form is `service:NAME`, `port:N` or `tcp:HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A service that the edge declares.
    Service(ServiceName),
    /// A port of the edge machine itself, on its loopback address. Never 0.
    Port(u16),
    /// A host and port as the edge sees them.
    Tcp(HostPort),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Port(port) => write!(f, "port:{port}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for Target {
    type Err = ParseAddressError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad_host = || ParseAddressError::BadHost(s.to_owned());
        match s.split_once(':') {
            Some(("service", name)) => name.parse().map(Self::Service).map_err(|_| bad_host()),
            Some(("port", port)) => match port.parse() {
                Ok(port) if port != 0 => Ok(Self::Port(port)),
                _ => Err(ParseAddressError::BadPort(s.to_owned())),
            },
            Some(("tcp", address)) => address.parse().map(Self::Tcp),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_they_were_written() {
        for text in ["service:web", "port:10250", "tcp:10.0.0.1:80", "tcp:[2001:db8::1]:80"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "web",
            "service:",
            "service:../x",
            "port:0",
            "port:70000",
            "tcp:a",
            "udp:a:1",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
