//! What an edge lets streams reach beside the services that it declares.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::IpNet;

/// An allow rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an allow rule: {why}; write ADDRESS:PORT, ADDRESS:FIRST-LAST or SUBNET:FIRST-LAST, such as \"127.0.0.1:8000-8999\""
)]
pub struct ParseAllowError {
    /// The rule as written.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// An address or subnet, and a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowRule {
    net: IpNet,
    ports: RangeInclusive<u16>,
}

impl AllowRule {
    /// Exactly one address and port.
    pub fn one(ip: IpAddr, port: u16) -> Self {
        Self {
            net: ip.into(),
            ports: port..=port,
        }
    }

    fn allows(&self, ip: IpAddr, port: u16) -> bool {
        self.net.contains(&ip) && self.ports.contains(&port)
    }
}

impl FromStr for AllowRule {
    type Err = ParseAllowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseAllowError {
            text: text.to_owned(),
            why,
        };
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| fail("it has no port"))?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(|| fail("a bracket is not closed"))?,
            None if host.contains(':') => return Err(fail("an IPv6 address stands in brackets")),
            None => host,
        };
        let net = bare
            .parse::<IpNet>()
            .or_else(|_| bare.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| fail("its host is neither an IP address nor a subnet"))?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |s: &str| match s.parse::<u16>() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(fail("its port is not a number from 1 to 65535")),
        };
        let ports = port(first)?..=port(last)?;
        if ports.is_empty() {
            return Err(fail("its last port is below its first"));
        }
        Ok(Self {
            net: net.trunc(),
            ports,
        })
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.net.prefix_len() == self.net.max_prefix_len();
        let host = if whole {
            self.net.addr().to_string()
        } else {
            self.net.to_string()
        };
        match self.net {
            IpNet::V4(_) => write!(f, "{host}")?,
            IpNet::V6(_) => write!(f, "[{host}]")?,
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
            "description": "ADDRESS:PORT, ADDRESS:FIRST-LAST or SUBNET:FIRST-LAST"
        })
    }
}

/// Every address and port that streams may reach; what is not in it is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct AllowList(Vec<AllowRule>);

impl AllowList {
    /// Whether this very address may be dialled. An IPv4 address in IPv6 clothes is judged as the IPv4 address.
    pub fn allows(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|rule| rule.allows(ip, port))
    }

    /// Whether a port of the machine itself may be dialled on loopback.
    pub fn allows_local(&self, port: u16) -> bool {
        self.allows(Ipv4Addr::LOCALHOST.into(), port)
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
        let allows = |ip: &str, port| list.allows(ip.parse().unwrap(), port);
        assert!(allows("127.0.0.1", 8000) && allows("127.0.0.1", 8999) && allows("10.1.2.3", 443));
        assert!(allows("::ffff:10.1.2.3", 443) && allows("2001:db8::", 1));
        assert!(!allows("127.0.0.1", 7999) && !allows("127.0.0.1", 9000) && !allows("127.0.0.2", 8000));
        assert!(!allows("11.0.0.1", 443) && !allows("2001:db8::1", 1) && !allows("::1", 8000));
        assert!(!AllowList::default().allows_local(22));
    }

    #[test]
    fn rules_read_back_as_they_were_written() {
        for text in [
            "127.0.0.1:80",
            "127.0.0.1:8000-8999",
            "10.0.0.0/8:1-65535",
            "[2001:db8::/32]:80",
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
        ] {
            assert!(bad.parse::<AllowRule>().is_err(), "{bad:?}");
        }
    }
}
