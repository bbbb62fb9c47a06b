//! Who is who: the cluster's certificate authority, join tokens, enrolment, certificates and their renewal.
//!
//! The story in order. [`GatewayFiles::init`] makes a [`Root`], kept apart, and an issuing [`Authority`] below it. A
//! [`JoinToken`] carries the gateway's addresses, the hash of the root's key, an id and a secret to a new edge. The edge
//! dials with [`tls::client_config_enrol`], which pins that hash; only then does it send an [`EnrolRequest`], whose proof
//! is bound to this very connection. [`verify_enrol`] checks it, [`Authority::issue_node`] answers with a certificate of
//! seven days, [`NodeFiles`] keeps it, and [`Renewal`] says when to ask for the next. At each connection the gateway asks
//! [`NodeIdentity::from_chain`] whom it talks to; nothing else says who a node is. Users may have certificates too:
//! [`UserIdentity`] says whose, and neither kind does for the other.
//!
//! No runtime and no socket here, and no clock: time comes in as [`UnixTime`]. Keys, serial numbers and signatures take
//! their randomness from the crypto provider, ring; all else takes it from the caller.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ca;
mod chain;
mod clock;
mod enrol;
mod files;
mod key;
mod pem;
mod renewal;
mod root;
#[cfg(test)]
mod testing;
mod time;
pub mod tls;
mod token;
mod user;
mod verify;
mod wire;

pub use ca::{Authority, CaError, ISSUING_LIFETIME, NODE_LIFETIME, ROOT_LIFETIME, Root, USER_LIFETIME};
pub use chain::{IdentityError, Serial, Validity};
pub use clock::{Clock, ClockError, TimeFloor};
pub use enrol::{
    ChannelBinding, EXPORTER_LABEL, EnrolError, EnrolRequest, Issued, MAX_MESSAGE, MessageError, RenewRequest, Reply,
    Request, TokenGrant, VerifiedEnrolment, verify_enrol,
};
pub use files::{CredentialFiles, FileError, GatewayFiles, NodeFiles};
pub use key::{Credential, KeyError, PrivateKey, PublicKey};
pub use pem::encode_certs;
pub use renewal::Renewal;
pub use root::{ClusterRoot, RootPin};
pub use time::UnixTime;
pub use token::{JoinToken, ParseTokenError, TokenKey, TokenSecret};
pub use user::{ParseUserIdError, UserId, UserIdentity};
pub use verify::{Expiry, GatewayIdentity, NodeIdentity, RENEWABLE_FOR, Revocations};
