//! `/metrics`, `/livez` and `/readyz` for whoever watches the process.
//!
//! The listener asks for no credential, so its address must have passed [`crate::listen::require_local`].

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::accept::{Acceptor, Listener};
use crate::http;
use crate::metrics::{self, Metrics};
use crate::readiness::Readiness;

/// What the probes look at.
#[derive(Clone)]
pub struct Probes {
    /// Answered by `/metrics`.
    pub metrics: Metrics,
    /// Answered by `/readyz`: 200 or 503, and each check as JSON.
    pub readiness: Readiness,
    /// Answered by `/livez`: 200 or 503. False means that only a restart helps.
    pub live: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

impl Probes {
    /// Serves the probes until `stop`.
    ///
    /// # Errors
    /// Where the listener is broken.
    pub async fn serve<L>(self, acceptor: Acceptor<L>, stop: CancellationToken) -> io::Result<()>
    where
        L: Listener<Io: AsyncRead + AsyncWrite + Unpin>,
    {
        let service_for = |_: &L::Io| {
            let probes = self.clone();
            service_fn(move |request| {
                let answer = probes.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            })
        };
        http::serve(acceptor, service_for, stop).await
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => match self.metrics.encode() {
                Ok(text) => respond(StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            },
            "/livez" if (self.live)() => respond(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/livez" => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "stuck\n".to_owned()),
            "/readyz" => {
                let report = self.readiness.report();
                let status = if report.ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                respond(status, JSON, serde_json::json!(report).to_string())
            }
            _ => respond(
                StatusCode::NOT_FOUND,
                TEXT,
                "try /metrics, /livez or /readyz\n".to_owned(),
            ),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::accept::AcceptMetrics;

    #[tokio::test]
    async fn readyz_follows_the_checks_and_names_each() {
        let (addr, probes, _stop) = served().await;
        let tunnel = probes.readiness.check("tunnel");
        tunnel.failed("no echo");
        let answer = get(addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains(r#""name":"tunnel""#) && answer.contains(r#""reason":"no echo""#),
            "{answer}"
        );
        tunnel.ready();
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn livez_asks_the_process_each_time() {
        let live = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&live);
        let (addr, _probes, _stop) = served_with(Arc::new(move || asked.load(Ordering::Relaxed))).await;
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200 "));
        live.store(false, Ordering::Relaxed);
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 503 "));
    }

    #[tokio::test]
    async fn metrics_are_served_and_other_paths_and_methods_are_not() {
        let (addr, _probes, _stop) = served().await;
        let answer = get(addr, "/metrics").await;
        assert!(
            answer.contains("test_open_connections{listener=\"probes\"} 1"),
            "{answer}"
        );
        assert!(get(addr, "/").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(addr, "POST", "/metrics").await.starts_with("HTTP/1.1 405 "));
    }

    #[tokio::test]
    async fn the_server_stops_when_told() {
        let (addr, _probes, stop) = served().await;
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200 "));
        stop.token.cancel();
        stop.server.await.unwrap().unwrap();
        TcpStream::connect(addr).await.unwrap_err();
    }

    struct Running {
        token: CancellationToken,
        server: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn served() -> (SocketAddr, Probes, Running) {
        served_with(Arc::new(|| true)).await
    }

    async fn served_with(live: Arc<dyn Fn() -> bool + Send + Sync>) -> (SocketAddr, Probes, Running) {
        let probes = Probes {
            metrics: Metrics::new("test"),
            readiness: Readiness::new(),
            live,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener, 8, &AcceptMetrics::new(&probes.metrics), "probes");
        let token = CancellationToken::new();
        let server = tokio::spawn(probes.clone().serve(acceptor, token.clone()));
        (addr, probes, Running { token, server })
    }

    async fn get(addr: SocketAddr, path: &str) -> String {
        ask(addr, "GET", path).await
    }

    async fn ask(addr: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
