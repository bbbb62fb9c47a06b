//! Whom a rule is about.

use std::{fmt, str::FromStr};

use super::{NodeSelector, ParseRuleError};
use crate::{GroupName, Identity, Principal, Subnet, UserName, subnet::ParseSubnetError};

/// Some of those who ask.
///
/// The text form is `user:NAME`, `group:NAME`, `cidr:SUBNET`, or `node:` and a [`NodeSelector`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// The user of this name.
    User(UserName),
    /// Members of the group of this name.
    Group(GroupName),
    /// Whoever connects to the gateway from this subnet, whether or not they say who they are.
    Cidr(Subnet),
    /// Edges that open streams.
    Node(NodeSelector),
}

impl Subject {
    /// Whether whoever asks is one of them.
    pub fn matches(&self, principal: &Principal) -> bool {
        match (self, &principal.identity) {
            (Self::User(wanted), Identity::User(name)) => wanted == name,
            (Self::Group(group), _) => principal.groups.contains(group),
            (Self::Cidr(net), _) => principal.ip().is_some_and(|ip| net.contains(ip)),
            (Self::Node(selector), Identity::Node { name, labels }) => selector.matches(name, labels),
            (Self::User(_) | Self::Node(_), _) => false,
        }
    }
}

impl FromStr for Subject {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why: String| ParseRuleError::Subject {
            text: text.to_owned(),
            why,
        };
        let (kind, name) = text
            .split_once(':')
            .ok_or_else(|| fail("it does not say of what kind it is".to_owned()))?;
        match kind {
            "user" => name.parse().map(Self::User).map_err(|e| fail(format!("{e}"))),
            "group" => name.parse().map(Self::Group).map_err(|e| fail(format!("{e}"))),
            "cidr" => name
                .parse()
                .map(Self::Cidr)
                .map_err(|e: ParseSubnetError| fail(e.to_string())),
            "node" => name
                .parse()
                .map(Self::Node)
                .map_err(|e: ParseRuleError| fail(format!("{e}"))),
            _ => Err(fail(format!("{kind:?} is no kind of subject"))),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Cidr(net) => write!(f, "cidr:{}", net.short()),
            Self::Node(selector) => write!(f, "node:{selector}"),
        }
    }
}

super::as_text!(
    Subject,
    "user:NAME, group:NAME, cidr:SUBNET, node:NAME or node:KEY=VALUE"
);
