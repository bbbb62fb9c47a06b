//! What the running agent answers its operator, over `agent.sock` in its state directory.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/connected` | the same, once the gateway has answered through the tunnel |
//! | `POST /v1/ping` | [`Pong`], after a round trip through the tunnel |
//! | `POST /v1/reload`, `POST /v1/reload/SECONDS` | [`Reloaded`](crate::reload::Reloaded); with a time to confirm it in |
//! | `POST /v1/confirm` | [`Configuration`](crate::reload::Configuration) |

use std::{convert::Infallible, io, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, http::HeaderValue, service::service_fn,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tunnel_daemon::{
    accept::Acceptor,
    admin::{AdminListener, serve},
    error::{CliError, ErrorBody, Exit},
};

use crate::{
    agent::{Agent, Status},
    fault::refused,
    reload::{LONGEST_TRIAL, Reloader},
};

/// A round trip.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Pong {
    /// From ping to pong, in milliseconds.
    pub rtt_ms: f64,
}

/// Serves the agent's operator until `stop`.
///
/// # Errors
/// Where the listener is broken.
pub async fn run(
    agent: Agent,
    reloader: Reloader,
    acceptor: Acceptor<AdminListener>,
    stop: CancellationToken,
) -> io::Result<()> {
    let stopping = stop.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (agent, reloader, stopping) = (agent.clone(), reloader.clone(), stopping.clone());
        async move {
            let answer = stopping.run_until_cancelled(answer(&agent, &reloader, &request)).await;
            Ok::<_, Infallible>(respond(answer.unwrap_or_else(|| Err(Box::new(stopped())))))
        }
    });
    serve(acceptor, service, stop).await
}

type Answer = Result<String, Box<CliError>>;

async fn answer(agent: &Agent, reloader: &Reloader, request: &Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => json(&status(agent, reloader).await),
        (&Method::GET, "/v1/connected") => {
            agent.connected().await;
            json(&status(agent, reloader).await)
        }
        (&Method::POST, "/v1/ping") => match agent.ping().await {
            Ok(rtt) => json(&Pong {
                rtt_ms: rtt.as_secs_f64() * 1000.0,
            }),
            Err(refusal) => Err(Box::new(refused("not-connected", &refusal))),
        },
        (&Method::POST, "/v1/reload") => json(&reloader.reload(None).await?),
        (&Method::POST, "/v1/confirm") => json(&reloader.confirm().await?),
        (method, path) => {
            if let (&Method::POST, Some(within)) = (method, path.strip_prefix("/v1/reload/").and_then(trial)) {
                return json(&reloader.reload(Some(within)).await?);
            }
            let message = format!("the agent knows no {method} {path}");
            Err(Box::new(
                CliError::new(Exit::Failure, "admin-unknown-request", message).with_hint("is it of another version?"),
            ))
        }
    }
}

async fn status(agent: &Agent, reloader: &Reloader) -> Status {
    Status {
        configuration: Some(reloader.configuration().await),
        ..agent.status()
    }
}

fn trial(seconds: &str) -> Option<Duration> {
    let seconds = seconds.parse().ok().map(Duration::from_secs)?;
    (seconds <= LONGEST_TRIAL).then_some(seconds)
}

fn json(answer: &impl Serialize) -> Answer {
    serde_json::to_string(answer)
        .map_err(|error| Box::new(CliError::new(Exit::Failure, "output-json", error.to_string())))
}

fn respond(answer: Answer) -> Response<String> {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let status = match error.code() {
                "admin-unknown-request" => StatusCode::NOT_FOUND,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, serde_json::json!(ErrorBody::from(error.as_ref())).to_string())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn stopped() -> CliError {
    CliError::new(Exit::Failure, "agent-stopping", "the agent is stopping")
}
