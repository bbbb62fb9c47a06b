//! Join tokens.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::{JoinToken, UnixTime};
use tunnel_model::{ReservedName, TokenId};

use super::{
    AppState,
    api::{CreateToken, Done, NewToken, TokenList, TokenState, TokenView},
    error::{Answer, bad_request, read},
};
use crate::store::{Token, TokenFault};

/// The longest that a token may be good for: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) async fn create(State(app): State<AppState>, body: Bytes) -> Answer<NewToken> {
    let wanted: CreateToken = read(&body)?;
    if !(1..=LONGEST.as_secs()).contains(&wanted.ttl_seconds) {
        return Err(bad_request("a token is good for one second to 366 days"));
    }
    if wanted.uses == 0 {
        return Err(bad_request("a token with no uses lets nobody join"));
    }
    if let Some(name) = wanted.name.as_ref().filter(|name| name.is_reserved()) {
        return Err(bad_request(ReservedName(name.clone()).to_string()));
    }
    if wanted.name.is_some() && wanted.uses > 1 {
        return Err(bad_request(
            "a token for one name lets one node join: only one has that name",
        ));
    }
    let now = UnixTime::from(SystemTime::now());
    let expires = now.plus(Duration::from_secs(wanted.ttl_seconds));
    let pin = app.state.authority.root().pin();
    let advertise = app.config.gateway.advertise.clone();
    let token = JoinToken::generate(pin, advertise, &mut rand::rng()).ok_or_else(|| {
        CliError::new(
            Exit::Failure,
            "token-addresses",
            "a token carries 1 to 8 gateway addresses",
        )
        .with_hint("correct `gateway.advertise` in the configuration")
    })?;
    let kept = Token {
        id: token.id(),
        key: token.secret().key(),
        name: wanted.name,
        labels: wanted.labels,
        created_at: now.secs(),
        expires_at: expires.secs(),
        uses_left: wanted.uses,
        revoked_at: None,
    };
    app.state.store.add_token(kept).await?;
    tracing::info!(id = %token.id(), %expires, "token created");
    Ok(Json(NewToken {
        id: token.id(),
        token: token.to_string(),
        expires_at: expires.to_string(),
    }))
}

pub(super) async fn list(State(app): State<AppState>) -> Answer<TokenList> {
    let now = UnixTime::from(SystemTime::now());
    let tokens = app.state.store.tokens().await?;
    Ok(Json(TokenList {
        tokens: tokens.into_iter().map(|token| view(token, now)).collect(),
    }))
}

pub(super) async fn revoke(State(app): State<AppState>, Path(id): Path<String>) -> Answer<Done> {
    let id: TokenId = id
        .parse()
        .map_err(|_| bad_request("a token's id is 32 lower-case hexadecimal digits"))?;
    let now = UnixTime::from(SystemTime::now());
    if !app.state.store.revoke_token(id, now.secs()).await? {
        return Err(
            CliError::new(Exit::Failure, "unknown-token", format!("there is no token {id}"))
                .with_hint("`tunnel-cloud token ls` lists them")
                .into(),
        );
    }
    tracing::info!(%id, "token revoked");
    Ok(Json(Done {}))
}

fn view(token: Token, now: UnixTime) -> TokenView {
    TokenView {
        id: token.id,
        state: match token.check(now.secs()) {
            Ok(()) => TokenState::Valid,
            Err(TokenFault::Spent) => TokenState::Spent,
            Err(TokenFault::Expired) => TokenState::Expired,
            Err(TokenFault::Revoked | TokenFault::Unknown) => TokenState::Revoked,
        },
        name: token.name,
        labels: token.labels,
        uses_left: token.uses_left,
        created_at: UnixTime::from_secs(token.created_at).to_string(),
        expires_at: UnixTime::from_secs(token.expires_at).to_string(),
    }
}
