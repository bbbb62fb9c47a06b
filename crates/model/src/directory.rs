//! The gateway's list of nodes, with a revision. Followers keep a copy and apply [`Delta`]s.

use std::collections::{BTreeMap, VecDeque};

use crate::{Labels, NodeId, NodeName, Reason, Service, Subnet};

/// How often the directory has changed. A follower at revision `r` needs the changes after `r`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// Whether a node can be reached now. Times are seconds since 1970-01-01 UTC by the gateway's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// Connected since then.
    Online {
        /// When its session began.
        since: u64,
    },
    /// Not connected since then; never, if it has not been seen since it enrolled.
    Offline {
        /// When its session ended, or when it enrolled.
        since: u64,
        /// Why; `None` if it has never connected.
        why: Option<Reason>,
    },
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Who it is.
    pub id: NodeId,
    /// What it is called.
    pub name: NodeName,
    /// What the operator says about it.
    pub labels: Labels,
    /// What it offers, as it last said.
    pub services: Vec<Service>,
    /// Subnets that it would like to be the way to, as it last said.
    pub subnets: Vec<Subnet>,
    /// Its agent's version, as it last said.
    pub agent_version: String,
    /// Whether it can be reached.
    pub state: NodeState,
}

/// One change of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The node is new, or is now like this.
    Upsert(NodeRecord),
    /// The node is gone.
    Remove(NodeId),
}

/// What brings a follower from one revision to a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// These changes, in order.
    Changes {
        /// The revision after the last of them.
        to: Revision,
        /// The changes after the follower's revision.
        changes: Vec<Change>,
    },
    /// The follower is too far behind, or of another history: everything anew.
    Whole {
        /// The revision of this list.
        to: Revision,
        /// Every node.
        nodes: Vec<NodeRecord>,
    },
}

/// The list itself, and as much of its history as followers may need.
#[derive(Debug, Clone)]
pub struct Directory {
    nodes: BTreeMap<NodeId, NodeRecord>,
    by_name: BTreeMap<NodeName, NodeId>,
    revision: Revision,
    /// The latest changes; the newest led to `revision`.
    history: VecDeque<Change>,
    history_limit: usize,
}

impl Directory {
    /// An empty directory that remembers this many changes for followers that lag.
    pub fn new(history_limit: usize) -> Self {
        Self {
            nodes: BTreeMap::new(),
            by_name: BTreeMap::new(),
            revision: Revision(0),
            history: VecDeque::new(),
            history_limit,
        }
    }

    /// The current revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The node of this id.
    pub fn get(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }

    /// The node of this name.
    pub fn by_name(&self, name: &NodeName) -> Option<&NodeRecord> {
        self.nodes.get(self.by_name.get(name)?)
    }

    /// Every node, by name.
    pub fn iter(&self) -> impl Iterator<Item = &NodeRecord> {
        self.by_name.values().filter_map(|id| self.nodes.get(id))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds or replaces a node. A record equal to the present one changes nothing.
    pub fn upsert(&mut self, record: NodeRecord) {
        if self.nodes.get(&record.id) == Some(&record) {
            return;
        }
        self.apply(Change::Upsert(record));
    }

    /// Changes a node in place; says whether there is such a node.
    pub fn update(&mut self, id: NodeId, change: impl FnOnce(&mut NodeRecord)) -> bool {
        let Some(mut record) = self.nodes.get(&id).cloned() else {
            return false;
        };
        change(&mut record);
        self.upsert(record);
        true
    }

    /// Takes a node away; says whether it was there.
    pub fn remove(&mut self, id: NodeId) -> bool {
        let known = self.nodes.contains_key(&id);
        if known {
            self.apply(Change::Remove(id));
        }
        known
    }

    /// What a follower at `from` lacks; nothing if it is up to date.
    pub fn delta_since(&self, from: Revision) -> Option<Delta> {
        if from == self.revision {
            return None;
        }
        let missing = self
            .revision
            .0
            .checked_sub(from.0)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n <= self.history.len());
        Some(match missing {
            Some(n) => Delta::Changes {
                to: self.revision,
                changes: self.history.range(self.history.len() - n..).cloned().collect(),
            },
            None => Delta::Whole {
                to: self.revision,
                nodes: self.nodes.values().cloned().collect(),
            },
        })
    }

    /// Follows another directory by what its [`Self::delta_since`] said.
    pub fn apply_delta(&mut self, delta: Delta) {
        match delta {
            Delta::Changes { to, changes } => {
                changes.into_iter().for_each(|change| self.apply(change));
                self.revision = to;
            }
            Delta::Whole { to, nodes } => {
                self.nodes.clear();
                self.by_name.clear();
                self.history.clear();
                nodes.into_iter().for_each(|node| self.insert(node));
                self.revision = to;
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match &change {
            Change::Upsert(record) => self.insert(record.clone()),
            Change::Remove(id) => {
                if let Some(record) = self.nodes.remove(id) {
                    self.by_name.remove(&record.name);
                }
            }
        }
        self.revision.0 += 1;
        self.history.push_back(change);
        if self.history.len() > self.history_limit {
            self.history.pop_front();
        }
    }

    fn insert(&mut self, record: NodeRecord) {
        if let Some(old) = self.nodes.get(&record.id) {
            self.by_name.remove(&old.name);
        }
        self.by_name.insert(record.name.clone(), record.id);
        self.nodes.insert(record.id, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_renamed_node_is_found_by_its_new_name_only() {
        let mut directory = Directory::new(8);
        directory.upsert(node(1, "a"));
        directory.update(id(1), |n| n.name = "b".parse().unwrap());
        assert!(directory.by_name(&"a".parse().unwrap()).is_none());
        assert_eq!(directory.by_name(&"b".parse().unwrap()).unwrap().id, id(1));
    }

    #[test]
    fn what_changes_nothing_makes_no_revision() {
        let mut directory = Directory::new(8);
        directory.upsert(node(1, "a"));
        let before = directory.revision();
        directory.upsert(node(1, "a"));
        assert!(!directory.remove(id(2)));
        assert_eq!(directory.revision(), before);
        assert_eq!(directory.delta_since(before), None);
    }

    proptest! {
        #[test]
        fn a_follower_that_looks_at_any_time_ends_with_the_same_list(
            steps in prop::collection::vec((0u8..6, 0u8..3, any::<bool>()), 0..60),
        ) {
            let mut leader = Directory::new(5);
            let mut follower = Directory::new(5);
            for (who, what, look) in steps {
                match what {
                    0 => leader.upsert(node(who, &format!("n{who}"))),
                    1 => { leader.update(id(who), |n| n.agent_version.push('x')); }
                    _ => { leader.remove(id(who)); }
                }
                if look && let Some(delta) = leader.delta_since(follower.revision()) {
                    follower.apply_delta(delta);
                }
            }
            if let Some(delta) = leader.delta_since(follower.revision()) {
                follower.apply_delta(delta);
            }
            prop_assert_eq!(follower.revision(), leader.revision());
            prop_assert!(follower.iter().eq(leader.iter()));
        }
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn node(n: u8, name: &str) -> NodeRecord {
        NodeRecord {
            id: id(n),
            name: name.parse().unwrap(),
            labels: Labels::default(),
            services: Vec::new(),
            subnets: Vec::new(),
            agent_version: String::new(),
            state: NodeState::Offline { since: 0, why: None },
        }
    }
}
