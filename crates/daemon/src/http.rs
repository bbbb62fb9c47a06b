//! The HTTP/1.1 server under the probes and the admin API: bounded in connections, strict about slow clients.

use std::io;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::accept::{Acceptor, Listener};

/// How long a client may take to send a request's head, and how long an idle connection is kept.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves connections, each with the service that `service_for` makes for it, until `stop`; then ends idle
/// connections, lets requests in progress finish and returns. Dropping the future cuts them.
///
/// # Errors
/// Where the listener is broken.
pub(crate) async fn serve<L, F, S, B>(
    mut acceptor: Acceptor<L>,
    mut service_for: F,
    stop: CancellationToken,
) -> io::Result<()>
where
    L: Listener<Io: AsyncRead + AsyncWrite + Unpin>,
    F: FnMut(&L::Io) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted?,
            // Ended connections are taken off the set as they end.
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let service = service_for(&accepted.io);
        let stop = stop.clone();
        connections.spawn(async move {
            let _permit = accepted.permit;
            serve_connection(accepted.io, service, stop).await;
        });
    }
    // New clients are refused while the last answers go out.
    drop(acceptor);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn serve_connection<I, S, B>(io: I, service: S, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "local HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_request_head_is_cut_after_ten_seconds() {
        let (mut client, _stop) = connected();
        let start = tokio::time::Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nslow: ").await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), HEAD_DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_at_once_when_the_server_stops() {
        let (mut client, stop) = connected();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let start = tokio::time::Instant::now();
        stop.cancel();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    fn connected() -> (DuplexStream, CancellationToken) {
        let (client, server) = tokio::io::duplex(4096);
        let stop = CancellationToken::new();
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new())));
        tokio::spawn(serve_connection(server, service, stop.clone()));
        (client, stop)
    }
}
