//! What an edge's local clients may not ask its proxy for.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use crate::{
    Destination, Glob, Host, Subnet, Target,
    address::{parse_ip, parse_ports},
    name::is_number,
};

/// Every port.
const ALL_PORTS: RangeInclusive<u16> = 1..=u16::MAX;

/// A deny rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a deny rule: {why}; write SERVICE.NODE, ADDRESS, SUBNET or *, with * in names for any characters, and maybe :PORT or :FIRST-LAST behind it, such as \"*.edge2\" or \"*:25\""
)]
pub struct ParseDenyError {
    /// The rule as written.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Hosts, and the ports by which they are asked for.
///
/// | text | what is denied |
/// |---|---|
/// | `web.edge2`, `*.edge2`, `db-*.cloud` | services of such names |
/// | `10.0.0.0/8`, `10.0.0.7`, `2001:db8::/32` | addresses, also by a node as in `10.0.0.7.via.edge2` |
/// | `*` | everything |
/// | `*:25`, `*.edge2:8000-8100`, `[2001:db8::/32]:80` | the same by these ports alone |
///
/// Names are compared once they are read: neither case nor a dot at the end nor the zone makes another host of one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DenyRule {
    hosts: Hosts,
    ports: RangeInclusive<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Services { name: Glob, node: Glob },
    Net(Subnet),
}

impl DenyRule {
    fn denies(&self, host: &Host, port: u16) -> bool {
        self.ports.contains(&port) && self.hosts.hold(host)
    }
}

impl Hosts {
    fn hold(&self, host: &Host) -> bool {
        match self {
            Self::All => true,
            Self::Services { name, node } => match host {
                Host::Named(Destination {
                    node: of,
                    target: Target::Service(service),
                }) => name.matches(service.as_str()) && node.matches(of.as_str()),
                _ => false,
            },
            Self::Net(net) => match host {
                Host::Address { ip, .. } => net.contains(*ip),
                Host::Named(Destination {
                    target: Target::Tcp(address),
                    ..
                }) => address.ip().is_some_and(|ip| net.contains(ip)),
                Host::Named(_) => false,
            },
        }
    }
}

impl FromStr for DenyRule {
    type Err = ParseDenyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseDenyError {
            text: text.to_owned(),
            why,
        };
        let (host, ports) = split(text).ok_or_else(|| fail("a bracket is not closed, or something follows it"))?;
        let hosts = match host {
            "*" => Hosts::All,
            host if host.contains('/') || parse_ip(host).is_some() => {
                Hosts::Net(host.parse().map_err(|_| fail("its subnet is none"))?)
            }
            host => services(host).map_err(fail)?,
        };
        let ports = ports.map_or(Ok(ALL_PORTS), parse_ports).map_err(fail)?;
        Ok(Self { hosts, ports })
    }
}

/// The host, without brackets, and what is written as its ports.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        return match behind.strip_prefix(':') {
            Some(ports) => Some((host, Some(ports))),
            None => behind.is_empty().then_some((host, None)),
        };
    }
    Some(match text.split_once(':') {
        Some((host, ports)) if !ports.contains(':') => (host, Some(ports)),
        // An IPv6 address without a port, or nothing.
        _ => (text, None),
    })
}

fn services(host: &str) -> Result<Hosts, &'static str> {
    const FORM: &str = "its host is neither SERVICE.NODE nor an address";
    let (name, node) = host.split_once('.').ok_or(FORM)?;
    let glob = |text: &str| {
        // No name is a number: such a host was meant as an address, and would never be denied.
        let label = Some(text).filter(|text| !is_number(text));
        label.and_then(|text| text.parse::<Glob>().ok()).ok_or(FORM)
    };
    Ok(Hosts::Services {
        name: glob(name)?,
        node: glob(node)?,
    })
}

impl fmt::Display for DenyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = self.ports == ALL_PORTS;
        match &self.hosts {
            Hosts::All => f.write_str("*")?,
            Hosts::Services { name, node } => write!(f, "{name}.{node}")?,
            Hosts::Net(net) => match net.address() {
                IpAddr::V6(_) if !every => write!(f, "[{}]", net.short())?,
                _ => f.write_str(&net.short())?,
            },
        }
        match (self.ports.start(), self.ports.end()) {
            _ if every => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

impl TryFrom<String> for DenyRule {
    type Error = ParseDenyError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<DenyRule> for String {
    fn from(rule: DenyRule) -> String {
        rule.to_string()
    }
}

impl schemars::JsonSchema for DenyRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DenyRule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "SERVICE.NODE, ADDRESS, SUBNET or *, with * in names for any characters; :PORT or :FIRST-LAST behind it for some ports"
        })
    }
}

/// All that may not be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct DenyList(Vec<DenyRule>);

impl DenyList {
    /// The first rule that denies this host by the port that was written with it.
    pub fn find(&self, host: &Host, port: u16) -> Option<&DenyRule> {
        self.0.iter().find(|rule| rule.denies(host, port))
    }
}

impl FromIterator<DenyRule> for DenyList {
    fn from_iter<T: IntoIterator<Item = DenyRule>>(rules: T) -> Self {
        Self(rules.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zone;

    #[test]
    fn a_rule_denies_what_it_names_however_that_is_spelled() {
        for (rule, denied, not) in [
            (
                "*",
                &["web.edge2:80", "edge2:22", "10.0.0.1:1", "[::1]:80"][..],
                &[][..],
            ),
            (
                "web.edge2",
                &[
                    "web.edge2:80",
                    "WEB.Edge2.:1",
                    "web.edge2.tunnel:80",
                    "web.edge2.tunnel.:80",
                ],
                &["web.edge20:80", "xweb.edge2:80", "web.cloud:80", "edge2:80"],
            ),
            (
                "*.edge2",
                &["a.edge2:80", "via.edge2:80"],
                &["a.edge1:80", "10.0.0.1.via.edge2:80"],
            ),
            ("db-*.*", &["db-1.edge1:80", "db-x-1.cloud:80"], &["db.edge1:80"]),
            ("*:25", &["web.edge2:25", "10.0.0.1:25"], &["web.edge2:26"]),
            ("web.edge2:80-81", &["web.edge2:80", "web.edge2:81"], &["web.edge2:82"]),
            (
                "10.0.0.0/8",
                &[
                    "10.1.2.3:80",
                    "[::ffff:10.1.2.3]:80",
                    "10.1.2.3.via.edge2:80",
                    "0--ffff-a01-203.via.edge2:80",
                ],
                &["11.0.0.1:80", "web.edge2:80"],
            ),
            (
                "[2001:db8::/32]:80",
                &["[2001:DB8::1]:80", "2001-db8--1.via.a:80"],
                &["[2001:db8::1]:81"],
            ),
        ] {
            let list: DenyList = [rule.parse().unwrap()].into_iter().collect();
            let found = |asked: &str| {
                let (_, port) = asked.rsplit_once(':').unwrap();
                let host = Host::parse(asked, &Zone::default()).unwrap();
                list.find(&host, port.parse().unwrap()).map(ToString::to_string)
            };
            for asked in denied {
                assert_eq!(found(asked).as_deref(), Some(rule), "{asked}");
            }
            for asked in not {
                assert_eq!(found(asked), None, "{rule}: {asked}");
            }
        }
        assert_eq!(
            DenyList::default().find(&Host::parse("a:1", &Zone::default()).unwrap(), 1),
            None
        );
    }

    #[test]
    fn rules_read_back_as_they_were_written() {
        for text in [
            "*",
            "*:25",
            "web.edge2",
            "*.cloud:8000-8100",
            "10.0.0.0/8",
            "10.0.0.7:80",
            "2001:db8::/32",
            "[2001:db8::/32]:80",
        ] {
            assert_eq!(text.parse::<DenyRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rule_that_would_never_deny_anything_is_refused() {
        for bad in [
            "",
            "edge2",
            "web.edge2.tunnel",
            "*.example.com",
            "Web.edge2",
            "web.",
            ".edge2",
            "10.*",
            "10.0.0.*",
            "010.0.0.1",
            "10.0.0.0/33",
            "[::1",
            "[::1]x",
            "web.edge2:",
            "web.edge2:0",
            "web.edge2:9-8",
            "tcp:web.edge2",
            "*:*",
        ] {
            assert!(bad.parse::<DenyRule>().is_err(), "{bad:?}");
        }
    }
}
