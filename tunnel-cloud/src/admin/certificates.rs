//! Certificates of users.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::{CaError, KeyError, PublicKey, UnixTime, UserIdentity, encode_certs};
use tunnel_model::UserName;

use super::{
    AppState,
    api::{CertifyUser, UserCertificate},
    error::{Answer, ApiError, read},
    users::unknown_user,
};

pub(super) async fn issue(
    State(app): State<AppState>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<UserCertificate> {
    let CertifyUser { request, ttl_s } = read(&body)?;
    let user: UserName = name.parse().map_err(|_| unknown_user(&name))?;
    let id = app.state.users.id_of(&user).ok_or_else(|| unknown_user(&name))?;
    let request = STANDARD.decode(request).map_err(|_| bad_key(KeyError::BadRequest))?;
    let key = PublicKey::from_certificate_request(&request).map_err(bad_key)?;
    let (authority, now) = (&app.state.authority, UnixTime::from(SystemTime::now()));
    let chain = authority
        .issue_user(&key, id, &user, Duration::from_secs(ttl_s), now)
        .map_err(not_issued)?;
    let issued = UserIdentity::from_chain(&chain, authority.root(), now).map_err(|e| not_issued(e.into()))?;
    let expires_at = issued.validity.not_after.to_string();
    tracing::info!(%user, serial = %issued.serial, expires_at, "user certificate issued");
    Ok(Json(UserCertificate {
        user,
        certificate: encode_certs(&chain),
        root: encode_certs(&[authority.root().certificate().clone()]),
        expires_at,
    }))
}

fn bad_key(error: KeyError) -> ApiError {
    CliError::new(Exit::Usage, "certificate-request", error.to_string())
        .with_hint("`openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout KEY -out CSR` makes one")
        .into()
}

fn not_issued(error: CaError) -> ApiError {
    CliError::new(Exit::Failure, "certificate-not-issued", error.to_string()).into()
}
