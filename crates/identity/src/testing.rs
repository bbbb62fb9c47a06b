//! A cluster for tests, and certificates that no honest authority would sign.

use rcgen::{CertificateParams, Issuer, SanType};
use rustls_pki_types::CertificateDer;
use tunnel_model::{ClusterId, NodeId};

use crate::{Authority, Credential, PrivateKey, Root, TimeFloor, USER_LIFETIME, UnixTime, UserId};

/// 2026-09-21.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);

pub(crate) const NODE: NodeId = NodeId::from_bytes([0x0d; 16]);

pub(crate) const USER: UserId = UserId::from_bytes([0xa1, 0, 0, 0, 0, 0, 0, 0x1c]);

pub(crate) struct Cluster {
    pub(crate) root: Root,
    pub(crate) authority: Authority,
    issuing: CertificateDer<'static>,
    issuing_key: PrivateKey,
}

impl Cluster {
    /// Two calls make two authorities of the same name.
    pub(crate) fn new() -> Self {
        let root = Root::create(CLUSTER, NOW).unwrap();
        let key = PrivateKey::generate().unwrap();
        let chain = root.sign_issuing(&key.public().unwrap(), NOW).unwrap();
        Self {
            root,
            issuing: chain[0].clone(),
            issuing_key: PrivateKey::from_pem(&key.to_pem()).unwrap(),
            authority: Authority::new(Credential::new(chain, key).unwrap()).unwrap(),
        }
    }

    /// An honest node.
    pub(crate) fn node(&self) -> (Credential, NodeId) {
        let key = PrivateKey::generate().unwrap();
        let name = "edge1".parse().unwrap();
        let chain = self
            .authority
            .issue_node(&key.public().unwrap(), NODE, &name, NOW)
            .unwrap();
        (Credential::new(chain, key).unwrap(), NODE)
    }

    /// An honest user.
    pub(crate) fn user(&self) -> Credential {
        let key = PrivateKey::generate().unwrap();
        let (public, name) = (key.public().unwrap(), "alice".parse().unwrap());
        let chain = self.authority.issue_user(&public, USER, &name, USER_LIFETIME, NOW);
        Credential::new(chain.unwrap(), key).unwrap()
    }

    /// An honest gateway.
    pub(crate) fn gateway(&self) -> Credential {
        let key = PrivateKey::generate().unwrap();
        let names = ["gw.example.com".to_owned()];
        let chain = self
            .authority
            .issue_gateway(&key.public().unwrap(), &names, NOW)
            .unwrap();
        Credential::new(chain, key).unwrap()
    }

    /// What the issuing key signs in the wrong hands: a node's certificate, changed.
    pub(crate) fn craft(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        self.craft_for(PrivateKey::generate().unwrap().public().unwrap().for_signing(), change)
    }

    pub(crate) fn craft_for(
        &self,
        key: &rcgen::SubjectPublicKeyInfo,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let issuer = Issuer::from_ca_cert_der(&self.issuing, self.issuing_key.pair()).unwrap();
        let mut params = node_params();
        change(&mut params);
        let leaf = params.signed_by(key, &issuer).unwrap();
        vec![leaf.der().clone(), self.issuing.clone()]
    }
}

/// The parameters of a good node certificate.
pub(crate) fn node_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = NOW.to_offset().unwrap();
    params.not_after = NOW.plus(crate::NODE_LIFETIME).to_offset().unwrap();
    params.subject_alt_names = vec![uri(&format!("spiffe://{CLUSTER}/node/{NODE}"))];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn floor() -> TimeFloor {
    TimeFloor::new(NOW, None)
}
