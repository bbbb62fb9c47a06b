//! Tokens as they are shown: a JSON Web Token (RFC 7519) in compact serialisation (RFC 7515 section 3.1).
//!
//! Nothing here proves anything yet: what a token says counts once its signature was found good.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Map, Value};
use tunnel_identity::UnixTime;

use super::TokenError;

/// The longest token that is looked at, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// How far the clocks of issuer and gateway may differ, in seconds.
pub(super) const LEEWAY: f64 = 60.0;

/// The types that a bearer of identity may state (RFC 7519 section 5.1, RFC 9068 section 2.1). Others, such as logout
/// tokens, are signed with the same keys for other ends (RFC 8725 section 2.8).
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// The signature algorithms that are taken (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    EdDsa,
    Rs256,
}

impl Algorithm {
    /// The algorithm of this name; names are case-sensitive.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

/// A token, read.
pub(super) struct Token<'a> {
    /// What the signature covers.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) claims: Claims,
}

/// What a token says.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "iss")]
    pub(super) issuer: String,
    #[serde(rename = "aud")]
    audience: Audience,
    #[serde(rename = "exp")]
    expires: f64,
    #[serde(rename = "nbf")]
    not_before: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

/// Whether a text has a token's form: three parts in base64url with dots between.
pub(super) fn looks_like(text: &str) -> bool {
    let mut parts = 0;
    let formed = text.split('.').all(|part| {
        parts += 1;
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    formed && parts == 3
}

impl<'a> Token<'a> {
    /// Reads a token.
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = object(header)?;
        let algorithm = Algorithm::named(&header.alg).ok_or(TokenError::Algorithm)?;
        // Extensions that must be understood: none is (RFC 7515 section 4.1.11).
        if header.crit {
            return Err(TokenError::Critical);
        }
        if header
            .typ
            .is_some_and(|typ| !TYPES.contains(&&*typ.to_ascii_lowercase()))
        {
            return Err(TokenError::Type);
        }
        Ok(Self {
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            algorithm,
            kid: header.kid,
            claims: object(claims)?,
        })
    }
}

impl Claims {
    /// Whether the token is meant for this audience.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.audience {
            Audience::One(one) => one == audience,
            Audience::Several(all) => all.iter().any(|one| one == audience),
        }
    }

    /// Whether the token is good at this time, in seconds since 1970.
    pub(super) fn check_time(&self, now: u64) -> Result<(), TokenError> {
        // Exact for the next hundred million years.
        #[allow(clippy::cast_precision_loss)]
        let now = now as f64;
        if now >= self.expires + LEEWAY {
            Err(TokenError::Expired)
        } else if self.not_before.is_some_and(|start| now + LEEWAY < start) {
            Err(TokenError::NotYetValid)
        } else {
            Ok(())
        }
    }

    /// The end that it states, without the leeway; a token is looked at again from then on.
    pub(super) fn expires(&self) -> UnixTime {
        // Negative numbers become 0, large ones the largest.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        UnixTime::from_secs(self.expires as u64)
    }

    /// The text of a claim.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.others.get(claim)?.as_str()
    }

    /// The texts of a claim that is one text or a list of them.
    pub(super) fn texts(&self, claim: &str) -> Vec<&str> {
        match self.others.get(claim) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the issuer says of the address in `email` that it did not check it.
    pub(super) fn has_unverified_email(&self) -> bool {
        self.others
            .get("email_verified")
            .is_some_and(|v| v != &Value::Bool(true))
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(issuer {:?})", self.claims.issuer)
    }
}

/// A JSON object behind base64url. An array is none, though it could be read as the fields in their order.
fn object<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let json = decode(part)?;
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Malformed);
    }
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}
