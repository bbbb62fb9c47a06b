//! Who a caller is, by whatever it shows: a secret, a certificate or a token.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use tunnel_identity::UnixTime;
use tunnel_ingress::Credential;
use tunnel_model::{Principal, Reason, Refusal};

use super::{Users, failures::Failures, wrong};
use crate::oidc::Oidc;

/// Everything that a credential may be checked against.
pub struct Authenticator {
    users: Arc<Users>,
    oidc: ArcSwap<Oidc>,
    failures: Failures,
}

impl Authenticator {
    /// Of the gateway's users, and those of its issuers of tokens.
    pub fn new(users: Arc<Users>, oidc: Arc<Oidc>) -> Self {
        Self {
            users,
            oidc: ArcSwap::new(oidc),
            failures: Failures::default(),
        }
    }

    /// The issuers whose tokens are taken.
    pub fn issuers(&self) -> Guard<Arc<Oidc>> {
        self.oidc.load()
    }

    /// Takes tokens of others from now on, and returns those before.
    pub fn replace_issuers(&self, oidc: Arc<Oidc>) -> Arc<Oidc> {
        self.oidc.swap(oidc)
    }

    /// Who shows this credential.
    ///
    /// An address with too many failures is refused with [`Reason::TooManyFailures`] for a while, whoever sits behind it;
    /// but a secret, a certificate or a token already known that is right gets in all the same: checking one costs a
    /// hash, and nobody guesses 256 bits.
    pub async fn authenticate(&self, credential: &Credential, client: SocketAddr) -> Result<Principal, Refusal> {
        let now = UnixTime::from(SystemTime::now());
        let token = match credential {
            Credential::Bearer { secret } => {
                let oidc = self.oidc.load_full();
                oidc.is_token(secret.expose()).then(|| (secret.expose(), oidc))
            }
            _ => None,
        };
        let known = match &token {
            Some((token, oidc)) => oidc.remembered(token, now),
            None => self.users.authenticate(credential, now).ok(),
        };
        if let Some(principal) = known {
            return Ok(principal.at(client.ip()));
        }
        if let Some(wait) = self.failures.wait(client.ip(), Instant::now()) {
            let message = format!(
                "too many wrong credentials came from {}; try again in {} s",
                client.ip().to_canonical(),
                wait.as_secs() + 1
            );
            return Err(Refusal::new(Reason::TooManyFailures, message));
        }
        if let Some((token, oidc)) = token {
            match oidc.verify(token, now).await {
                Ok(principal) => return Ok(principal.at(client.ip())),
                Err(error) => tracing::info!(%client, code = error.code(), %error, "a token was refused"),
            }
        }
        self.failures.add(client.ip(), Instant::now());
        Err(wrong())
    }
}
