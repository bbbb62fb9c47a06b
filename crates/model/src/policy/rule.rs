//! Rules: who may reach what on which nodes.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{NodeSelector, Subject, TargetPattern};
use crate::{GroupName, Labels, NodeName, Principal, Target};

/// A rule, or a part of one, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRuleError {
    /// A subject.
    #[error("{text:?} is not a subject: {why}; write user:NAME, group:NAME, cidr:SUBNET, node:NAME or node:KEY=VALUE")]
    Subject {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A selector of nodes.
    #[error("{text:?} selects no nodes: {why}; write *, a name, a pattern such as hz-* or labels such as site=hz")]
    Nodes {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern for targets.
    #[error(
        "{text:?} is no target of a rule: {why}; write *, tcp:PORTS, udp:PORTS, service:NAME, SUBNET or tcp:SUBNET:PORTS"
    )]
    Target {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A list in a rule is empty.
    #[error("the list `{0}` is empty, so the rule would never allow anything; name at least one")]
    Empty(&'static str),
}

/// Allows its subjects to reach its targets on its nodes. There are no rules that forbid.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who may: one of these is enough.
    #[serde(deserialize_with = "subjects")]
    pub subjects: Vec<Subject>,
    /// On which nodes: one of these is enough. One may stand without a list.
    #[serde(deserialize_with = "nodes")]
    #[schemars(with = "OneOrMore<NodeSelector>")]
    pub nodes: Vec<NodeSelector>,
    /// What on them: one of these is enough.
    #[serde(deserialize_with = "targets")]
    pub targets: Vec<TargetPattern>,
}

impl Rule {
    /// The rule that a new gateway begins with: members of the group `admins` reach every target that the edges allow, on
    /// every node.
    pub fn for_admins() -> Self {
        Self {
            subjects: vec![Subject::Group(GroupName::admins())],
            nodes: vec![NodeSelector::All],
            targets: vec![TargetPattern::All],
        }
    }

    /// Whether it is about whoever asks.
    pub fn names(&self, principal: &Principal) -> bool {
        self.subjects.iter().any(|subject| subject.matches(principal))
    }

    /// Whether it is about the node.
    pub fn selects(&self, node: &NodeName, labels: &Labels) -> bool {
        self.nodes.iter().any(|selector| selector.matches(node, labels))
    }

    /// Whether it is about the target.
    pub fn reaches(&self, target: &Target) -> bool {
        self.targets.iter().any(|pattern| pattern.matches(target))
    }
}

/// `user:alice, group:ops -> site=hz: tcp:22, service:web`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subjects, nodes, targets) = (joined(&self.subjects), joined(&self.nodes), joined(&self.targets));
        write!(f, "{subjects} -> {nodes}: {targets}")
    }
}

fn joined<T: fmt::Display>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// A list, or its one element.
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "it is the schema of what is read, and never a value")]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

fn subjects<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Subject>, D::Error> {
    Vec::deserialize(from).and_then(|list| not_empty(list, "subjects"))
}

fn targets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TargetPattern>, D::Error> {
    Vec::deserialize(from).and_then(|list| not_empty(list, "targets"))
}

fn nodes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NodeSelector>, D::Error> {
    from.deserialize_any(Selectors)
        .and_then(|list| not_empty(list, "nodes"))
}

fn not_empty<T, E: Error>(list: Vec<T>, name: &'static str) -> Result<Vec<T>, E> {
    if list.is_empty() {
        return Err(E::custom(ParseRuleError::Empty(name)));
    }
    Ok(list)
}

struct Selectors;

impl<'de> Visitor<'de> for Selectors {
    type Value = Vec<NodeSelector>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a selector of nodes or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map(|one| vec![one]).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_from_text() {
        let text = r#"{
            "subjects": ["user:alice", "group:ops", "cidr:10.1.2.3/8", "node:hz-*", "node:site=hz"],
            "nodes": "site=hz,arch=arm64",
            "targets": ["tcp:8000-8100", "udp:53", "service:web", "*", "10.42.0.0/16", "tcp:10.42.0.0/16:80-90"]
        }"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(
            rule.to_string(),
            "user:alice, group:ops, cidr:10.0.0.0/8, node:hz-*, node:site=hz -> arch=arm64,site=hz: \
             tcp:8000-8100, udp:53, service:web, *, 10.42.0.0/16, tcp:10.42.0.0/16:80-90"
        );
        let again = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&again).unwrap(), rule);
        let list = r#"{"subjects":["user:a"],"nodes":["edge1","cloud","hz-*","*"],"targets":["*"]}"#;
        assert_eq!(serde_json::from_str::<Rule>(list).unwrap().nodes.len(), 4);
    }

    #[test]
    fn the_schema_takes_a_selector_of_nodes_with_and_without_a_list() {
        let schema = serde_json::to_value(schemars::schema_for!(Rule)).unwrap();
        assert_eq!(schema["properties"]["subjects"]["type"], "array");
        assert_eq!(schema["additionalProperties"], false);
        let text = schema.to_string();
        assert!(text.contains("anyOf") && text.contains("hz-*"), "{text}");
    }

    #[test]
    fn a_rule_that_would_never_allow_anything_is_refused() {
        for bad in [
            r#"{"subjects":[],"nodes":"*","targets":["*"]}"#,
            r#"{"subjects":["user:a"],"nodes":[],"targets":["*"]}"#,
            r#"{"subjects":["user:a"],"nodes":"*","targets":[]}"#,
            r#"{"subjects":["user:a"],"nodes":"*"}"#,
            r#"{"subjects":["user:a"],"nodes":"*","targets":["*"],"deny":true}"#,
            r#"{"subjects":["user:a"],"nodes":7,"targets":["*"]}"#,
        ] {
            assert!(serde_json::from_str::<Rule>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_parts_of_a_rule_read_back_as_they_were_written() {
        for text in [
            "user:alice",
            "group:ops",
            "cidr:10.0.0.0/8",
            "cidr:10.0.0.7",
            "cidr:2001:db8::/32",
            "node:*",
            "node:a=b,c=d",
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for text in ["*", "edge1", "hz-*", "a=b,c=d", "a="] {
            assert_eq!(text.parse::<NodeSelector>().unwrap().to_string(), text);
        }
        for text in [
            "*",
            "tcp:22",
            "udp:8000-8100",
            "service:web",
            "service:db-*",
            "10.42.0.0/16",
            "10.42.0.7",
            "2001:db8::/32",
            "tcp:10.42.0.0/16",
            "udp:10.0.0.0/8:53",
            "tcp:[2001:db8::/32]:80-90",
            "tcp:2001:db8::/32",
        ] {
            assert_eq!(text.parse::<TargetPattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn parts_that_could_mean_two_things_are_refused() {
        for bad in [
            "",
            "alice",
            "user:",
            "user:*",
            "user:Alice",
            "cidr:10",
            "cidr:a",
            "node:",
            "host:a",
            "group:a b",
        ] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
        for bad in ["", "A", "a.b", "a=b,a=c", "a=b,", "=b", "a,b", "0x1"] {
            assert!(bad.parse::<NodeSelector>().is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "22",
            "tcp:",
            "tcp:0",
            "tcp:9-8",
            "tcp:+22",
            "web",
            "service:",
            "service:a.b",
            "port:22",
            "10.0.0.0/8:80",
            "tcp:10.0.0.0/33",
            "tcp:10.0.0.0/8:",
            "tcp:[2001:db8::]x:80",
            "tcp:010.0.0.1",
            "tcp:localhost:80",
        ] {
            assert!(
                bad.parse::<TargetPattern>().is_err(),
                "{bad:?} was read as {:?}",
                bad.parse::<TargetPattern>()
            );
        }
    }
}
