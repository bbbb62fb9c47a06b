//! Forwards that last as long as the command that asks for them.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};
use tunnel_daemon::{
    error::{CliError, Exit},
    listen::require_local,
};

use super::{
    AppState,
    api::{CreateForward, ForwardOpened},
    error::{ApiError, read},
};

/// Between two signs of life, by which the end of a command is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A forward that is open. Dropping it closes the port and cuts what runs through it.
pub struct OpenForward {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Closes it.
    pub held: DropGuard,
    /// Cancelled when the gateway ends.
    pub ending: CancellationToken,
}

/// Opens a forward; it is open for as long as the answer is read.
pub(super) async fn open(State(app): State<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let wanted: CreateForward = read(&body)?;
    if !wanted.public {
        require_local(wanted.listen).map_err(|error| {
            CliError::new(Exit::Denied, "listen-not-local", error.to_string())
                .with_hint("use a loopback address, or add --public if everybody who reaches it may use it")
        })?;
    }
    let forward = app.sessions()?.forward(&wanted)?;
    let mut first = serde_json::to_vec(&ForwardOpened { listen: forward.listen })
        .map_err(|error| CliError::new(Exit::Failure, "internal", error.to_string()))?;
    first.push(b'\n');
    let mut signs = interval(SIGN_OF_LIFE);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Answer {
        first: Some(Bytes::from(first)),
        signs,
        forward,
    };
    let lines = stream::unfold(open, |mut open| async {
        let line = open.next().await?;
        Some((Ok::<_, Infallible>(line), open))
    });
    Ok(Body::from_stream(lines).into_response())
}

/// The answer as it goes on.
struct Answer {
    first: Option<Bytes>,
    signs: Interval,
    forward: OpenForward,
}

impl Answer {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        tokio::select! {
            _ = self.signs.tick() => Some(Bytes::from_static(b"\n")),
            () = self.forward.ending.cancelled() => None,
        }
    }
}
