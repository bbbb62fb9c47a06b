//! Whom a connection is with. The only source of a peer's identity.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tunnel_model::{ClusterId, NodeId};

use crate::{
    ClusterRoot, Credential, IdentityError, RootPin, Serial, TimeFloor, UnixTime, Validity,
    chain::{self, Role, Wanted},
};

/// How long after its end an unrevoked node certificate may still renew itself.
pub const RENEWABLE_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is asked of a node certificate's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It has not come: for everything but renewal.
    Full,
    /// It came at most this long ago: for renewal alone, usually [`RENEWABLE_FOR`].
    Within(Duration),
}

/// What was revoked. A store that knows every serial number it issued does well to answer true for one it does not
/// know: that is a certificate from a leaked issuing key.
pub trait Revocations {
    /// Whether the node, or this one of its certificates, is revoked.
    fn is_revoked(&self, node: NodeId, serial: &Serial) -> bool;
}

impl<F: Fn(NodeId, &Serial) -> bool> Revocations for F {
    fn is_revoked(&self, node: NodeId, serial: &Serial) -> bool {
        self(node, serial)
    }
}

/// A node, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Who it is.
    pub node: NodeId,
    /// The serial number of the certificate that it showed.
    pub serial: Serial,
    /// When that certificate is valid.
    pub validity: Validity,
    /// It is past its end; never so under [`Expiry::Full`].
    pub expired: bool,
}

impl NodeIdentity {
    /// Reads the node's identity from the chain that it showed, leaf first.
    ///
    /// To be called by the gateway at each connection, whatever the handshake said: the handshake proves only possession of
    /// the key and a path to the root, and tolerates an expired certificate so that it can be renewed.
    pub fn from_chain(
        certs: &[CertificateDer<'_>],
        root: &ClusterRoot,
        now: UnixTime,
        expiry: Expiry,
        revocations: &(impl Revocations + ?Sized),
    ) -> Result<Self, IdentityError> {
        let identity = Self::read(certs, root, now)?;
        let Validity { not_before, not_after } = identity.validity;
        if now < not_before {
            return Err(IdentityError::NotYetValid { not_before });
        }
        match expiry {
            Expiry::Full if identity.expired => return Err(IdentityError::Expired { not_after }),
            Expiry::Within(grace) if now > not_after.plus(grace) => {
                return Err(IdentityError::ExpiredTooLong { not_after });
            }
            _ => {}
        }
        if revocations.is_revoked(identity.node, &identity.serial) {
            return Err(IdentityError::Revoked);
        }
        Ok(identity)
    }

    /// An edge's own identity, from what it keeps on disk or was just issued. Checks that it belongs under the root; a
    /// certificate that has expired or is not valid yet is still one's own.
    pub fn own(credential: &Credential, root: &ClusterRoot, now: UnixTime) -> Result<Self, IdentityError> {
        Self::read(credential.chain(), root, now)
    }

    fn read(certs: &[CertificateDer<'_>], root: &ClusterRoot, now: UnixTime) -> Result<Self, IdentityError> {
        let leaf = chain::check(certs, root, Wanted::Node)?;
        let Role::Node(node) = leaf.role else {
            return Err(IdentityError::NotSpiffe);
        };
        Ok(Self {
            node,
            serial: leaf.serial,
            validity: leaf.validity,
            expired: now > leaf.validity.not_after,
        })
    }
}

/// The gateway, as its certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayIdentity {
    /// The cluster that it serves.
    pub cluster: ClusterId,
    /// When its certificate chain is valid: what the gateway may claim the time to be ([`crate::Clock::learn`]).
    pub validity: Validity,
}

impl GatewayIdentity {
    /// Reads the gateway's identity from the chain that it showed, leaf first.
    ///
    /// An edge cannot know the time before a gateway told it, so only what is certain refuses: a chain that ended before
    /// `floor`, a time that has surely passed. See [`crate::Clock`] for the rule and what it leaves open.
    pub fn from_chain(
        certs: &[CertificateDer<'_>],
        root: &ClusterRoot,
        floor: &TimeFloor,
    ) -> Result<Self, IdentityError> {
        let leaf = chain::check(certs, root, Wanted::Gateway)?;
        let not_after = leaf.validity.not_after;
        if floor.get() > not_after {
            return Err(IdentityError::Expired { not_after });
        }
        Ok(Self {
            cluster: root.cluster(),
            validity: leaf.validity,
        })
    }

    /// The same for an edge that knows no more than the pin in its join token: finds the root with that key among the
    /// certificates shown, and trusts no other.
    pub fn from_pinned_chain(
        certs: &[CertificateDer<'_>],
        pin: &RootPin,
        floor: &TimeFloor,
    ) -> Result<(ClusterRoot, Self), IdentityError> {
        let root = ClusterRoot::pinned(certs, pin)?;
        let gateway = Self::from_chain(certs, &root, floor)?;
        Ok((root, gateway))
    }
}

#[cfg(test)]
mod tests;
