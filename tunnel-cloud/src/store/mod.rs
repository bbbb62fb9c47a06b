//! What the gateway must not forget: nodes, join tokens, certificates, approved routes, users and losses of links.
//!
//! [`Store`] says what is kept, not how: every method is one atomic, durable step, and when it returns `Ok` the step
//! survives a `kill -9` and a power cut. [`SqliteStore`] keeps it in one file beside the gateway.
//!
//! Times are seconds since 1970-01-01 UTC and come from the caller; a store reads no clock.

mod error;
mod lock;
mod record;
mod sqlite;

use std::path::PathBuf;

use async_trait::async_trait;
use tunnel_model::{Labels, LinkLoss, NodeId, Subnet, TokenId, UserName};

pub use error::{EnrolError, RenewError, StoreError, TokenFault};
pub use lock::{LockError, StateLock};
pub use record::{Approval, Certificate, Enrolment, Node, Presence, Token, User};
pub use sqlite::SqliteStore;

/// How many losses of its link are kept of a node; the oldest go.
pub const KEPT_LOSSES: u32 = 200;

/// The durable state of a gateway.
///
/// A call that is dropped before it returns may or may not take effect; it never takes half effect.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Keeps a new join token, and forgets those that ended more than [`Token::KEEP_ENDED`] before it was made.
    async fn add_token(&self, token: Token) -> Result<(), StoreError>;

    /// The token of this id, whatever its condition.
    async fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError>;

    /// Every token, oldest first.
    async fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// Makes a token useless; says whether there is such a token.
    async fn revoke_token(&self, id: TokenId, at: u64) -> Result<bool, StoreError>;

    /// Spends one use of a token, adds the node and records its certificate, all or nothing.
    ///
    /// The certificate may be sent once this has returned, and not before: a token that is spent stays spent. The caller
    /// has already seen proof of the token's secret.
    async fn enrol(&self, enrolment: Enrolment) -> Result<Node, EnrolError>;

    /// Every node, revoked ones too.
    async fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// Replaces a node's labels; says whether there is such a node.
    async fn set_labels(&self, id: NodeId, labels: Labels) -> Result<bool, StoreError>;

    /// Notes how nodes came and went. Nodes that are gone by now are passed over.
    async fn set_presence(&self, batch: Vec<Presence>) -> Result<(), StoreError>;

    /// Revokes a node for good; says whether there is such a node. The first time of revocation stays.
    async fn revoke_node(&self, id: NodeId, at: u64) -> Result<bool, StoreError>;

    /// Forgets a node and its certificates; says whether there was such a node. Its certificates are worth nothing
    /// afterwards, since nobody knows the node they name.
    async fn remove_node(&self, id: NodeId) -> Result<bool, StoreError>;

    /// Records a renewed certificate of a node that is known and not revoked, before it is sent.
    async fn renew(&self, certificate: Certificate) -> Result<(), RenewError>;

    /// The certificates of a node that may still be of use to it, newest first.
    async fn certificates(&self, node: NodeId) -> Result<Vec<Certificate>, StoreError>;

    /// Approves a node as the way to a subnet; says whether there is such a node. The first time of approval stays.
    async fn approve_route(&self, approval: Approval) -> Result<bool, StoreError>;

    /// Takes an approval back; says whether there was one.
    async fn revoke_route(&self, node: NodeId, subnet: Subnet) -> Result<bool, StoreError>;

    /// Every approval, by node and subnet. Those of a node that is removed go with it.
    async fn approvals(&self) -> Result<Vec<Approval>, StoreError>;

    /// Notes losses of a node's link, as its own journal tells them; those that are known already are passed over, and so
    /// are those of a node that is gone by now. The last [`KEPT_LOSSES`] are kept.
    async fn add_losses(&self, node: NodeId, losses: Vec<LinkLoss>) -> Result<(), StoreError>;

    /// The losses of a node's link, oldest first.
    async fn losses(&self, node: NodeId) -> Result<Vec<LinkLoss>, StoreError>;

    /// Adds a user; says whether the name was free.
    async fn add_user(&self, user: User) -> Result<bool, StoreError>;

    /// Removes a user; says whether there was one.
    async fn remove_user(&self, name: UserName) -> Result<bool, StoreError>;

    /// Every user, by name.
    async fn users(&self) -> Result<Vec<User>, StoreError>;

    /// Writes a consistent copy of everything to a new file, while the store goes on working.
    async fn backup(&self, to: PathBuf) -> Result<(), StoreError>;
}
