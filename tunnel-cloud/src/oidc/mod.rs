//! Users whom an identity provider vouches for: bearer tokens that it signed (OpenID Connect, RFC 9068), checked here
//! against its published keys.
//!
//! The provider is never asked about a token: whatever is good by signature, audience and time is good until it ends.
//!
//! | module | what |
//! |---|---|
//! | `config` | the tables `oidc` of the configuration file |
//! | `jwt` | tokens, read |
//! | `jwks` | key sets, and signatures checked with them |
//! | `issuer` | one provider: its keys, kept fresh, and whom its tokens are about |
//! | `fetch` | key sets from the web |

pub mod config;
mod fetch;
mod issuer;
mod jwks;
mod jwt;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tunnel_daemon::{
    error::{CliError, Exit},
    metrics::Metrics,
    readiness::{Check, Readiness},
    shutdown::Tasks,
};
use tunnel_identity::UnixTime;
use tunnel_model::{Principal, UserName};

use self::{
    config::OidcIssuer,
    issuer::Issuer,
    jwt::{Claims, Token},
};

/// How many tokens are remembered as good, so that their next request costs one hash.
const REMEMBERED: usize = 4096;

/// Why a token was refused: for the log. Callers are told the same whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than any token needs to be.
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// It is no signed JSON Web Token.
    #[error("the token is malformed, or a claim that must be there is missing or of the wrong type")]
    Malformed,
    /// Its algorithm is none that is taken.
    #[error("the token's algorithm is none of ES256, EdDSA, RS256")]
    Algorithm,
    /// It has extensions that must be understood.
    #[error("the token has critical extensions, of which none is known here")]
    Critical,
    /// It is a token for something else.
    #[error("the token's type is neither JWT nor at+jwt")]
    Type,
    /// No configured issuer has its `iss`.
    #[error("the token's issuer is none of those in the configuration")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// There are no keys yet.
    #[error("the issuer's keys have not been read yet")]
    NoKeys,
    /// Its key is not in the issuer's set.
    #[error("the issuer's key set has no key with the token's key id")]
    UnknownKey,
    /// It names no key, and there are several.
    #[error("the token names no key, and the issuer has several")]
    NoKeyId,
    /// Its key is for another algorithm.
    #[error("the token's algorithm does not fit its key")]
    OtherAlgorithm,
    /// Its signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is past its end.
    #[error("the token has expired")]
    Expired,
    /// It is before its beginning.
    #[error("the token is not valid yet; check the clocks")]
    NotYetValid,
    /// It does not say who it is about.
    #[error("the token lacks the claim that names the user, or it is no text")]
    NoName,
    /// The name cannot be a user's.
    #[error("the token's user name does not end as configured, or is not made of a-z, 0-9 and inner hyphens")]
    BadName,
    /// The issuer did not check the address.
    #[error("the issuer has not verified the token's email address")]
    Unverified,
}

impl TokenError {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "token-too-long",
            Self::Malformed => "token-malformed",
            Self::Algorithm => "token-algorithm",
            Self::Critical => "token-critical",
            Self::Type => "token-type",
            Self::Issuer => "token-issuer",
            Self::Audience => "token-audience",
            Self::NoKeys => "token-no-keys",
            Self::UnknownKey => "token-unknown-key",
            Self::NoKeyId => "token-no-key-id",
            Self::OtherAlgorithm => "token-key-algorithm",
            Self::Signature => "token-signature",
            Self::Expired => "token-expired",
            Self::NotYetValid => "token-not-yet-valid",
            Self::NoName => "token-no-name",
            Self::BadName => "token-bad-name",
            Self::Unverified => "token-email-unverified",
        }
    }
}

/// All configured issuers.
pub struct Oidc {
    issuers: Vec<Arc<Issuer>>,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    metrics: OidcMetrics,
    /// Once there are issuers.
    check: Arc<OnceLock<Check>>,
    /// Cancelled when others take their place: the tasks that keep their keys fresh end then.
    replaced: CancellationToken,
}

/// A token that was found good.
struct Remembered {
    principal: Principal,
    /// When it has to be looked at again: to be told that it is over.
    expires: UnixTime,
    /// Whose it is, and with which of that issuer's key sets it was checked.
    issuer: usize,
    keys: u64,
}

impl Oidc {
    /// Prepares the issuers; none of their keys are there yet.
    pub fn new(issuers: &[OidcIssuer], metrics: &Metrics) -> Result<Self, CliError> {
        Self::none(OidcMetrics::new(metrics)).follow(issuers)
    }

    fn none(metrics: OidcMetrics) -> Self {
        Self {
            issuers: Vec::new(),
            remembered: Mutex::default(),
            metrics,
            check: Arc::default(),
            replaced: CancellationToken::new(),
        }
    }

    /// Prepares the issuers that are to take the place of these. One that stays the same has its keys at once.
    pub fn follow(&self, issuers: &[OidcIssuer]) -> Result<Self, CliError> {
        let issuers = issuers.iter().map(|config| {
            if let Some(known) = self.issuers.iter().find(|issuer| issuer.config() == config) {
                return Ok(Arc::clone(known));
            }
            let issuer = Issuer::new(config.clone(), self.metrics.clone()).map_err(|error| {
                let message = format!("the keys of {} cannot be fetched: {error}", config.issuer);
                CliError::new(Exit::Failure, "oidc-trust", message).with_hint("correct `ca` in the table `oidc`")
            });
            issuer.map(Arc::new)
        });
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            check: Arc::clone(&self.check),
            ..Self::none(self.metrics.clone())
        })
    }

    /// Reads every issuer's keys and keeps them fresh. As long as one has never given any, the gateway is not ready.
    pub fn start(self: &Arc<Self>, readiness: &Readiness, tasks: &Tasks) {
        if self.issuers.is_empty() {
            return self.check.get().map_or((), Check::ready);
        }
        let check = self.check.get_or_init(|| readiness.check("oidc"));
        self.report(check);
        for issuer in &self.issuers {
            let (all, issuer, check) = (Arc::clone(self), Arc::clone(issuer), check.clone());
            let replaced = self.replaced.clone();
            tasks.spawn_aside(async move {
                let kept = issuer.keep_fresh(|| all.report(&check));
                replaced.run_until_cancelled(kept).await;
            });
        }
    }

    fn report(&self, check: &Check) {
        match self.issuers.iter().find(|issuer| !issuer.has_keys()) {
            None => check.ready(),
            Some(without) => check.failed(format!("no keys of {} yet", without.name())),
        }
    }

    /// Ends what [`Self::start`] started, because others have taken their place.
    pub fn stop(&self) {
        self.replaced.cancel();
    }

    /// Whether a secret has a token's form. A user's secret never has.
    pub fn is_token(&self, secret: &str) -> bool {
        !self.issuers.is_empty() && jwt::looks_like(secret)
    }

    /// Whom a token is about that was checked before and is still good.
    pub fn remembered(&self, text: &str, now: UnixTime) -> Option<Principal> {
        let remembered = self.lock();
        let known = remembered.get(&digest(text))?;
        let current = now < known.expires && self.issuers[known.issuer].generation() == known.keys;
        current.then(|| known.principal.clone())
    }

    /// Whom a token is about.
    pub async fn verify(&self, text: &str, now: UnixTime) -> Result<Principal, TokenError> {
        let token = Token::parse(text)?;
        let claims = &token.claims;
        let at = self.issuer_of(claims)?;
        let issuer = &self.issuers[at];
        let keys = issuer.verify(&token).await?;
        claims.check_time(now.secs())?;
        let principal = issuer.principal(claims)?;
        let remember = Remembered {
            principal: principal.clone(),
            expires: claims.expires(),
            issuer: at,
            keys,
        };
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest(text), remember);
        Ok(principal)
    }

    /// Which of the configured issuers a token claims to be of.
    fn issuer_of(&self, claims: &Claims) -> Result<usize, TokenError> {
        let mut known = false;
        for (at, issuer) in self.issuers.iter().enumerate() {
            if issuer.name() == claims.issuer {
                known = true;
                if claims.is_for(issuer.audience()) {
                    return Ok(at);
                }
            }
        }
        Err(if known {
            TokenError::Audience
        } else {
            TokenError::Issuer
        })
    }

    /// Whether a name may be that of a user of one of the issuers.
    pub fn claims(&self, name: &UserName) -> bool {
        let mut issuers = self.issuers.iter().map(|issuer| issuer.config());
        issuers.any(|issuer| name.as_str().starts_with(&issuer.username_prefix))
    }

    /// Whether a name can be no local user's.
    pub fn reserves(&self, name: &UserName) -> bool {
        self.issuers
            .iter()
            .any(|issuer| Self::claims_name(std::slice::from_ref(issuer.config()), name))
    }

    /// Whether a local user of this name would be one with a user of an issuer.
    pub fn claims_name(issuers: &[OidcIssuer], name: &UserName) -> bool {
        let prefixes = issuers.iter().map(|issuer| issuer.username_prefix.as_str());
        prefixes
            .filter(|prefix| !prefix.is_empty())
            .any(|prefix| name.as_str().starts_with(prefix))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Remembered>> {
        // Each change is one step.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// What is counted about issuers; clones share it.
#[derive(Debug, Clone)]
struct OidcMetrics {
    refreshes: Family<RefreshLabels, Counter>,
    keys: Family<IssuerLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    issuer: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabel {
    issuer: String,
}

impl OidcMetrics {
    fn new(metrics: &Metrics) -> Self {
        Self {
            refreshes: metrics.register(
                "oidc_key_refreshes",
                "Attempts to read the keys of an issuer of tokens, by result",
                Family::default(),
            ),
            keys: metrics.register(
                "oidc_keys",
                "Keys of an issuer of tokens that are in use",
                Family::default(),
            ),
        }
    }

    fn refreshed(&self, issuer: &str, result: &'static str) {
        let issuer = issuer.to_owned();
        self.refreshes.get_or_create(&RefreshLabels { issuer, result }).inc();
    }

    fn has_keys(&self, issuer: &str, count: usize) {
        let issuer = issuer.to_owned();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.keys.get_or_create(&IssuerLabel { issuer }).set(count);
    }
}
