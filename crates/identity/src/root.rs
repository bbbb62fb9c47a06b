//! The root certificate: what everything in a cluster is trusted by.

use std::fmt;

use rustls_pki_types::{CertificateDer, TrustAnchor};
use subtle::ConstantTimeEq as _;
use tunnel_model::ClusterId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{IdentityError, PublicKey};

/// SHA-256 of the root's SubjectPublicKeyInfo: what a join token pins. It outlives a reissue of the root certificate for
/// the same key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootPin(pub(crate) [u8; 32]);

impl RootPin {
    /// The pin of a key.
    pub(crate) fn of(spki: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        let mut pin = [0; 32];
        pin.copy_from_slice(digest.as_ref());
        Self(pin)
    }

    pub(crate) fn matches(&self, spki: &[u8]) -> bool {
        Self::of(spki).0.ct_eq(&self.0).into()
    }
}

/// Lower-case hexadecimal digits.
impl fmt::Display for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A cluster's root certificate, read and found to be one: self-signed, a CA, P-256 or Ed25519, and named
/// `spiffe://<cluster-id>` in its one subject alternative name.
#[derive(Clone)]
pub struct ClusterRoot {
    cluster: ClusterId,
    pin: RootPin,
    cert: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
}

impl ClusterRoot {
    /// Reads a root certificate. Whether it is the right one is for the caller to know: from its own file, or by
    /// [`Self::pin`].
    pub fn from_der(cert: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let malformed = |_| IdentityError::Malformed;
        let (rest, parsed) = X509Certificate::from_der(&cert).map_err(|_| IdentityError::Malformed)?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err(IdentityError::Malformed);
        }
        let spki = parsed.public_key().raw;
        PublicKey::from_spki(spki).map_err(|_| IdentityError::KeyType)?;
        parsed.verify_signature(None).map_err(|_| IdentityError::OtherCa)?;
        let names = parsed.subject_alternative_name().map_err(malformed)?;
        let cluster = match names.map(|n| n.value.general_names.as_slice()) {
            Some([GeneralName::URI(uri)]) => uri.strip_prefix("spiffe://").and_then(|id| id.parse().ok()),
            _ => None,
        };
        let cluster = cluster.ok_or(IdentityError::NotSpiffe)?;
        let pin = RootPin::of(spki);
        let anchor = webpki::anchor_from_trusted_cert(&cert)
            .map_err(|_| IdentityError::Malformed)?
            .to_owned();
        Ok(Self {
            cluster,
            pin,
            cert,
            anchor,
        })
    }

    /// The root among certificates that a gateway showed: the one whose key has the pinned hash.
    pub(crate) fn pinned(certs: &[CertificateDer<'_>], pin: &RootPin) -> Result<Self, IdentityError> {
        let matches = |cert: &&CertificateDer<'_>| {
            X509Certificate::from_der(cert).is_ok_and(|(_, parsed)| pin.matches(parsed.public_key().raw))
        };
        let root = certs.iter().find(matches).ok_or(IdentityError::OtherCa)?;
        Self::from_der(root.clone().into_owned())
    }

    /// The cluster whose root this is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The hash of its key.
    pub fn pin(&self) -> RootPin {
        self.pin
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    pub(crate) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }
}

impl fmt::Debug for ClusterRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterRoot({}, {})", self.cluster, self.pin)
    }
}
