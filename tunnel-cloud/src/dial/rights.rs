//! Who may reach what: judged when a stream is opened, and again whenever the answer may have changed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use tunnel_model::{
    Ask, Destination, Directory, GroupName, Identity, Labels, Policy, Principal, Reason, Refusal, UserName, Verdict,
};

/// The policy in force, and how often rights have changed.
#[derive(Debug)]
pub(super) struct Rights {
    policy: ArcSwap<Policy>,
    changes: AtomicU64,
}

impl Rights {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            changes: AtomicU64::new(0),
        }
    }

    pub(super) fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    pub(super) fn replace(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// How often rights have changed. Whoever judges before and acts after a change has to judge again.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Notes that policy, a user or a node's labels have changed.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// What the policy says, with the labels that the nodes have now.
pub(super) fn judge(policy: &Policy, all: &Directory, principal: &Principal, destination: &Destination) -> Verdict {
    let unknown = Labels::default();
    policy.decide(&Ask {
        principal,
        node: &destination.node,
        labels: all.by_name(&destination.node).map_or(&unknown, |node| &node.labels),
        target: &destination.target,
    })
}

/// What somebody is told whom no rule lets through. It says nothing of the rules: that is for administrators.
pub(super) fn denied(principal: &Principal, destination: &Destination) -> Refusal {
    let message = format!(
        "{principal} may not reach {} on {}",
        destination.target, destination.node
    );
    Refusal::new(Reason::Denied, message)
}

/// A principal as it would be now: a user with the groups of the store, if the store has the user; a node with the labels
/// of the directory.
pub(super) fn refresh(principal: &Principal, groups: &HashMap<UserName, Vec<GroupName>>, all: &Directory) -> Principal {
    let mut now = principal.clone();
    match &mut now.identity {
        Identity::User(name) => {
            if let Some(groups) = groups.get(name) {
                now.groups.clone_from(groups);
            }
        }
        Identity::Node { name, labels } => {
            if let Some(node) = all.by_name(name) {
                labels.clone_from(&node.labels);
            }
        }
        Identity::Address => {}
    }
    now
}
