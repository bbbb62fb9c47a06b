//! Which nodes a rule is about.

use std::{fmt, str::FromStr};

use super::{Glob, ParseRuleError};
use crate::{Labels, NodeName};

/// Some of the nodes. `*` and patterns never mean the cloud side, which has to be written out.
///
/// The text form is `*`, a name, a pattern such as `hz-*`, or labels that a node must have all of: `site=hz,arch=arm64`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NodeSelector {
    /// Every node.
    All,
    /// The node of this name, or the cloud side.
    Name(NodeName),
    /// Nodes with such names.
    Glob(Glob),
    /// Nodes that have all these labels; at least one.
    Labels(Labels),
}

impl NodeSelector {
    /// Whether a node of this name and with these labels is one of them.
    pub fn matches(&self, name: &NodeName, labels: &Labels) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            _ if name.is_reserved() => false,
            Self::All => true,
            Self::Glob(glob) => glob.matches(name.as_str()),
            Self::Labels(wanted) => wanted.iter().all(|(key, value)| labels.get(key) == Some(value)),
        }
    }
}

impl FromStr for NodeSelector {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why: String| ParseRuleError::Nodes {
            text: text.to_owned(),
            why,
        };
        if text == "*" {
            Ok(Self::All)
        } else if text.contains('=') {
            let labels = Labels::parse(text.split(',')).map_err(|e| fail(e.to_string()))?;
            if labels.iter().count() != text.split(',').count() {
                return Err(fail("it names a key twice".to_owned()));
            }
            Ok(Self::Labels(labels))
        } else if text.contains('*') {
            text.parse().map(Self::Glob).map_err(|e| fail(format!("{e}")))
        } else {
            text.parse().map(Self::Name).map_err(|e| fail(format!("{e}")))
        }
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Name(name) => name.fmt(f),
            Self::Glob(glob) => glob.fmt(f),
            Self::Labels(labels) => labels.fmt(f),
        }
    }
}

super::as_text!(
    NodeSelector,
    "*, a node's name, a pattern such as hz-*, or labels such as site=hz,arch=arm64"
);
