//! Who asks.

use std::{fmt, net::IpAddr};

use crate::{GroupName, Labels, NodeName, UserName};

/// The group whose members reach every target that the edges allow, by the rule that a new gateway begins with.
pub const ADMINS: &str = "admins";

/// How somebody is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A person or program that has proved who it is.
    User(UserName),
    /// An edge, which opens a stream over its session.
    Node {
        /// Its name.
        name: NodeName,
        /// What the operator says about it.
        labels: Labels,
    },
    /// Nobody in particular: all that is known is the address.
    Address,
}

/// Whoever asks for something, and is judged by policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// How it is known.
    pub identity: Identity,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
    /// The address from which it connected to the gateway, where there is one; never one of IPv4 in IPv6.
    ip: Option<IpAddr>,
}

impl Principal {
    /// A user, from wherever.
    pub fn user(name: UserName, groups: Vec<GroupName>) -> Self {
        Self {
            identity: Identity::User(name),
            groups,
            ip: None,
        }
    }

    /// An edge. Where it is counts for nothing: its address is that of some network's door.
    pub fn node(name: NodeName, labels: Labels) -> Self {
        Self {
            identity: Identity::Node { name, labels },
            groups: Vec::new(),
            ip: None,
        }
    }

    /// Whoever connects from this address.
    pub fn address(ip: IpAddr) -> Self {
        Self {
            identity: Identity::Address,
            groups: Vec::new(),
            ip: Some(ip.to_canonical()),
        }
    }

    /// Somebody of whom nothing is known but a group: what its members may at least.
    pub fn member(group: GroupName) -> Self {
        Self {
            identity: Identity::Address,
            groups: vec![group],
            ip: None,
        }
    }

    /// The same, connecting from this address.
    #[must_use]
    pub fn at(self, ip: IpAddr) -> Self {
        Self {
            ip: Some(ip.to_canonical()),
            ..self
        }
    }

    /// The address from which it connected to the gateway, where there is one; never one of IPv4 in IPv6.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// Whether it belongs to the group.
    pub fn is_member_of(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g.as_str() == group)
    }
}

/// `user:alice`, `node:edge1` or `cidr:10.0.0.7`: as the subject of a rule would be written that names it alone.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, self.ip) {
            (Identity::User(name), _) => write!(f, "user:{name}"),
            (Identity::Node { name, .. }, _) => write!(f, "node:{name}"),
            (Identity::Address, Some(ip)) => write!(f, "cidr:{ip}"),
            (Identity::Address, None) => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_written_as_a_rule_would_name_it() {
        let alice = Principal::user("alice".parse().unwrap(), vec!["ops".parse().unwrap()]);
        assert!(alice.is_member_of("ops") && !alice.is_member_of("op"));
        assert_eq!(alice.at([10, 0, 0, 7].into()).to_string(), "user:alice");
        let edge = Principal::node("edge1".parse().unwrap(), Labels::default());
        assert_eq!(edge.to_string(), "node:edge1");
        let mapped = Principal::address("::ffff:10.0.0.7".parse().unwrap());
        assert_eq!(mapped.to_string(), "cidr:10.0.0.7");
    }
}
