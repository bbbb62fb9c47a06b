//! Errors on their way through the API: what the command prints and exits with is decided here.

use axum::{
    Json,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use tunnel_daemon::error::{CliError, ErrorBody, Exit};
use tunnel_model::{Reason, Refusal};

/// An error as the API answers it.
#[derive(Debug)]
pub struct ApiError(CliError);

/// What a request leads to.
pub(super) type Answer<T> = Result<Json<T>, ApiError>;

impl<E: Into<CliError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self.0.exit() {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::UnknownNode => StatusCode::NOT_FOUND,
            Exit::NodeOffline => StatusCode::SERVICE_UNAVAILABLE,
            Exit::Denied => StatusCode::FORBIDDEN,
            Exit::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Exit::Ok | Exit::Failure | Exit::Findings => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody::from(&self.0))).into_response()
    }
}

/// Reads the body of a request.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| bad_request(format!("the request cannot be read: {error}")))
}

/// A request that no gateway in whatever condition could grant.
pub(super) fn bad_request(message: impl Into<String>) -> ApiError {
    CliError::new(Exit::Usage, "bad-request", message).into()
}

/// What a command exits with when the tunnel refuses.
pub fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::UnknownNode => Exit::UnknownNode,
        Reason::NodeOffline | Reason::CarrierLost | Reason::Superseded | Reason::Revoked => Exit::NodeOffline,
        Reason::Denied | Reason::NotAllowed | Reason::Unauthenticated => Exit::Denied,
        Reason::TargetTimeout | Reason::IdleTimeout => Exit::Timeout,
        _ => Exit::Failure,
    }
}

/// The refusal of a tunnel, as a command's error.
pub(super) fn refused(refusal: &Refusal) -> CliError {
    CliError::new(
        exit_of(refusal.reason),
        refusal.reason.as_str(),
        refusal.message.clone(),
    )
}
