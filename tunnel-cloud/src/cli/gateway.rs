//! Whom a command talks to: the running gateway, or in its absence the same API in the command's own process.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http_body_util::BodyExt;
use hyper::{Method, Request, service::Service};
use hyper_util::service::TowerToHyperService;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::Instant};
use tunnel_daemon::{
    admin::{Lines, UnixClient},
    error::{CliError, ErrorBody, Exit},
};

use crate::{
    admin::{self, AppState},
    config::Config,
    state::{OpenError, State},
    store::LockError,
};

/// How long to wait for another process that works on the state: another command, or a gateway that is about to start
/// or stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to look meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// How long the gateway may take to answer: a backup of a large store is the longest.
const ANSWER: Duration = Duration::from_secs(60);

/// Where requests go.
pub(super) enum Gateway {
    /// A gateway answers on its socket.
    Running(UnixClient),
    /// None does, and the state is ours for now.
    Absent(Router),
}

impl Gateway {
    /// Finds the gateway of this configuration.
    pub(super) async fn find(config: Config) -> Result<Self, CliError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&config.admin).await {
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                // It is there; what else may be wrong with it shows at the request.
                _ => {
                    let client = UnixClient::new(&config.admin, "tunnel-cloud");
                    return Ok(Self::Running(client.timeout(ANSWER)));
                }
            }
            match State::open(&config).await {
                Ok(state) => {
                    let app = AppState {
                        config: Arc::new(config),
                        state: Arc::new(state),
                        sessions: None,
                        gateway: None,
                        reloader: None,
                    };
                    return Ok(Self::Absent(admin::router(app)));
                }
                Err(OpenError::Lock(LockError::Held(_))) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes a request without a body.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.request(Method::GET, path, None::<&()>).await
    }

    /// Makes a request whose answer goes on; only a running gateway gives one.
    pub(super) async fn follow<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Lines, CliError> {
        match self {
            Self::Running(client) => client.follow(method, path, body).await,
            Self::Absent(_) => Err(admin::not_running()),
        }
    }

    /// Makes a request and reads the answer.
    pub(super) async fn request<B, T>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T, CliError>
    where
        B: Serialize,
        T: DeserializeOwned,
    {
        match self {
            Self::Running(client) => client.request(method, path, body).await,
            Self::Absent(router) => call(router.clone(), method, path, body).await,
        }
    }
}

async fn call<B, T>(router: Router, method: Method, path: &str, body: Option<&B>) -> Result<T, CliError>
where
    B: Serialize,
    T: DeserializeOwned,
{
    let body = body.map(serde_json::to_vec).transpose().map_err(mistake)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body.unwrap_or_default()))
        .map_err(mistake)?;
    let response = match TowerToHyperService::new(router).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let good = response.status().is_success();
    let answer = response.into_body().collect().await.map_err(mistake)?.to_bytes();
    if good {
        return serde_json::from_slice(&answer).map_err(mistake);
    }
    let error: ErrorBody = serde_json::from_slice(&answer).map_err(mistake)?;
    Err(error.into())
}

/// Both ends are this very program.
fn mistake(error: impl std::fmt::Display) -> CliError {
    CliError::new(
        Exit::Failure,
        "internal",
        format!("the command does not understand itself: {error}"),
    )
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    name.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B13
    #[test]
    fn no_name_leaves_its_place_in_the_path() {
        assert_eq!(segment("edge-1"), "edge-1");
        assert_eq!(segment("../x?y#z%"), "%2E%2E%2Fx%3Fy%23z%25");
        assert_eq!(segment("é"), "%C3%A9");
    }
}
