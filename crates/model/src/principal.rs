//! Who asks.

use crate::{GroupName, UserName};

/// The group whose members reach every target that the edges allow.
pub const ADMINS: &str = "admins";

/// A person or program that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Principal {
    /// Its name.
    pub name: UserName,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
}

impl Principal {
    /// Whether it belongs to the group.
    pub fn is_member_of(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g.as_str() == group)
    }
}
