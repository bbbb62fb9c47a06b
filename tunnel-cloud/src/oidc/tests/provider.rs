//! A provider of identities with a key of each kind, and the file with its set.

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::{ISSUER, NOW};
use crate::oidc::{
    Metrics, Oidc,
    config::{KeySource, OidcIssuer},
};

pub(super) struct Provider {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    pub(super) dir: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Provider {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let provider = Self {
            ec: ec_key(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            path: dir.path().join("jwks.json"),
            dir,
        };
        let named = |key: &EcdsaKeyPair, kid: &str, field: &str, value: &str| {
            let mut key = ec_jwk(key);
            key["kid"] = json!(kid);
            key[field] = json!(value);
            key
        };
        let x = URL_SAFE_NO_PAD.encode(provider.ed.public_key());
        let keys = [
            provider.jwk(),
            named(&ec_key(), "ec2", "use", "sig"),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x}),
            json!({"kty": "RSA", "kid": "rsa", "n": RSA_N, "e": "AQAB", "alg": "RS256", "use": "sig"}),
            // For other ends, or of no use: passed over.
            named(&provider.ec, "enc", "use", "enc"),
            named(&provider.ec, "es384", "alg", "ES384"),
            json!({"kty": "oct", "kid": "oct", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-256", "kid": "bad", "x": "AA", "y": "AA"}),
            json!("nothing"),
        ];
        fs::write(&provider.path, json!({"keys": keys}).to_string()).unwrap();
        provider
    }

    /// The public half of its first key.
    pub(super) fn jwk(&self) -> Value {
        ec_jwk(&self.ec)
    }

    /// The provider as the gateway knows it, with its keys to be read at the first token.
    pub(super) fn oidc(&self, change: impl FnOnce(&mut OidcIssuer)) -> Oidc {
        let mut config = OidcIssuer {
            issuer: ISSUER.to_owned(),
            audience: "tunnel".to_owned(),
            jwks: KeySource::File(self.path.clone()),
            ca: None,
            username_claim: "sub".to_owned(),
            username_suffix: None,
            username_prefix: "oidc-".to_owned(),
            groups_claim: None,
            groups_prefix: "oidc-".to_owned(),
        };
        change(&mut config);
        Oidc::new(&[config], &Metrics::new("test")).unwrap()
    }

    pub(super) fn token(&self, kid: &str, claims: &Value) -> String {
        let alg = if kid == "ed" { "EdDSA" } else { "ES256" };
        let header = json!({"alg": alg, "kid": kid, "typ": "JWT"});
        self.signed(kid, &header.to_string(), &claims.to_string())
    }

    /// A token with any header, signed with the key `ed` or else the first.
    pub(super) fn signed(&self, key: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = match key {
            "ed" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            _ => {
                let signature = self.ec.sign(&SystemRandom::new(), message.as_bytes());
                signature.unwrap().as_ref().to_vec()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn ec_key() -> EcdsaKeyPair {
    let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap()
}

fn ec_jwk(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let x = URL_SAFE_NO_PAD.encode(&point[1..33]);
    let y = URL_SAFE_NO_PAD.encode(&point[33..]);
    json!({"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": x, "y": y})
}

/// Claims in which everything is right.
pub(super) fn good() -> Value {
    json!({"iss": ISSUER, "aud": "tunnel", "exp": NOW.secs() + 3600, "nbf": NOW.secs(), "sub": "alice"})
}

pub(super) fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Of a key made with `openssl genrsa 2048`, whose private half was not kept.
const RSA_N: &str = "oTm-VYY2YteQiYZcekSIyJpovf8SFtIz8XWwfLfaOb3_DfRXfJV7Mn3lEtwIIM5Tp4EJGYBBhN-B5v2YE-FQMSTOWNp5rgoe6hAw\
     RTDNKs8iSCURpH6yCgiol-VznNkcGbmknwDbrAXmmAgL0L_vK2A2zjz5MKbym6QSjYkxGFvoW-wOAUoTRmuw45uT3S3grsDWZ5Q-\
     w1sG337mucO3iGcGC1K1bAc0kVxNG0dszOPl6eQd9EebJxrxUCI9t3tHZb4LyQFfbFdjy2fR2oF7D5U30TFs04FDI02HZOg-od7A\
     pWH7tXAzsr3rZg2Xpoh9tyu0C3GidpW-wk5Updo-ww";

/// Signed with it: as [`good`].
pub(super) const RS256_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoidHVubmVsIiwiZXh\
     wIjoxNzkwMDAzNjAwLCJzdWIiOiJhbGljZSJ9.SXLpwXsOXo_clDtCiQHmYGwsDbScHdT0iBS_V92nnRI_sHovoRX38Cn-MgTeHL\
     OywE1sGiskwN0zdZ5DYWm3_AzzbgtFW67SCPR5lKXqm9TWm8Db0SX77EoehWoxs0nYZsJ-zTnYoRT3ZAgh1nBG7gOvilrRr8C-37\
     MU4MiIl_JeZnMhT7WF1_kP1v3uJ-5YiECZniWz7ggyk4bDEa60ympvwYg3UCqE2dIW3WB48j7kluAtsJIjepmZigbRh9yb9nss28\
     4pDi0T0ypo1iQs39sJIPg_CQSQtZxSsArqx9UX_5Mkt_BvcJROtL331159oQzvpr1VhVqhd73KIsf-bA";
