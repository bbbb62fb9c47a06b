//! Addresses by role: where a gateway listens is not where a target is.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use crate::name::is_number;

/// A host and port were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// No `:port` at the end.
    #[error("{0:?} has no port; write HOST:PORT")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} has a port that is not a number from 1 to 65535")]
    BadPort(String),
    /// The host is neither a DNS name nor an IP address; an IPv6 address stands in brackets.
    #[error("{0:?} has a host that is neither a DNS name nor an IP address (IPv6 in brackets)")]
    BadHost(String),
}

/// A host, by name or IP address, and a port; not resolved yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// A host that is an IP address.
    pub fn from_ip(ip: IpAddr, port: u16) -> Self {
        Self {
            host: ip.to_string(),
            port,
        }
    }

    /// The host without brackets, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as an IP address, if it is one in the canonical spelling.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = ParseAddressError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (host, port) = s
            .rsplit_once(':')
            .ok_or_else(|| ParseAddressError::NoPort(s.to_owned()))?;
        let port = parse_port(port).ok_or_else(|| ParseAddressError::BadPort(s.to_owned()))?;
        let bad_host = || ParseAddressError::BadHost(s.to_owned());
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(bad_host)?;
                inner.parse::<Ipv6Addr>().map_err(|_| bad_host())?.to_string()
            }
            None => host_name(host).ok_or_else(bad_host)?,
        };
        Ok(Self { host, port })
    }
}

/// A DNS name or IPv4 address in lower case. Underscores are allowed: names of containers and Windows hosts have them.
fn host_name(host: &str) -> Option<String> {
    let label_ok =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let name = host.strip_suffix('.').unwrap_or(host);
    // A resolver would read such a host as an address, each in its own way.
    if name.rsplit('.').next().is_some_and(is_number) {
        return host.parse::<Ipv4Addr>().ok().map(|ip| ip.to_string());
    }
    (name.len() <= 253 && name.split('.').all(label_ok)).then(|| name.to_ascii_lowercase())
}

/// A port: up to five digits and nothing else, never 0.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// `PORT` or `FIRST-LAST`.
pub(crate) fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| parse_port(text).ok_or("its port is not a number from 1 to 65535");
    let ports = port(first)?..=port(last)?;
    if ports.is_empty() {
        return Err("its last port is below its first");
    }
    Ok(ports)
}

/// An IP address in its one canonical spelling, an IPv6 address without brackets; an IPv4 address that is mapped into
/// IPv6 is the IPv4 address.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = ParseAddressError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> String {
        address.to_string()
    }
}

impl schemars::JsonSchema for HostPort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostPort".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "HOST:PORT; an IPv6 host stands in brackets"})
    }
}

/// Where edges reach a gateway.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct GatewayAddr(pub HostPort);

impl FromStr for GatewayAddr {
    type Err = ParseAddressError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

impl fmt::Display for GatewayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_and_written_back() {
        for (text, host, port) in [
            ("gw.example.com:443", "gw.example.com", 443),
            ("GW.Example.com.:443", "gw.example.com", 443),
            ("192.0.2.1:7000", "192.0.2.1", 7000),
            ("[2001:db8::1]:7000", "2001:db8::1", 7000),
            ("my_host:1", "my_host", 1),
        ] {
            let read: HostPort = text.parse().unwrap();
            assert_eq!((read.host(), read.port()), (host, port));
            assert_eq!(read.to_string().parse(), Ok(read));
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for bad in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:000080",
            "10.0.0.1.:80",
            "0177.0.0.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "a.0x7f:80",
            "127.1:80",
            "a:65536",
            "a:+1",
            "a:1x",
            "2001:db8::1:7000",
            "[::1]",
            "[::1]x:1",
            "[a]:1",
            "a b:1",
            "a/b:1",
            "a@b:1",
            "a..b:1",
            "é:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
    }
}
