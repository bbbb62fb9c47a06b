//! A peer's certificate chain: signatures, use, names. Time is taken out of it and handed to the caller to judge.

use std::fmt;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use tunnel_model::{ClusterId, NodeId};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{ClusterRoot, PublicKey, UnixTime, UserId};

/// Why a peer's certificate was refused; [`Self::code`] is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The peer showed none.
    #[error("no certificate was shown; enrol with a join token first")]
    Missing,
    /// Not X.509 in DER form, a chain that is too long, or fields that contradict each other.
    #[error("the certificate is malformed")]
    Malformed,
    /// No path of good signatures leads to this cluster's root.
    #[error("the certificate was not issued by this cluster's authority")]
    OtherCa,
    /// The root is ours, but the name is of another cluster.
    #[error("the certificate names another cluster")]
    OtherCluster,
    /// The extended key usage is not exactly the one for this role.
    #[error("the certificate is not meant for this use")]
    WrongUsage,
    /// A CA certificate was shown as the peer's own.
    #[error("the certificate is an authority's, not a peer's")]
    CaAsLeaf,
    /// Neither P-256 nor Ed25519.
    #[error("the certificate's key is neither P-256 nor Ed25519")]
    KeyType,
    /// There is no URI among the subject alternative names.
    #[error("the certificate has no URI name")]
    NoUri,
    /// There is more than one URI among the subject alternative names.
    #[error("the certificate has more than one URI name")]
    TwoUris,
    /// A node's or user's certificate has names beside the URI.
    #[error("the certificate has names beside its one URI")]
    ExtraName,
    /// A name holds `*`.
    #[error("a name in the certificate holds a wildcard")]
    Wildcard,
    /// A name holds a comma.
    #[error("a name in the certificate holds a comma")]
    Comma,
    /// A name holds a NUL byte.
    #[error("a name in the certificate holds a NUL byte")]
    Nul,
    /// The URI is not of the form that this role has.
    #[error("the certificate's URI is not of the form spiffe://<cluster-id>/<role>")]
    NotSpiffe,
    /// The time is before its validity.
    #[error("the certificate is valid only from {not_before}; check the clock")]
    NotYetValid {
        /// When it becomes valid.
        not_before: UnixTime,
    },
    /// The time is after its validity.
    #[error("the certificate expired at {not_after}")]
    Expired {
        /// Its last second.
        not_after: UnixTime,
    },
    /// It expired longer ago than it may still renew itself.
    #[error("the certificate expired at {not_after}, too long ago to be renewed; join again with a new token")]
    ExpiredTooLong {
        /// Its last second.
        not_after: UnixTime,
    },
    /// The node or this certificate was revoked.
    #[error("the certificate was revoked")]
    Revoked,
}

impl IdentityError {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "cert-missing",
            Self::Malformed => "cert-malformed",
            Self::OtherCa => "cert-other-ca",
            Self::OtherCluster => "cert-other-cluster",
            Self::WrongUsage => "cert-wrong-usage",
            Self::CaAsLeaf => "cert-is-authority",
            Self::KeyType => "cert-key-type",
            Self::NoUri => "cert-no-uri",
            Self::TwoUris => "cert-two-uris",
            Self::ExtraName => "cert-extra-name",
            Self::Wildcard => "cert-name-wildcard",
            Self::Comma => "cert-name-comma",
            Self::Nul => "cert-name-nul",
            Self::NotSpiffe => "cert-name-form",
            Self::NotYetValid { .. } => "cert-not-yet-valid",
            Self::Expired { .. } => "cert-expired",
            Self::ExpiredTooLong { .. } => "cert-expired-too-long",
            Self::Revoked => "cert-revoked",
        }
    }
}

/// A certificate's serial number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

/// Lower-case hexadecimal digits.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When a whole chain is valid: the time that all its certificates share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub not_before: UnixTime,
    /// Its last second.
    pub not_after: UnixTime,
}

impl Validity {
    fn of(cert: &X509Certificate<'_>) -> Self {
        let validity = cert.validity();
        Self {
            not_before: UnixTime::from_timestamp(validity.not_before.timestamp()),
            not_after: UnixTime::from_timestamp(validity.not_after.timestamp()),
        }
    }

    /// The time that both share.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// What a certificate may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `spiffe://<cluster-id>/node/<node-id>`, client authentication.
    Node(NodeId),
    /// `spiffe://<cluster-id>/user/<user-id>`, client authentication.
    User(UserId),
    /// `spiffe://<cluster-id>/gateway`, server authentication.
    Gateway,
}

impl Role {
    /// The one URI of a certificate for this role.
    pub(crate) fn uri(self, cluster: ClusterId) -> String {
        match self {
            Self::Node(id) => format!("spiffe://{cluster}/node/{id}"),
            Self::User(id) => format!("spiffe://{cluster}/user/{id}"),
            Self::Gateway => format!("spiffe://{cluster}/gateway"),
        }
    }
}

/// The role that a verifier asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Node,
    User,
    Gateway,
}

/// A chain that leads to the root, for the wanted role; its time is not judged yet.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) role: Role,
    pub(crate) serial: Serial,
    pub(crate) validity: Validity,
}

/// Signature algorithms of certificates and of handshakes.
pub(crate) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::ring::ECDSA_P256_SHA256, webpki::ring::ED25519];

/// Leaf, issuing certificate, root, and one to spare for an authority that is one level deeper.
const MAX_CHAIN: usize = 4;

const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// Checks everything about a chain but the time and revocation.
///
/// Signatures are checked as of the first second at which the whole chain was valid. A chain whose certificates were
/// never valid together is malformed.
pub(crate) fn check(certs: &[CertificateDer<'_>], root: &ClusterRoot, wanted: Wanted) -> Result<Leaf, IdentityError> {
    let (first, issuers) = certs.split_first().ok_or(IdentityError::Missing)?;
    if certs.len() > MAX_CHAIN {
        return Err(IdentityError::Malformed);
    }
    let leaf = parse(first)?;
    let mut validity = Validity::of(&leaf);
    for issuer in issuers.iter().filter(|&cert| cert != root.certificate()) {
        validity = validity.and(Validity::of(&parse(issuer)?));
    }
    if validity.not_before > validity.not_after {
        return Err(IdentityError::Malformed);
    }
    check_path(first, issuers, root, wanted, validity.not_before)?;
    let spki = leaf.public_key().raw;
    PublicKey::from_spki(spki).map_err(|_| IdentityError::KeyType)?;
    check_usage(&leaf, wanted)?;
    let role = check_names(&leaf, root.cluster(), wanted)?;
    Ok(Leaf {
        role,
        serial: Serial(leaf.raw_serial().to_vec()),
        validity,
    })
}

/// When one certificate is valid.
pub(crate) fn validity(cert: &CertificateDer<'_>) -> Result<Validity, IdentityError> {
    parse(cert).map(|cert| Validity::of(&cert))
}

/// Checks that a certificate is an authority directly below the root.
pub(crate) fn check_issuing(cert: &CertificateDer<'_>, root: &ClusterRoot) -> Result<(), IdentityError> {
    let issuing = parse(cert)?;
    let root = parse(root.certificate())?;
    if !issuing.is_ca() {
        return Err(IdentityError::WrongUsage);
    }
    let signed = issuing.verify_signature(Some(root.public_key()));
    signed.map_err(|_| IdentityError::OtherCa)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(IdentityError::Malformed),
    }
}

fn check_path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    root: &ClusterRoot,
    wanted: Wanted,
    at: UnixTime,
) -> Result<(), IdentityError> {
    let usage = KeyUsage::required(match wanted {
        Wanted::Node | Wanted::User => CLIENT_AUTH,
        Wanted::Gateway => SERVER_AUTH,
    });
    let anchors = std::slice::from_ref(root.anchor());
    let path = EndEntityCert::try_from(leaf).and_then(|cert| {
        cert.verify_for_usage(ALGORITHMS, anchors, issuers, at.to_pki(), usage, None, None)
            .map(drop)
    });
    path.map_err(|error| match error {
        webpki::Error::CaUsedAsEndEntity => IdentityError::CaAsLeaf,
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => IdentityError::WrongUsage,
        webpki::Error::UnknownIssuer
        | webpki::Error::InvalidSignatureForPublicKey
        | webpki::Error::SignatureAlgorithmMismatch
        | webpki::Error::EndEntityUsedAsCa
        | webpki::Error::PathLenConstraintViolated
        | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
        | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => IdentityError::OtherCa,
        _ => IdentityError::Malformed,
    })
}

/// Exactly one usage: a certificate for both sides would let a stolen node play the gateway.
fn check_usage(leaf: &X509Certificate<'_>, wanted: Wanted) -> Result<(), IdentityError> {
    let usage = leaf.extended_key_usage().map_err(|_| IdentityError::Malformed)?;
    let usage = usage.ok_or(IdentityError::WrongUsage)?.value;
    let named = [
        usage.any,
        usage.code_signing,
        usage.email_protection,
        usage.time_stamping,
        usage.ocsp_signing,
        !usage.other.is_empty(),
    ];
    let sides = match wanted {
        Wanted::Node | Wanted::User => usage.client_auth && !usage.server_auth,
        Wanted::Gateway => usage.server_auth && !usage.client_auth,
    };
    if sides && !named.contains(&true) {
        Ok(())
    } else {
        Err(IdentityError::WrongUsage)
    }
}

fn check_names(leaf: &X509Certificate<'_>, cluster: ClusterId, wanted: Wanted) -> Result<Role, IdentityError> {
    for name in leaf.subject().iter_attributes() {
        check_characters(name.as_str().map_err(|_| IdentityError::Malformed)?)?;
    }
    let names = leaf.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names = names.map_or(&[][..], |n| n.value.general_names.as_slice());
    let mut uri = None;
    let mut others = false;
    for name in names {
        match name {
            GeneralName::URI(text) => {
                check_characters(text)?;
                if uri.replace(*text).is_some() {
                    return Err(IdentityError::TwoUris);
                }
            }
            GeneralName::DNSName(text) => {
                check_characters(text)?;
                others = true;
            }
            GeneralName::Invalid(..) => return Err(IdentityError::Malformed),
            _ => others = true,
        }
    }
    let uri = uri.ok_or(IdentityError::NoUri)?;
    if others && wanted != Wanted::Gateway {
        return Err(IdentityError::ExtraName);
    }
    let (of, role) = parse_uri(uri, wanted).ok_or(IdentityError::NotSpiffe)?;
    if of == cluster {
        Ok(role)
    } else {
        Err(IdentityError::OtherCluster)
    }
}

fn check_characters(name: &str) -> Result<(), IdentityError> {
    name.chars().try_for_each(|c| match c {
        '*' => Err(IdentityError::Wildcard),
        ',' => Err(IdentityError::Comma),
        '\0' => Err(IdentityError::Nul),
        _ => Ok(()),
    })
}

/// An id has one spelling, so a URI has one too: nothing is decoded, lowered or trimmed.
fn parse_uri(uri: &str, wanted: Wanted) -> Option<(ClusterId, Role)> {
    let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let role = match wanted {
        Wanted::Gateway => (path == "gateway").then_some(Role::Gateway),
        Wanted::Node => path.strip_prefix("node/")?.parse().ok().map(Role::Node),
        Wanted::User => path.strip_prefix("user/")?.parse().ok().map(Role::User),
    };
    Some((cluster.parse().ok()?, role?))
}
