//! The words of the tunnel, as types.
//!
//! Everything here is plain data and pure functions: no runtime, no socket, no clock. Whatever comes from outside is
//! parsed once into one of these types, and a value that exists is valid: a [`NodeName`] is a DNS label, an
//! [`AllowList`] has been read, a [`Destination`] names a node and something on it.
//!
//! | word | type |
//! |---|---|
//! | node, an enrolled edge | [`NodeId`], [`NodeName`], [`NodeRecord`] |
//! | what a stream asks for at its far end | [`Target`] |
//! | a target with a name | [`Service`] |
//! | a host and port as a caller wrote them | [`Host`] |
//! | a node and a target on it | [`Destination`] |
//! | which node leads to an address | [`RouteTable`] |
//! | all that an edge offers | [`Offer`] |
//! | how the bytes of a stream travel | [`Encoding`] |
//! | what an edge lets in | [`AllowList`] |
//! | who asks | [`Principal`] |
//! | who may reach what | [`Rule`], [`Policy`] |
//! | the gateway's list of nodes, with a revision | [`Directory`] |
//! | why a link was lost, and for how long | [`LinkLoss`] |
//! | why something was refused | [`Reason`], [`Refusal`] |
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod allow;
mod class;
mod deny;
mod destination;
mod directory;
mod encoding;
mod host;
mod id;
mod label;
mod loss;
mod name;
mod policy;
mod principal;
mod protocol;
mod reason;
mod route;
mod service;
mod subnet;
mod target;

pub use address::{GatewayAddr, HostPort, ParseAddressError};
pub use allow::{AllowList, AllowRule, ParseAllowError};
pub use class::{ChosenClass, Class, ParseClassError};
pub use deny::{DenyList, DenyRule, ParseDenyError};
pub use destination::{Destination, ParseDestinationError};
pub use directory::{Change, Delta, Directory, NodeRecord, NodeState, Revision};
pub use encoding::Encoding;
pub use host::{Host, ParseHostError, via_name};
pub use id::{ClusterId, NodeId, ParseIdError, SessionId, TokenId, TraceId};
pub use label::{Labels, ParseLabelError};
pub use loss::{LinkLoss, LossCause};
pub use name::{CLOUD, GroupName, NodeName, ParseNameError, ReservedName, ServiceName, UserName, Zone};
pub use policy::{
    Ask, Denial, Glob, NodeSelector, ParseGlobError, ParseRuleError, Policy, Rule, Subject, TargetPattern, Verdict,
};
pub use principal::{ADMINS, Identity, Principal};
pub use protocol::Protocol;
pub use reason::{Fault, Reason, Refusal};
pub use route::{RouteError, RouteTable, is_local};
pub use service::{DEFAULT_SERVICES, Offer, Service};
pub use subnet::{ParseSubnetError, Subnet};
pub use target::Target;
