//! The keys of an issuer: a JSON Web Key Set (RFC 7517 section 5).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use super::{
    TokenError,
    jwt::{Algorithm, Token},
};

/// How many keys are read of a set; issuers have a handful.
const MAX_KEYS: usize = 64;

/// A set of keys is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("it is no JSON Web Key Set")]
    Malformed,
    #[error("it holds none of: P-256 (ES256), Ed25519 (EdDSA), RSA of 2048 to 8192 bits (RS256)")]
    NoKey,
}

/// The keys that can be used. Others in the set are for other ends, and passed over (RFC 7517 section 5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    material: Material,
}

/// A key determines its algorithm: a token cannot choose another for it.
#[derive(Debug, PartialEq, Eq)]
enum Material {
    /// An uncompressed point (SEC 1 section 2.3.3).
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// Reads a set.
    pub(super) fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let set: RawSet = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<_> = set.keys.into_iter().take(MAX_KEYS).filter_map(Key::read).collect();
        if keys.is_empty() {
            Err(KeySetError::NoKey)
        } else {
            Ok(Self(keys))
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Checks a token's signature with the key that it names. One that names none must leave no choice.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), TokenError> {
        let fits = |key: &&Key| key.material.algorithm() == token.algorithm;
        let key = match &token.kid {
            Some(kid) => {
                let mut named = self.0.iter().filter(|key| key.kid.as_ref() == Some(kid)).peekable();
                named.peek().ok_or(TokenError::UnknownKey)?;
                named.find(fits).ok_or(TokenError::OtherAlgorithm)?
            }
            None => match self.0.iter().filter(fits).collect::<Vec<_>>()[..] {
                [only] => only,
                [] => return Err(TokenError::OtherAlgorithm),
                _ => return Err(TokenError::NoKeyId),
            },
        };
        key.material
            .verify(token.signed, &token.signature)
            .map_err(|_| TokenError::Signature)
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let raw: RawKey = serde_json::from_value(value).ok()?;
        let signs = raw.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && raw.key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let field = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let material = match (&*raw.kty, raw.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                let (x, y) = (field(raw.x)?, field(raw.y)?);
                let whole = x.len() == 32 && y.len() == 32;
                Material::P256(whole.then(|| [&[4], &x[..], &y[..]].concat())?)
            }
            ("OKP", Some("Ed25519")) => Material::Ed25519(field(raw.x).filter(|x| x.len() == 32)?),
            ("RSA", None) => {
                let (n, e) = (field(raw.n)?, field(raw.e)?);
                // The lengths that ring takes; the top bit need not be set.
                (256..=1024).contains(&n.len()).then_some(Material::Rsa { n, e })?
            }
            _ => return None,
        };
        let alg_fits = raw
            .alg
            .is_none_or(|alg| Algorithm::named(&alg) == Some(material.algorithm()));
        (signs && alg_fits).then_some(Self { kid: raw.kid, material })
    }
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::Rsa { .. } => Algorithm::Rs256,
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), ring::error::Unspecified> {
        match self {
            Self::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature),
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        }
    }
}
