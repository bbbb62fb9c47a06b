//! Subnets, each in one spelling.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

use crate::address::parse_ip;

/// A text is no [`Subnet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a subnet nor an IP address; write ADDRESS/LENGTH, such as \"10.42.3.0/24\"")]
pub struct ParseSubnetError(String);

/// An IP subnet in CIDR notation (RFC 4632 section 3.1), the bits behind the prefix 0. One of IPv4 addresses that are
/// mapped into IPv6 is the IPv4 subnet. An address by itself is read as the subnet that holds it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(IpNet);

impl Subnet {
    /// The subnet of this length that holds the address; `None` if no address has so many bits.
    pub fn around(ip: IpAddr, length: u8) -> Option<Self> {
        IpNet::new(ip, length).ok().map(Self::from)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// The length of its prefix, in bits.
    pub fn length(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it is a single address.
    pub fn is_address(&self) -> bool {
        match self.address() {
            IpAddr::V4(_) => self.length() == 32,
            IpAddr::V6(_) => self.length() == 128,
        }
    }

    /// Whether it holds the address; one of IPv4 in IPv6 is judged as the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// As people write it: a single address without its length.
    pub(crate) fn short(&self) -> String {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().to_string()
        } else {
            self.0.to_string()
        }
    }
}

impl From<IpNet> for Subnet {
    fn from(net: IpNet) -> Self {
        let net = net.trunc();
        // Whatever is shorter than the prefix of the mapped addresses is another network, and is not touched.
        let mapped = match net.addr().to_canonical() {
            IpAddr::V4(v4) if net.addr().is_ipv6() => net.prefix_len().checked_sub(96).map(|n| Ipv4Net::new(v4, n)),
            _ => None,
        };
        match mapped {
            Some(Ok(v4)) => Self(v4.into()),
            _ => Self(net),
        }
    }
}

impl From<IpAddr> for Subnet {
    fn from(ip: IpAddr) -> Self {
        IpNet::from(ip.to_canonical()).into()
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseSubnetError(text.to_owned());
        let Some((ip, length)) = text.split_once('/') else {
            return parse_ip(text).map(Self::from).ok_or_else(fail);
        };
        // The address as std reads it: others take 010.0.0.0, which is one subnet to some and another to the rest.
        let ip: IpAddr = ip.parse().map_err(|_| fail())?;
        let digits = (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or_else(fail)?;
        Self::around(ip, length).ok_or_else(fail)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Subnet {
    type Error = ParseSubnetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl schemars::JsonSchema for Subnet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Subnet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "ADDRESS/LENGTH, such as 10.42.3.0/24"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_one_spelling() {
        for (text, subnet) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("2001:DB8::1/32", Some("2001:db8::/32")),
            ("::ffff:0.0.0.0/90", Some("::ffc0:0:0/90")),
            ("::/0", Some("::/0")),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/8/8", None),
            ("10.0/8", None),
            ("010.0.0.0/8", None),
            ("fe80::1%eth0/64", None),
            ("", None),
        ] {
            let read = text.parse::<Subnet>().map(|subnet| subnet.to_string());
            assert_eq!(read.ok().as_deref(), subnet, "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_judged_as_what_it_is() {
        let subnet: Subnet = "10.0.0.0/8".parse().unwrap();
        assert!(subnet.contains("::ffff:10.1.2.3".parse().unwrap()));
        let all: Subnet = "::/0".parse().unwrap();
        assert!(!all.contains("10.1.2.3".parse().unwrap()));
    }
}
