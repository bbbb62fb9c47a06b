//! The certificate authority: a root that may lie in a safe, and an issuing authority below it that works every day.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
};
use ring::rand::SecureRandom as _;
use rustls_pki_types::CertificateDer;
use tunnel_model::{ClusterId, NodeId, NodeName, UserName};

use crate::{
    ClusterRoot, Credential, IdentityError, KeyError, PrivateKey, PublicKey, RootPin, UnixTime, UserId, Validity,
    chain::{self, Role},
};

/// How long a root is valid.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long an issuing authority is valid, and the gateway's certificate with it.
pub const ISSUING_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a node's certificate is valid.
pub const NODE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a user's certificate is valid unless it is to be less or more.
pub const USER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Certificates begin this long before they are made, for peers whose clock is a little behind.
const SKEW: Duration = Duration::from_secs(300);

/// A certificate could not be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The authority that signs is not valid now, so nothing that it signs would be.
    #[error("the authority is valid from {} to {}, and not now; set the clock, or rotate the issuing authority with the root key", .0.not_before, .0.not_after)]
    NotValidNow(Validity),
    /// The gateway's name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    BadName(String),
    /// Keys do not fit.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was to be loaded is not an authority of this cluster.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A time is beyond what a certificate can hold.
    #[error("the clock is beyond the year 9999; set it")]
    Time,
    /// The certificate could not be built or signed.
    #[error("the certificate could not be signed")]
    Sign,
}

impl From<rcgen::Error> for CaError {
    fn from(_: rcgen::Error) -> Self {
        Self::Sign
    }
}

/// The root with its private key. Needed to make an issuing authority, and for nothing else.
#[derive(Debug)]
pub struct Root {
    cert: ClusterRoot,
    key: PrivateKey,
}

impl Root {
    /// The root of a new cluster.
    pub fn create(cluster: ClusterId, now: UnixTime) -> Result<Self, CaError> {
        let key = PrivateKey::generate()?;
        let mut params = authority(format!("tunnel root {cluster}"), 1, lasting(now, ROOT_LIFETIME))?;
        params.subject_alt_names = vec![uri(format!("spiffe://{cluster}"))?];
        let cert = params.self_signed(key.pair())?;
        Self::new(ClusterRoot::from_der(cert.der().clone())?, key)
    }

    /// Puts a root certificate and its key together.
    pub(crate) fn new(cert: ClusterRoot, key: PrivateKey) -> Result<Self, CaError> {
        if cert.pin().matches(key.public()?.spki()) {
            Ok(Self { cert, key })
        } else {
            Err(KeyError::Mismatch.into())
        }
    }

    /// The certificate.
    pub fn certificate(&self) -> &ClusterRoot {
        &self.cert
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The chain of a new issuing authority with this key: its certificate, then the root's. Older ones stay valid until
    /// they expire, so that rotation disturbs no edge.
    pub fn sign_issuing(&self, key: &PublicKey, now: UnixTime) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let cert = self.certificate().certificate();
        let above = chain::validity(cert)?;
        if now < above.not_before || now >= above.not_after {
            return Err(CaError::NotValidNow(above));
        }
        let validity = lasting(now, ISSUING_LIFETIME).and(above);
        // No two authorities share a name: path building would have to try the keys of all that do.
        let name = format!("tunnel issuing {}", RootPin::of(key.spki()));
        let mut params = authority(name, 0, validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let issued = params.signed_by(key.for_signing(), &Issuer::from_ca_cert_der(cert, self.key.pair())?)?;
        Ok(vec![issued.der().clone(), cert.clone()])
    }
}

/// The issuing authority: signs for nodes, users and the gateway, below a root that need not be present.
#[derive(Debug)]
pub struct Authority {
    root: ClusterRoot,
    credential: Credential,
    validity: Validity,
}

impl Authority {
    /// An authority from what [`Root::sign_issuing`] gave for this key.
    pub fn new(credential: Credential) -> Result<Self, CaError> {
        let [issuing, root] = credential.chain() else {
            return Err(IdentityError::Malformed.into());
        };
        let root = ClusterRoot::from_der(root.clone())?;
        chain::check_issuing(issuing, &root)?;
        let validity = chain::validity(issuing)?;
        Ok(Self {
            root,
            credential,
            validity,
        })
    }

    /// The root above it.
    pub fn root(&self) -> &ClusterRoot {
        &self.root
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// When it is time to rotate it: after two thirds of its life, so that a month is left to fetch the root.
    pub fn rotate_at(&self) -> UnixTime {
        self.validity.not_after.minus(ISSUING_LIFETIME / 3)
    }

    /// A node's chain, leaf first, without the root. Valid for [`NODE_LIFETIME`], or to the authority's own end.
    ///
    /// The node's name stands in the subject for people who look; only the node id in the URI means something.
    pub fn issue_node(
        &self,
        key: &PublicKey,
        node: NodeId,
        name: &NodeName,
        now: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let mut params = self.leaf(name.as_str(), Role::Node(node), now, now.plus(NODE_LIFETIME))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.sign(&params, key)?;
        Ok(vec![leaf, self.issuing().clone()])
    }

    /// A user's chain, leaf first, without the root. Valid for `lifetime`, or to the authority's own end.
    ///
    /// As with nodes, the name is for people who look, and the id in the URI is what counts.
    pub fn issue_user(
        &self,
        key: &PublicKey,
        user: UserId,
        name: &UserName,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let mut params = self.leaf(name.as_str(), Role::User(user), now, now.plus(lifetime))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.sign(&params, key)?;
        Ok(vec![leaf, self.issuing().clone()])
    }

    /// The gateway's chain, leaf first, with the root at its end, so that an edge that knows only the root's hash can find
    /// it. `names` are DNS names and IP addresses, for clients that check them; edges check the cluster's URI instead.
    ///
    /// It is valid as long as the authority itself, whose key lies beside the gateway's. So no time that a gateway may
    /// have told under this authority ([`crate::Clock::learn`]) is past the end of a certificate made later.
    pub fn issue_gateway(
        &self,
        key: &PublicKey,
        names: &[String],
        now: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let mut params = self.leaf("tunnel gateway", Role::Gateway, now, self.validity.not_after)?;
        for name in names {
            let name = match name.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(dns_name(name)?),
            };
            params.subject_alt_names.push(name);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = self.sign(&params, key)?;
        Ok(vec![leaf, self.issuing().clone(), self.root.certificate().clone()])
    }

    fn issuing(&self) -> &CertificateDer<'static> {
        &self.credential.chain()[0]
    }

    fn leaf(&self, common_name: &str, role: Role, now: UnixTime, end: UnixTime) -> Result<CertificateParams, CaError> {
        if now < self.validity.not_before || now >= self.validity.not_after {
            return Err(CaError::NotValidNow(self.validity));
        }
        let validity = Validity {
            not_before: now.minus(SKEW).max(self.validity.not_before),
            not_after: end.min(self.validity.not_after),
        };
        let mut params = params(common_name.to_owned(), validity)?;
        params.subject_alt_names = vec![uri(role.uri(self.root.cluster()))?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params)
    }

    fn sign(&self, params: &CertificateParams, key: &PublicKey) -> Result<CertificateDer<'static>, CaError> {
        let issuer = Issuer::from_ca_cert_der(self.issuing(), self.credential.key().pair())?;
        Ok(params.signed_by(key.for_signing(), &issuer)?.der().clone())
    }
}

fn lasting(now: UnixTime, lifetime: Duration) -> Validity {
    Validity {
        not_before: now.minus(SKEW),
        not_after: now.plus(lifetime),
    }
}

fn params(common_name: String, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.to_offset().ok_or(CaError::Time)?;
    params.not_after = validity.not_after.to_offset().ok_or(CaError::Time)?;
    params.serial_number = Some(random_serial()?.into());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority(common_name: String, below: u8, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = params(common_name, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn uri(text: String) -> Result<SanType, CaError> {
    Ok(SanType::URI(text.try_into()?))
}

/// Names that a certificate may carry: DNS labels, no wildcard.
fn dns_name(name: &str) -> Result<rcgen::string::Ia5String, CaError> {
    let bad = || CaError::BadName(name.to_owned());
    rustls_pki_types::DnsName::try_from(name).map_err(|_| bad())?;
    name.to_owned().try_into().map_err(|_| bad())
}

/// 128 random bits, positive and never zero in DER (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<Vec<u8>, KeyError> {
    let mut serial = [0; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| KeyError::Provider)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, NOW};

    #[test]
    fn certificates_last_as_long_as_they_should() {
        let cluster = Cluster::new();
        let node = chain::validity(&cluster.node().0.chain()[0]).unwrap();
        assert_eq!(
            (node.not_before, node.not_after),
            (NOW.minus(SKEW), NOW.plus(NODE_LIFETIME))
        );
        let root = chain::validity(cluster.root.certificate().certificate()).unwrap();
        assert_eq!(root.not_after, NOW.plus(ROOT_LIFETIME));
        let gateway = chain::validity(&cluster.gateway().chain()[0]).unwrap();
        assert_eq!(gateway.not_after, cluster.authority.validity().not_after);
    }

    #[test]
    fn nothing_outlives_who_signed_it() {
        let cluster = Cluster::new();
        let key = PrivateKey::generate().unwrap().public().unwrap();
        let (node, name) = (NodeId::from_bytes([1; 16]), "edge1".parse().unwrap());
        let end = cluster.authority.validity().not_after;
        let late = end.minus(Duration::from_secs(3600));
        let chain = cluster.authority.issue_node(&key, node, &name, late).unwrap();
        assert_eq!(chain::validity(&chain[0]).unwrap().not_after, end);
        for outside in [end, NOW.minus(Duration::from_secs(3600))] {
            let refused = cluster.authority.issue_node(&key, node, &name, outside);
            assert_eq!(refused, Err(CaError::NotValidNow(cluster.authority.validity())));
        }
        let after_root = NOW.plus(ROOT_LIFETIME);
        assert!(cluster.root.sign_issuing(&key, after_root).is_err());
    }

    #[test]
    fn an_issuing_authority_of_another_root_is_not_taken() {
        let (ours, theirs) = (Cluster::new(), Cluster::new());
        let key = PrivateKey::generate().unwrap();
        let mut chain = theirs.root.sign_issuing(&key.public().unwrap(), NOW).unwrap();
        chain[1] = ours.root.certificate().certificate().clone();
        let authority = Authority::new(Credential::new(chain, key).unwrap());
        assert_eq!(authority.unwrap_err(), IdentityError::OtherCa.into());
    }

    #[test]
    fn a_gateway_gets_names_and_addresses_and_no_wildcard() {
        let cluster = Cluster::new();
        let key = PrivateKey::generate().unwrap().public().unwrap();
        let issue = |name: &str| cluster.authority.issue_gateway(&key, &[name.to_owned()], NOW);
        for good in ["gw.example.com", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(issue(good).unwrap().len(), 3, "{good}");
        }
        for bad in ["*.example.com", "a,b", "a b", "", "a\0b", "[::1]"] {
            assert_eq!(issue(bad), Err(CaError::BadName(bad.to_owned())));
        }
    }

    /// Before an address is validated a QUIC server may send three times what it got, 3,600 bytes (RFC 9000 section 8.1);
    /// about 1,000 of them go to the rest of the flight. A longer chain would cost each handshake a round trip.
    #[test]
    fn a_gateways_chain_fits_the_first_flight() {
        let chain = Cluster::new().gateway();
        let bytes: usize = chain.chain().iter().map(|cert| cert.len()).sum();
        assert!(bytes <= 2600, "{bytes} bytes");
    }

    /// R5
    #[test]
    fn a_clock_beyond_the_year_9999_is_an_error_and_no_panic() {
        let late = Root::create(ClusterId::from_bytes([1; 16]), UnixTime::from_secs(u64::MAX));
        assert_eq!(late.unwrap_err(), CaError::Time);
    }
}
