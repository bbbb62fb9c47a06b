//! Routes: which node leads to an address.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{NodeName, Subnet, host::via_name};

/// No node, or more than one, leads to an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No subnet with a route holds the address.
    #[error("no route leads to {0}; approve a subnet that a node advertises, or write {via}", via = any_via(*.0))]
    NoRoute(IpAddr),
    /// The address stands for something else on each machine or link, so that no network as a whole leads to it.
    #[error("{0} is an address of a machine or a link and not of a network, no route leads to it; write {via}", via = any_via(*.0))]
    Local(IpAddr),
    /// Several nodes lead to the same subnet, which may be a different network at each.
    #[error("{ip} is in {net}, to which several nodes lead: {}; say which: {}", list(.nodes), example(*.ip, .nodes))]
    Ambiguous {
        /// The address.
        ip: IpAddr,
        /// The most specific subnet that holds it.
        net: Subnet,
        /// The nodes, by name; at least two.
        nodes: Vec<NodeName>,
    },
}

/// Where clouds keep the secrets of their machines, beside link-local addresses: Alibaba Cloud, Azure, Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same of AWS.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether an address is one of a machine or a link, and of no network as a whole: loopback, link-local (RFC 3927,
/// RFC 4291 section 2.5.6), multicast, addresses of nobody, and those at which clouds keep the secrets of their machines;
/// also where an IPv6 address carries one of IPv4. No subnet means these, whatever it holds.
pub fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let of_family = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0 || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => {
            let carried = carried(v6).is_some_and(|v4| is_local(v4.into()));
            carried || v6.is_unicast_link_local() || v6 == METADATA_V6
        }
    };
    of_family || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified()
}

/// The IPv4 address that a translator or tunnel on the way makes of an IPv6 address: compatible (RFC 4291
/// section 2.5.5.1), translated (RFC 2765 section 2.1), NAT64 (RFC 6052 section 2.1, RFC 8215) and 6to4 (RFC 3056
/// section 2).
fn carried(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, _, _, _, _, _] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

fn any_via(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => format!("{ip}.via.NODE"),
        IpAddr::V6(_) => "ADDRESS.via.NODE with dashes for colons".to_owned(),
    }
}

fn list(nodes: &[NodeName]) -> String {
    const SHOWN: usize = 5;
    let mut text = nodes
        .iter()
        .take(SHOWN)
        .map(NodeName::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if nodes.len() > SHOWN {
        text.push_str(&format!(" and {} more", nodes.len() - SHOWN));
    }
    text
}

fn example(ip: IpAddr, nodes: &[NodeName]) -> String {
    nodes.first().map_or_else(String::new, |node| via_name(ip, node))
}

/// The subnets that nodes may be the way to. Of those that hold an address the most specific decides.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// By length of the prefix, the longest first.
    by_length: BTreeMap<Reverse<u8>, HashMap<Subnet, BTreeSet<NodeName>>>,
    by_node: HashMap<NodeName, BTreeSet<Subnet>>,
}

impl RouteTable {
    /// Makes a node a way to a subnet; says whether it was not yet.
    pub fn insert(&mut self, net: Subnet, node: &NodeName) -> bool {
        let nets = self.by_length.entry(Reverse(net.length())).or_default();
        nets.entry(net).or_default().insert(node.clone());
        self.by_node.entry(node.clone()).or_default().insert(net)
    }

    /// Takes one subnet from a node; says whether it had it.
    pub fn remove(&mut self, net: Subnet, node: &NodeName) -> bool {
        let Some(of_node) = self.by_node.get_mut(node) else {
            return false;
        };
        if !of_node.remove(&net) {
            return false;
        }
        if of_node.is_empty() {
            self.by_node.remove(node);
        }
        self.forget(net, node);
        true
    }

    /// Takes every subnet from a node.
    pub fn remove_node(&mut self, node: &NodeName) {
        for net in self.by_node.remove(node).unwrap_or_default() {
            self.forget(net, node);
        }
    }

    /// The node that leads to an address.
    pub fn lookup(&self, ip: IpAddr) -> Result<&NodeName, RouteError> {
        let ip = ip.to_canonical();
        if is_local(ip) {
            return Err(RouteError::Local(ip));
        }
        for (Reverse(length), nets) in &self.by_length {
            let Some((net, nodes)) = Subnet::around(ip, *length).and_then(|net| nets.get_key_value(&net)) else {
                continue;
            };
            let mut several = nodes.iter();
            return match (several.next(), several.next()) {
                (Some(node), None) => Ok(node),
                _ => Err(RouteError::Ambiguous {
                    ip,
                    net: *net,
                    nodes: nodes.iter().cloned().collect(),
                }),
            };
        }
        Err(RouteError::NoRoute(ip))
    }

    /// Whether several nodes are a way to this very subnet.
    pub fn is_ambiguous(&self, net: Subnet) -> bool {
        let nets = self.by_length.get(&Reverse(net.length()));
        nets.and_then(|nets| nets.get(&net))
            .is_some_and(|nodes| nodes.len() > 1)
    }

    /// The subnets that a node is a way to, in order.
    pub fn of_node(&self, node: &NodeName) -> impl Iterator<Item = Subnet> {
        self.by_node.get(node).into_iter().flatten().copied()
    }

    /// Every subnet and node, by node name.
    pub fn iter(&self) -> impl Iterator<Item = (Subnet, &NodeName)> {
        let mut all: Vec<_> = self.by_node.iter().collect();
        all.sort_unstable_by_key(|(node, _)| *node);
        all.into_iter()
            .flat_map(|(node, nets)| nets.iter().map(move |net| (*net, node)))
    }

    fn forget(&mut self, net: Subnet, node: &NodeName) {
        let length = Reverse(net.length());
        let Some(nets) = self.by_length.get_mut(&length) else {
            return;
        };
        if let Some(nodes) = nets.get_mut(&net) {
            nodes.remove(node);
            if nodes.is_empty() {
                nets.remove(&net);
            }
        }
        if nets.is_empty() {
            self.by_length.remove(&length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_most_specific_subnet_decides() {
        let table = table(&[
            ("10.0.0.0/8", "a"),
            ("10.42.0.0/16", "b"),
            ("10.42.3.0/24", "c"),
            ("::/0", "d"),
        ]);
        for (ip, node) in [
            ("10.1.2.3", "a"),
            ("10.42.1.1", "b"),
            ("10.42.3.9", "c"),
            ("::ffff:10.42.3.9", "c"),
            ("2001:db8::1", "d"),
        ] {
            assert_eq!(lookup(&table, ip).unwrap(), node, "{ip}");
        }
        assert_eq!(
            lookup(&table, "192.0.2.1").unwrap_err(),
            "no route leads to 192.0.2.1; approve a subnet that a node advertises, or write 192.0.2.1.via.NODE"
        );
    }

    #[test]
    fn the_same_subnet_behind_two_nodes_leads_nowhere_and_says_what_does() {
        let mut table = table(&[
            ("192.168.1.0/24", "hz"),
            ("192.168.1.7/24", "sh"),
            ("192.168.0.0/16", "a"),
        ]);
        assert_eq!(
            lookup(&table, "192.168.1.9").unwrap_err(),
            "192.168.1.9 is in 192.168.1.0/24, to which several nodes lead: hz, sh; say which: 192.168.1.9.via.hz"
        );
        table.remove_node(&name("hz"));
        assert_eq!(lookup(&table, "192.168.1.9").unwrap(), "sh");
        assert!(table.remove(net("192.168.1.0/24"), &name("sh")));
        assert!(!table.remove(net("192.168.1.0/24"), &name("sh")));
        assert_eq!(lookup(&table, "192.168.1.9").unwrap(), "a");
    }

    /// B14
    #[test]
    fn a_default_route_leads_to_no_metadata_service_and_no_loopback() {
        let table = table(&[("0.0.0.0/0", "a"), ("::/0", "a"), ("169.254.0.0/16", "a")]);
        for ip in [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "::ffff:0:a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            let found = table.lookup(ip.parse().unwrap());
            assert!(matches!(found, Err(RouteError::Local(_))), "{ip}: {found:?}");
        }
        for ip in ["8.8.8.8", "64:ff9b::808:808", "fd00:ec2::255"] {
            assert_eq!(lookup(&table, ip).unwrap(), "a", "{ip}");
        }
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_list_that_is_searched(
            steps in prop::collection::vec((0u8..4, prop::sample::select(NETS), 0usize..3), 1..40),
            asked in prop::sample::select(ADDRESSES),
        ) {
            let mut table = RouteTable::default();
            let mut list = BTreeSet::new();
            for (what, text, who) in steps {
                let (net, node) = (net(text), name(["a", "b", "c"][who]));
                match what {
                    0 => {
                        table.remove_node(&node);
                        list.retain(|(_, of)| *of != node);
                    }
                    1 => prop_assert_eq!(table.remove(net, &node), list.remove(&(net, node.clone()))),
                    _ => prop_assert_eq!(table.insert(net, &node), list.insert((net, node.clone()))),
                }
            }
            let ip: IpAddr = asked.parse().unwrap();
            let best = list.iter().filter(|(net, _)| net.contains(ip)).map(|(net, _)| net.length()).max();
            let found: Vec<_> = list
                .iter()
                .filter(|(net, _)| net.contains(ip) && Some(net.length()) == best)
                .map(|(_, node)| node.clone())
                .collect();
            match (table.lookup(ip), &found[..]) {
                (Ok(node), [only]) => prop_assert_eq!(node, only),
                (Err(RouteError::NoRoute(_)), []) => {}
                (Err(RouteError::Ambiguous { nodes, .. }), [_, _, ..]) => prop_assert_eq!(nodes, found),
                (answer, _) => prop_assert!(false, "{answer:?} where {found:?} lead"),
            }
            prop_assert_eq!(table.iter().count(), list.len());
            if list.is_empty() {
                prop_assert!(table.by_length.is_empty() && table.by_node.is_empty());
            }
        }
    }

    const NETS: &[&str] = &[
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.42.0.0/16",
        "10.42.3.0/24",
        "10.42.3.7/32",
        "::/0",
        "2001:db8::/32",
        "2001:db8:1::/48",
    ];
    const ADDRESSES: &[&str] = &[
        "10.42.3.7",
        "10.42.3.8",
        "10.1.1.1",
        "192.0.2.1",
        "2001:db8:1::1",
        "2001:db9::1",
    ];

    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let mut table = RouteTable::default();
        for (subnet, node) in routes {
            table.insert(net(subnet), &name(node));
        }
        table
    }

    fn lookup(table: &RouteTable, ip: &str) -> Result<String, String> {
        let found = table.lookup(ip.parse().unwrap());
        found.map(ToString::to_string).map_err(|error| error.to_string())
    }

    fn net(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }
}
