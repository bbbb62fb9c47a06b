//! What goes without a proxy.

use std::{convert::Infallible, net::IpAddr, str::FromStr};

use tunnel_model::{HostPort, Subnet};

/// Hosts that are reached without a proxy, in the notation of the variable `NO_PROXY`: names, which stand for all names
/// below them too, addresses, subnets and `*`, each with a port behind it or none, separated by commas or spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// This name and those below it; without its first dot.
    Name(String),
    Subnet(Subnet),
}

impl Exceptions {
    /// Whether the host goes without a proxy.
    pub fn contain(&self, host: &HostPort) -> bool {
        let name = host.host().trim_end_matches('.');
        self.0.iter().any(|exception| {
            let port = exception.port.is_none_or(|port| port == host.port());
            port && match &exception.hosts {
                Hosts::All => true,
                Hosts::Subnet(subnet) => host.ip().is_some_and(|ip| subnet.contains(ip)),
                // An address is below no name.
                Hosts::Name(suffix) => match name.strip_suffix(suffix.as_str()) {
                    Some(rest) => rest.is_empty() || (rest.ends_with('.') && host.ip().is_none()),
                    None => false,
                },
            }
        })
    }
}

impl FromStr for Exceptions {
    type Err = Infallible;

    /// Takes anything, as all programs do that read this variable: what is no host is the name of none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Self(entries.map(Exception::parse).collect()))
    }
}

impl Exception {
    fn parse(entry: &str) -> Self {
        if let Some(subnet) = subnet(entry) {
            return Self {
                hosts: Hosts::Subnet(subnet),
                port: None,
            };
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (entry, None),
            },
            None => (entry, None),
        };
        let hosts = if host == "*" {
            Hosts::All
        } else if let Some(subnet) = subnet(host) {
            Hosts::Subnet(subnet)
        } else {
            let name = host.strip_prefix("*.").or(host.strip_prefix('.')).unwrap_or(host);
            Hosts::Name(name.trim_end_matches('.').to_ascii_lowercase())
        };
        Self { hosts, port }
    }
}

/// An address, in brackets or not, or a subnet.
fn subnet(text: &str) -> Option<Subnet> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(ip.into());
    }
    let (ip, length) = text.split_once('/')?;
    Subnet::around(ip.parse().ok()?, length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_hold_what_they_say_and_nothing_else() {
        for (list, host, held) in [
            ("", "gw.example.com:443", false),
            ("*", "gw.example.com:443", true),
            ("example.com", "gw.example.com:443", true),
            ("example.com", "example.com:443", true),
            ("example.com", "badexample.com:443", false),
            ("example.com", "example.com.evil.net:443", false),
            (".example.com", "gw.example.com:443", true),
            (".example.com", "example.com:443", true),
            ("*.example.com", "a.b.example.com:443", true),
            ("EXAMPLE.com.", "gw.example.com:443", true),
            ("gw.example.com:443", "gw.example.com:443", true),
            ("gw.example.com:8443", "gw.example.com:443", false),
            ("a.net, example.com", "gw.example.com:443", true),
            ("a.net example.com", "gw.example.com:443", true),
            ("a.net,,", "gw.example.com:443", false),
            ("192.0.2.1", "192.0.2.1:443", true),
            ("192.0.2.1", "192.0.2.10:443", false),
            ("192.0.2.1:8443", "192.0.2.1:443", false),
            ("192.0.2.0/24", "192.0.2.77:443", true),
            ("192.0.2.9/24", "192.0.2.77:443", true),
            ("192.0.2.0/24", "192.0.3.77:443", false),
            ("192.0.2.0/24", "gw.example.com:443", false),
            ("192.0.2.0/33", "192.0.2.77:443", false),
            ("0.0.0.0/0", "10.1.2.3:443", true),
            ("2001:db8::/32", "[2001:db8::7]:443", true),
            ("2001:db8::7", "[2001:db8::7]:443", true),
            ("[2001:db8::7]:443", "[2001:db8::7]:443", true),
            ("[2001:db8::7]:80", "[2001:db8::7]:443", false),
            ("::1", "[2001:db8::1]:443", false),
            ("localhost", "localhost:443", true),
            ("2.1", "192.0.2.1:443", false),
        ] {
            let exceptions: Exceptions = list.parse().unwrap();
            assert_eq!(exceptions.contain(&host.parse().unwrap()), held, "{list:?} and {host}");
        }
    }
}
