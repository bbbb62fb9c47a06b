//! Who may reach what. Deny unless something allows.

mod glob;
mod index;
mod pattern;
mod rule;
mod selector;
mod subject;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use self::index::{LabelCounts, NodeIndex};
pub use self::{
    glob::{Glob, ParseGlobError},
    pattern::TargetPattern,
    rule::{ParseRuleError, Rule},
    selector::NodeSelector,
    subject::Subject,
};
use crate::{GroupName, Identity, Labels, NodeName, Principal, Subnet, Target, UserName};

/// Reads and writes a type as its text form, and says so in schemas.
macro_rules! as_text {
    ($name:ident, $description:literal) => {
        impl TryFrom<String> for $name {
            type Error = $crate::policy::ParseRuleError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "description": $description})
            }
        }
    };
}
use as_text;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The node; the cloud side under its reserved name.
    pub node: &'a NodeName,
    /// The labels of the node; none for the cloud side, and for a node that nobody knows.
    pub labels: &'a Labels,
    /// What on the node.
    pub target: &'a Target,
}

/// The verdict on what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The rule at this place in [`Policy::rules`] allows it; it is the first that does.
    Allowed {
        /// The place, from 0.
        rule: usize,
    },
    /// No rule allows it.
    Denied(Denial),
}

impl Verdict {
    /// Whether it is allowed.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// How near any rule came to allowing what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// No rule is about whoever asks.
    Subject,
    /// Of the rules that are, none is about the node.
    Node,
    /// Of the rules that are about both, none is about the target.
    Target,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "no rule names the subject",
            Self::Node => "no rule for the subject selects the node",
            Self::Target => "no rule for the subject and the node names the target",
        })
    }
}

/// The rules of a gateway, made ready for decisions. Without a rule nothing is allowed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    users: HashMap<UserName, u32>,
    groups: HashMap<GroupName, u32>,
    /// By length of the prefix.
    nets: BTreeMap<u8, HashMap<Subnet, u32>>,
    nodes: HashMap<NodeSelector, u32>,
    /// What the values of `nodes` are found by.
    asking_nodes: NodeIndex,
    /// The rules of each subject, by the nodes that they are about. The maps above hold places in this.
    subjects: Vec<NodeIndex>,
}

impl Policy {
    /// Makes rules ready. Their order makes no difference to what is allowed, only to which rule is named.
    pub fn compile(rules: impl IntoIterator<Item = Rule>) -> Self {
        // Verdicts name rules by number: what could not be counted is not there, and allows nothing.
        let rules: Vec<_> = rules.into_iter().take(u32::MAX as usize).collect();
        let mut policy = Self::default();
        let counts = count_labels(&rules);
        for (place, rule) in (0..).zip(&rules) {
            for subject in &rule.subjects {
                let subject = policy.place_of(subject, &counts);
                for selector in &rule.nodes {
                    policy.subjects[subject as usize].insert(selector, place, &counts);
                }
            }
        }
        policy.rules = rules;
        policy
    }

    /// The rules in the order they were written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether any rule is about whoever connects from this address, so that somebody who does not say who they are may
    /// be judged by it.
    pub fn names_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let holds = |(length, nets): (&u8, &HashMap<Subnet, u32>)| {
            Subnet::around(ip, *length).is_some_and(|net| nets.contains_key(&net))
        };
        self.nets.iter().any(holds)
    }

    /// Decides whether it is allowed. The edge's own allow list is asked later, and its refusal wins.
    pub fn decide(&self, ask: &Ask<'_>) -> Verdict {
        let mut best = None;
        let mut denial = Denial::Subject;
        self.of_principal(ask.principal, |subject| {
            denial = denial.max(Denial::Node);
            subject.of_node(ask.node, ask.labels, |rule| {
                denial = Denial::Target;
                let earlier = best.is_none_or(|best| rule < best);
                if earlier
                    && self
                        .rules
                        .get(rule as usize)
                        .is_some_and(|rule| rule.reaches(ask.target))
                {
                    best = Some(rule);
                }
            });
        });
        match best {
            Some(rule) => Verdict::Allowed { rule: rule as usize },
            None => Verdict::Denied(denial),
        }
    }

    /// Tells the rules of each subject that whoever asks is.
    fn of_principal(&self, principal: &Principal, mut tell: impl FnMut(&NodeIndex)) {
        let mut tell = |place: u32| self.subjects.get(place as usize).into_iter().for_each(&mut tell);
        match &principal.identity {
            Identity::User(name) => self.users.get(name).copied().into_iter().for_each(&mut tell),
            Identity::Node { name, labels } => self.asking_nodes.of_node(name, labels, &mut tell),
            Identity::Address => {}
        }
        for group in &principal.groups {
            self.groups.get(group).copied().into_iter().for_each(&mut tell);
        }
        if let Some(ip) = principal.ip() {
            for (length, nets) in &self.nets {
                let net = Subnet::around(ip, *length).and_then(|net| nets.get(&net));
                net.copied().into_iter().for_each(&mut tell);
            }
        }
    }

    /// Where the rules of a subject are.
    fn place_of(&mut self, subject: &Subject, counts: &LabelCounts<'_>) -> u32 {
        // Places are counted like the rules, of which there are no more.
        let new = u32::try_from(self.subjects.len()).unwrap_or(u32::MAX);
        let place = match subject {
            Subject::User(name) => *self.users.entry(name.clone()).or_insert(new),
            Subject::Group(name) => *self.groups.entry(name.clone()).or_insert(new),
            Subject::Cidr(net) => {
                let nets = self.nets.entry(net.length()).or_default();
                *nets.entry(*net).or_insert(new)
            }
            Subject::Node(selector) => {
                let place = *self.nodes.entry(selector.clone()).or_insert(new);
                if place == new {
                    self.asking_nodes.insert(selector, place, counts);
                }
                place
            }
        };
        if place == new {
            self.subjects.push(NodeIndex::default());
        }
        place
    }
}

fn count_labels(rules: &[Rule]) -> LabelCounts<'_> {
    let mut counts = LabelCounts::new();
    for rule in rules {
        let asking = rule.subjects.iter().filter_map(|subject| match subject {
            Subject::Node(selector) => Some(selector),
            _ => None,
        });
        for selector in rule.nodes.iter().chain(asking) {
            if let NodeSelector::Labels(labels) = selector {
                for label in labels.iter() {
                    *counts.entry(label).or_default() += 1;
                }
            }
        }
    }
    counts
}
