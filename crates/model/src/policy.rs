//! Who may reach what. Deny unless something allows.

use crate::{ADMINS, NodeName, Principal, Target};

/// The verdict on one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A rule allows it.
    Allow,
    /// No rule does.
    Deny,
}

/// The rules of a gateway. There is one today: members of [`ADMINS`] reach every target on every node.
#[derive(Debug, Clone, Default)]
pub struct Policy;

impl Policy {
    /// Decides whether the principal may reach the target on the node. The edge's own allow list is asked later, and its
    /// refusal wins.
    pub fn decide(&self, principal: &Principal, _node: &NodeName, _target: &Target) -> Decision {
        if principal.is_member_of(ADMINS) {
            Decision::Allow
        } else {
            Decision::Deny
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admins_reach_everything_and_others_nothing() {
        let decide = |groups: &[&str]| {
            let principal = Principal {
                name: "alice".parse().unwrap(),
                groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
            };
            Policy.decide(&principal, &"edge1".parse().unwrap(), &Target::Port(22))
        };
        assert_eq!(decide(&["ops", "admins"]), Decision::Allow);
        assert_eq!(decide(&["ops", "admin", "admins2"]), Decision::Deny);
        assert_eq!(decide(&[]), Decision::Deny);
    }
}
