//! Private keys and what goes with them.

use std::fmt;

use rcgen::{KeyPair, PublicKeyData as _};
use ring::hmac;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};
use zeroize::{Zeroize as _, Zeroizing};

/// A key could not be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness, or the provider failed.
    #[error("the crypto provider failed")]
    Provider,
    /// The text is not a PKCS#8 private key.
    #[error("not a private key in PKCS#8 PEM form")]
    Malformed,
    /// Neither P-256 nor Ed25519.
    #[error("keys are P-256 or Ed25519, this one is something else")]
    KeyType,
    /// The certificate was made for another key.
    #[error("the certificate does not belong to the private key")]
    Mismatch,
    /// A request for a certificate is damaged, or not signed by the key that it names.
    #[error("the certificate request is damaged or not signed by its own key")]
    BadRequest,
}

/// A private key: P-256 when made here, P-256 or Ed25519 when read. Wiped from memory when dropped, never shown.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate().map(Self).map_err(|_| KeyError::Provider)
    }

    /// Reads PKCS#8 in PEM form.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = Self(KeyPair::from_pem(text).map_err(|_| KeyError::Malformed)?);
        key.public().map(|_| key)
    }

    /// PKCS#8 in PEM form, for a file that only its owner reads.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The public half.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_spki(&self.0.subject_public_key_info())
    }

    /// A certificate request (PKCS#10, RFC 2986) in DER form. It proves possession of the key and names nothing: names
    /// are the gateway's to give.
    pub fn certificate_request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(|_| KeyError::Provider)?;
        Ok(request.der().to_vec())
    }

    /// A secret for another use, the same for as long as the key is: HMAC-SHA256 of the label, keyed with the private key.
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.serialized_der());
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&key, label).as_ref());
        secret
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A P-256 or Ed25519 public key, as SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    parsed: rcgen::SubjectPublicKeyInfo,
}

impl PublicKey {
    /// Reads SubjectPublicKeyInfo in DER form.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let parsed = rcgen::SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::KeyType)?;
        let allowed = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519];
        if !allowed.contains(&parsed.algorithm()) {
            return Err(KeyError::KeyType);
        }
        Ok(Self {
            spki: der.to_vec(),
            parsed,
        })
    }

    /// The key in a certificate request, once the request's own signature is found good. Its names are ignored.
    pub fn from_certificate_request(der: &[u8]) -> Result<Self, KeyError> {
        match X509CertificationRequest::from_der(der) {
            Ok(([], request)) => {
                let key = Self::from_spki(request.certification_request_info.subject_pki.raw)?;
                request.verify_signature().map_err(|_| KeyError::BadRequest)?;
                Ok(key)
            }
            _ => Err(KeyError::BadRequest),
        }
    }

    /// The key of a certificate, whoever signed that.
    pub(crate) fn from_certificate(der: &[u8]) -> Result<Self, KeyError> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| KeyError::Malformed)?;
        Self::from_spki(cert.public_key().raw)
    }

    /// SubjectPublicKeyInfo in DER form.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn for_signing(&self) -> &rcgen::SubjectPublicKeyInfo {
        &self.parsed
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.spki);
        f.write_str("PublicKey(")?;
        digest.as_ref()[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// A certificate chain, leaf first, and the private key of the leaf.
#[derive(Debug)]
pub struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
}

impl Credential {
    /// Puts both together; refuses a chain whose leaf is for another key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, KeyError> {
        let leaf = chain.first().ok_or(KeyError::Mismatch)?;
        if PublicKey::from_certificate(leaf)? == key.public()? {
            Ok(Self { chain, key })
        } else {
            Err(KeyError::Mismatch)
        }
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    pub(crate) fn for_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.to_rustls())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_shows_nothing() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
    }

    #[test]
    fn a_changed_or_cut_request_proves_no_other_key() {
        let key = PrivateKey::generate().unwrap();
        let request = key.certificate_request().unwrap();
        assert_eq!(PublicKey::from_certificate_request(&request), key.public());
        // The name of the signature's algorithm and the head of its bit string are not signed, and read leniently; they
        // are all that may differ.
        let signed = request.windows(4).position(|w| w == [0xa0, 0, 0x30, 0x0a]).unwrap() + 2;
        let unsigned = signed..signed + 15;
        for at in 0..request.len() {
            let mut changed = request.clone();
            changed[at] ^= 1;
            match PublicKey::from_certificate_request(&changed) {
                Ok(read) => assert!(unsigned.contains(&at) && Ok(read) == key.public(), "byte {at}"),
                Err(error) => assert!(matches!(error, KeyError::BadRequest | KeyError::KeyType)),
            }
            assert!(
                PublicKey::from_certificate_request(&request[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_p384_key_is_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(
            PublicKey::from_spki(&key.subject_public_key_info()),
            Err(KeyError::KeyType)
        );
        assert_eq!(
            PrivateKey::from_pem(&key.serialize_pem()).unwrap_err(),
            KeyError::KeyType
        );
    }

    #[test]
    fn what_is_derived_lasts_as_long_as_the_key_and_differs_by_label() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.derive(b"a"), again.derive(b"a"));
        assert_ne!(key.derive(b"a"), key.derive(b"b"));
        assert_ne!(key.derive(b"a"), PrivateKey::generate().unwrap().derive(b"a"));
    }
}
