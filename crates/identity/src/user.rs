//! Users of the gateway, as their certificates say.

use std::{fmt, str::FromStr};

use rustls_pki_types::CertificateDer;

use crate::{
    ClusterRoot, IdentityError, Serial, UnixTime, Validity,
    chain::{self, Role, Wanted},
};

/// Whose certificate it is: eight random bytes that a user has from creation to removal. A user made anew under an old
/// name has others, so that the certificates of the old one stay worthless.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserId([u8; 8]);

/// A text is not 16 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user id is 16 lower-case hexadecimal digits")]
pub struct ParseUserIdError;

impl UserId {
    /// The id made of these bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// 16 lower-case hexadecimal digits.
impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for UserId {
    type Err = ParseUserIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let digits = s.len() == 16 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(s, 16).ok().filter(|_| digits);
        number.map(|n| Self(n.to_be_bytes())).ok_or(ParseUserIdError)
    }
}

/// A user, as a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// Whose it is. Whether that user still exists is for the gateway to know.
    pub id: UserId,
    /// The serial number of the certificate.
    pub serial: Serial,
    /// When the chain is valid. A connection may outlive it: ask [`Self::check_time`] at each use.
    pub validity: Validity,
}

impl UserIdentity {
    /// Reads the user's identity from the chain that was shown, leaf first. Only a certificate for users will do, and only
    /// one that is valid now.
    pub fn from_chain(certs: &[CertificateDer<'_>], root: &ClusterRoot, now: UnixTime) -> Result<Self, IdentityError> {
        let leaf = chain::check(certs, root, Wanted::User)?;
        let Role::User(id) = leaf.role else {
            return Err(IdentityError::NotSpiffe);
        };
        let identity = Self {
            id,
            serial: leaf.serial,
            validity: leaf.validity,
        };
        identity.check_time(now)?;
        Ok(identity)
    }

    /// Whether the certificate is valid at this time.
    pub fn check_time(&self, now: UnixTime) -> Result<(), IdentityError> {
        let Validity { not_before, not_after } = self.validity;
        if now < not_before {
            return Err(IdentityError::NotYetValid { not_before });
        }
        if now > not_after {
            return Err(IdentityError::Expired { not_after });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
