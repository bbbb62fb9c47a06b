//! One provider: its keys, kept fresh, and whom its tokens are about.

use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::Uri;
use rustls::ClientConfig;
use tokio::{
    io::AsyncReadExt,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tunnel_model::{Principal, UserName};

use super::{
    OidcMetrics, TokenError,
    config::{KeySource, OidcIssuer},
    fetch::{self, FetchError, MAX_SET},
    jwks::KeySet,
    jwt::{Claims, Token},
};

/// How often keys are fetched from the web.
const REFRESH: Duration = Duration::from_secs(600);

/// How soon after a fetch that failed, or that a token with an unknown key may cause, the next may follow.
const RETRY: Duration = Duration::from_secs(30);

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long a fetch may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// An issuer of tokens.
pub(super) struct Issuer {
    config: OidcIssuer,
    source: Source,
    metrics: OidcMetrics,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Grows with each change of the keys.
    generation: AtomicU64,
    /// When the keys were last asked for; held meanwhile, so that nobody asks twice.
    asked: Mutex<Option<Instant>>,
}

enum Source {
    File,
    Web { url: Uri, tls: Arc<ClientConfig> },
}

impl Issuer {
    pub(super) fn new(config: OidcIssuer, metrics: OidcMetrics) -> Result<Self, FetchError> {
        let source = match &config.jwks {
            KeySource::File(_) => Source::File,
            KeySource::Web(url) => Source::Web {
                url: url.parse()?,
                tls: fetch::client_config(config.ca.as_deref())?,
            },
        };
        Ok(Self {
            config,
            source,
            metrics,
            keys: RwLock::default(),
            generation: AtomicU64::new(0),
            asked: Mutex::default(),
        })
    }

    pub(super) fn config(&self) -> &OidcIssuer {
        &self.config
    }

    /// What its tokens say in `iss`.
    pub(super) fn name(&self) -> &str {
        &self.config.issuer
    }

    pub(super) fn audience(&self) -> &str {
        &self.config.audience
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys().is_some()
    }

    /// Differs before and after a change of the keys.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Checks a token's signature; with a key that is not known yet, after asking for new keys, unless that was done a
    /// moment ago. Says with which generation of keys.
    pub(super) async fn verify(&self, token: &Token<'_>) -> Result<u64, TokenError> {
        let checked = self.check(token);
        match checked {
            Err(TokenError::UnknownKey | TokenError::NoKeys) => {
                self.refresh(RETRY).await;
                self.check(token)
            }
            checked => checked,
        }
    }

    fn check(&self, token: &Token<'_>) -> Result<u64, TokenError> {
        let generation = self.generation();
        let keys = self.keys().ok_or(TokenError::NoKeys)?;
        keys.verify(token).map(|()| generation)
    }

    /// Whom claims are about. A name is taken as it is: folding or replacing characters would make one user of two.
    pub(super) fn principal(&self, claims: &Claims) -> Result<Principal, TokenError> {
        let OidcIssuer {
            username_claim,
            username_suffix,
            username_prefix,
            groups_claim,
            groups_prefix,
            ..
        } = &self.config;
        if username_claim == "email" && claims.has_unverified_email() {
            return Err(TokenError::Unverified);
        }
        let name = claims.text(username_claim).ok_or(TokenError::NoName)?;
        let name = match username_suffix {
            Some(suffix) => name.strip_suffix(suffix.as_str()).ok_or(TokenError::BadName)?,
            None => name,
        };
        // By itself, too: a prefix does not make a name of nothing.
        name.parse::<UserName>().map_err(|_| TokenError::BadName)?;
        let name = format!("{username_prefix}{name}")
            .parse()
            .map_err(|_| TokenError::BadName)?;
        let groups = groups_claim.iter().flat_map(|claim| claims.texts(claim));
        // What cannot be a group's name stands in no rule.
        let groups = groups.filter_map(|group| format!("{groups_prefix}{group}").parse().ok());
        Ok(Principal::user(name, groups.collect()))
    }

    /// Reads the keys and does so again for ever; `report` is called after each attempt.
    pub(super) async fn keep_fresh(&self, report: impl Fn()) {
        let mut seen = None;
        loop {
            match &self.config.jwks {
                KeySource::File(path) => {
                    let now = stamp(path).await;
                    if seen != Some(now) {
                        self.refresh(Duration::ZERO).await;
                        seen = Some(now);
                        report();
                    }
                    sleep(LOOK).await;
                }
                KeySource::Web(_) => {
                    let good = self.refresh(Duration::ZERO).await;
                    report();
                    sleep(if good { REFRESH } else { RETRY }).await;
                }
            }
        }
    }

    /// Asks for the keys, unless somebody did within `gap`. Where there is no good answer the old ones stay. Says whether
    /// there was one.
    pub(super) async fn refresh(&self, gap: Duration) -> bool {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < gap) {
            return false;
        }
        let answer = timeout(DEADLINE, self.fetch()).await;
        *asked = Some(Instant::now());
        let set = match answer {
            Ok(Ok(set)) => set,
            Ok(Err(error)) => return self.keep_old(&*error),
            Err(_) => return self.keep_old(&format!("no answer within {} s", DEADLINE.as_secs())),
        };
        self.metrics.refreshed(self.name(), "ok");
        self.metrics.has_keys(self.name(), set.len());
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.as_deref() != Some(&set) {
            tracing::info!(
                issuer = self.name(),
                keys = set.len(),
                "keys of an issuer of tokens read"
            );
            *keys = Some(Arc::new(set));
            self.generation.fetch_add(1, Ordering::Release);
        }
        true
    }

    fn keep_old(&self, error: &(impl std::fmt::Display + ?Sized)) -> bool {
        self.metrics.refreshed(self.name(), "failed");
        tracing::warn!(issuer = self.name(), %error, "the keys of an issuer of tokens cannot be read; the old ones stay");
        false
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let json = match (&self.source, &self.config.jwks) {
            (Source::Web { url, tls }, _) => fetch::get(url, tls).await?.to_vec(),
            (Source::File, KeySource::File(path)) => read(path).await?,
            (Source::File, KeySource::Web(_)) => return Err("a key set is either a file or a URL".into()),
        };
        Ok(KeySet::parse(&json)?)
    }

    fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What changes with a file; `None` while there is none.
async fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

async fn read(path: &Path) -> Result<Vec<u8>, FetchError> {
    let most = u64::try_from(MAX_SET).unwrap_or(u64::MAX);
    let mut json = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(most + 1).read_to_end(&mut json).await?;
    if json.len() > MAX_SET {
        return Err("the file is larger than 256 KiB".into());
    }
    Ok(json)
}
