//! The rows of a store, as the rest of the gateway sees them.

use std::fmt;

use tunnel_identity::{TokenGrant, TokenKey, UnixTime};
use tunnel_model::{GroupName, Labels, NodeId, NodeName, NodeRecord, NodeState, Service, Subnet, TokenId, UserName};

use super::TokenFault;

/// A node, and what only the store knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What everyone may know. The state is the last one that was noted.
    pub record: NodeRecord,
    /// When it joined.
    pub enrolled_at: u64,
    /// When it was revoked, if it was.
    pub revoked_at: Option<u64>,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The public half.
    pub id: TokenId,
    /// What the secret is checked against.
    pub key: TokenKey,
    /// The only name that a node may take with it.
    pub name: Option<NodeName>,
    /// The labels that nodes get.
    pub labels: Labels,
    /// When it was made.
    pub created_at: u64,
    /// Its last second.
    pub expires_at: u64,
    /// How many more nodes may join with it.
    pub uses_left: u32,
    /// When it was revoked, if it was.
    pub revoked_at: Option<u64>,
}

impl Token {
    /// For how long a token that is spent, revoked or expired is still listed: 30 days, in seconds.
    pub const KEEP_ENDED: u64 = 30 * 24 * 3600;

    /// Whether a node may join with it now, and if not, why.
    pub fn check(&self, now: u64) -> Result<(), TokenFault> {
        if self.revoked_at.is_some() {
            Err(TokenFault::Revoked)
        } else if self.uses_left == 0 {
            Err(TokenFault::Spent)
        } else if now > self.expires_at {
            Err(TokenFault::Expired)
        } else {
            Ok(())
        }
    }

    /// What the check of a joining node's proof needs to know of it; a revoked token grants nothing.
    pub fn grant(&self) -> TokenGrant {
        TokenGrant {
            key: self.key.clone(),
            expires: UnixTime::from_secs(self.expires_at),
            uses_left: if self.revoked_at.is_some() { 0 } else { self.uses_left },
            name: self.name.clone(),
        }
    }
}

/// A node that wants to join, and what it would get.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The token that it has proved to hold.
    pub token: TokenId,
    /// The id that its certificate carries.
    pub id: NodeId,
    /// What it is to be called.
    pub name: NodeName,
    /// What it offers.
    pub services: Vec<Service>,
    /// Its agent's version.
    pub agent_version: String,
    /// Its certificate's serial number in hexadecimal, as [`tunnel_identity::Serial`] writes it.
    pub serial: String,
    /// Its certificate's last second.
    pub not_after: u64,
    /// The time.
    pub now: u64,
}

/// How a node came or went, with what it last said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Which node.
    pub id: NodeId,
    /// Its state from now on.
    pub state: NodeState,
    /// What it offers.
    pub services: Vec<Service>,
    /// Subnets that it would like to be the way to.
    pub subnets: Vec<Subnet>,
    /// Its agent's version.
    pub agent_version: String,
}

/// An operator's word that a node is the way to a subnet, whenever it advertises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Which node.
    pub node: NodeId,
    /// Which subnet.
    pub subnet: Subnet,
    /// Since when.
    pub approved_at: u64,
}

/// A node's certificate, as far as anyone asks about it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial number in hexadecimal, as [`tunnel_identity::Serial`] writes it.
    pub serial: String,
    /// The node that it names.
    pub node: NodeId,
    /// When it was issued.
    pub issued_at: u64,
    /// Its last second.
    pub not_after: u64,
}

/// A user, without the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
    /// The part of the secret by which the user is found; not secret.
    pub handle: [u8; 8],
    /// Random bytes hashed before the secret.
    pub salt: [u8; 16],
    /// SHA-256 of salt and secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: u64,
}

/// Salt and hash are left out.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
