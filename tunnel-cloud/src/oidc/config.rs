//! The tables `oidc` of the configuration file.

use std::path::{Path, PathBuf};

use hyper::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tunnel_daemon::config::{ConfigError, Source};

/// The prefix of names and groups unless another is set: no user of the gateway is taken for one of an issuer.
const PREFIX: &str = "oidc-";

/// Claims that say something else.
const TAKEN: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// One table `oidc`: an identity provider whose tokens are taken.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawOidc {
    /// What tokens say in `iss`, to the letter
    pub issuer: String,
    /// What tokens must say in `aud`, to the letter
    pub audience: String,
    /// The issuer's key set (JWKS): a file, relative to this one, or an https:// URL
    pub jwks: String,
    /// The certificate authorities, PEM, by which the URL's server is known; the system's unless set
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The claim that names the user
    #[serde(default = "username_claim")]
    pub username_claim: String,
    /// What that claim must end with, such as @example.com; it is cut off
    #[serde(default)]
    pub username_suffix: Option<String>,
    /// What is put before the name, so that it is no local user's; empty makes them the same
    #[serde(default = "prefix")]
    pub username_prefix: String,
    /// The claim that lists the user's groups; none unless set
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// What is put before the groups, so that they are no local groups; empty makes them the same
    #[serde(default = "prefix")]
    pub groups_prefix: String,
}

fn username_claim() -> String {
    "sub".to_owned()
}

fn prefix() -> String {
    PREFIX.to_owned()
}

/// An identity provider whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OidcIssuer {
    /// What tokens say in `iss`.
    pub issuer: String,
    /// What tokens must say in `aud`.
    pub audience: String,
    /// Where its keys are.
    pub jwks: KeySource,
    /// The authorities by which the URL's server is known; the system's if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The claim that names the user.
    pub username_claim: String,
    /// What it must end with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_suffix: Option<String>,
    /// What is put before the name.
    pub username_prefix: String,
    /// The claim that lists groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// What is put before groups.
    pub groups_prefix: String,
}

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// On the web, by https.
    Web(String),
}

/// What the tables mean; relative paths start at `base`.
pub(crate) fn issuers(raw: Vec<RawOidc>, source: &Source, base: &Path) -> Result<Vec<OidcIssuer>, ConfigError> {
    let mut issuers: Vec<OidcIssuer> = Vec::with_capacity(raw.len());
    for (i, raw) in raw.into_iter().enumerate() {
        let invalid = |key: &str, reason: &str| source.invalid(&format!("oidc[{i}].{key}"), reason);
        let jwks = match raw.jwks.split_once("://") {
            None => KeySource::File(base.join(&raw.jwks)),
            Some(("https", _)) if is_web(&raw.jwks) => KeySource::Web(raw.jwks),
            Some(_) => {
                return Err(invalid(
                    "jwks",
                    "write a file, or a URL https://HOST/PATH without a password",
                ));
            }
        };
        if TAKEN.contains(&&*raw.username_claim) {
            return Err(invalid("username_claim", "this claim does not name a user"));
        }
        // Otherwise two people could have one name.
        let clashes = |other: &OidcIssuer| other.issuer != raw.issuer && other.username_prefix == raw.username_prefix;
        if issuers.iter().any(clashes) {
            let reason = "another issuer has this prefix too, and a user of one would pass for a user of the other";
            return Err(invalid("username_prefix", reason));
        }
        issuers.push(OidcIssuer {
            issuer: raw.issuer,
            audience: raw.audience,
            jwks,
            ca: raw.ca.map(|ca| base.join(ca)),
            username_claim: raw.username_claim,
            username_suffix: raw.username_suffix,
            username_prefix: raw.username_prefix,
            groups_claim: raw.groups_claim,
            groups_prefix: raw.groups_prefix,
        });
    }
    Ok(issuers)
}

fn is_web(url: &str) -> bool {
    let url: Option<Uri> = url.parse().ok();
    url.and_then(|url| url.into_parts().authority)
        .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
}
