//! What an edge lets streams reach beside the services that it declares.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use crate::{Protocol, Subnet, address::parse_ports};

/// An allow rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an allow rule: {why}; write ADDRESS:PORT, ADDRESS:FIRST-LAST or SUBNET:FIRST-LAST, such as \"127.0.0.1:8000-8999\", with \"udp:\" before it for UDP"
)]
pub struct ParseAllowError {
    /// The rule as written.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A protocol, an address or subnet, and a range of ports. A rule that names no protocol is of TCP.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowRule {
    protocol: Protocol,
    net: Subnet,
    ports: RangeInclusive<u16>,
}

impl AllowRule {
    /// Exactly one address and port.
    pub fn one(protocol: Protocol, ip: IpAddr, port: u16) -> Self {
        Self {
            protocol,
            net: ip.into(),
            ports: port..=port,
        }
    }

    fn allows(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        self.protocol == protocol && self.net.contains(ip) && self.ports.contains(&port)
    }
}

impl FromStr for AllowRule {
    type Err = ParseAllowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseAllowError {
            text: text.to_owned(),
            why,
        };
        let (protocol, rest) = Protocol::strip(text);
        let (host, ports) = rest.rsplit_once(':').ok_or_else(|| fail("it has no port"))?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(|| fail("a bracket is not closed"))?,
            None if host.contains(':') => return Err(fail("an IPv6 address stands in brackets")),
            None => host,
        };
        Ok(Self {
            protocol: protocol.unwrap_or_default(),
            net: bare
                .parse()
                .map_err(|_| fail("its host is neither an IP address nor a subnet"))?,
            ports: parse_ports(ports).map_err(fail)?,
        })
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == Protocol::Udp {
            f.write_str("udp:")?;
        }
        let host = self.net.short();
        match self.net.address() {
            IpAddr::V4(_) => write!(f, "{host}")?,
            IpAddr::V6(_) => write!(f, "[{host}]")?,
        }
        match (self.ports.start(), self.ports.end()) {
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

impl TryFrom<String> for AllowRule {
    type Error = ParseAllowError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<AllowRule> for String {
    fn from(rule: AllowRule) -> String {
        rule.to_string()
    }
}

impl schemars::JsonSchema for AllowRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AllowRule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "ADDRESS:PORT, ADDRESS:FIRST-LAST or SUBNET:FIRST-LAST; udp: before it for UDP"
        })
    }
}

/// Every address and port that streams may reach; what is not in it is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct AllowList(Vec<AllowRule>);

impl AllowList {
    /// Whether this very address may be dialled. An IPv4 address in IPv6 clothes is judged as the IPv4 address.
    pub fn allows(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        self.0.iter().any(|rule| rule.allows(protocol, ip, port))
    }

    /// The rules in the order they were written.
    pub fn rules(&self) -> &[AllowRule] {
        &self.0
    }
}

impl FromIterator<AllowRule> for AllowList {
    fn from_iter<T: IntoIterator<Item = AllowRule>>(rules: T) -> Self {
        Self(rules.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rules: &[&str]) -> AllowList {
        rules.iter().map(|r| r.parse().unwrap()).collect()
    }

    #[test]
    fn a_list_allows_what_it_names_and_nothing_beside() {
        let list = list(&["127.0.0.1:8000-8999", "10.0.0.0/8:443", "[2001:db8::]:1"]);
        let allows = |ip: &str, port| list.allows(Protocol::Tcp, ip.parse().unwrap(), port);
        assert!(allows("127.0.0.1", 8000) && allows("127.0.0.1", 8999) && allows("10.1.2.3", 443));
        assert!(allows("::ffff:10.1.2.3", 443) && allows("2001:db8::", 1));
        assert!(!allows("127.0.0.1", 7999) && !allows("127.0.0.1", 9000) && !allows("127.0.0.2", 8000));
        assert!(!allows("11.0.0.1", 443) && !allows("2001:db8::1", 1) && !allows("::1", 8000));
        assert!(!AllowList::default().allows(Protocol::Tcp, "127.0.0.1".parse().unwrap(), 22));
    }

    #[test]
    fn a_rule_is_of_one_protocol_and_without_a_word_of_tcp() {
        let list = list(&["127.0.0.1:53", "udp:127.0.0.1:53-54", "tcp:10.0.0.1:80"]);
        let allows = |protocol, ip: &str, port| list.allows(protocol, ip.parse().unwrap(), port);
        assert!(allows(Protocol::Tcp, "127.0.0.1", 53) && allows(Protocol::Udp, "127.0.0.1", 54));
        assert!(!allows(Protocol::Tcp, "127.0.0.1", 54) && !allows(Protocol::Udp, "10.0.0.1", 80));
        assert_eq!(list.rules()[2].to_string(), "10.0.0.1:80");
    }

    #[test]
    fn rules_read_back_as_they_were_written() {
        for text in [
            "127.0.0.1:80",
            "127.0.0.1:8000-8999",
            "10.0.0.0/8:1-65535",
            "[2001:db8::/32]:80",
            "udp:127.0.0.1:53",
            "udp:[2001:db8::1]:53",
        ] {
            assert_eq!(text.parse::<AllowRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rules_that_could_mean_two_things_are_refused() {
        for bad in [
            "",
            "80",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:9-8",
            "localhost:80",
            "::1:80",
            "[::1:80",
            "0177.0.0.1:80",
            "127.1:80",
            "10.0.0.0/33:80",
            "127.0.0.1:80-",
            "127.0.0.1:+80",
            "UDP:127.0.0.1:53",
            "udp:53",
            "sctp:127.0.0.1:53",
        ] {
            assert!(bad.parse::<AllowRule>().is_err(), "{bad:?}");
        }
    }
}
