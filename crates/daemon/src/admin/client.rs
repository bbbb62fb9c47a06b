//! The command's end of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::lines::Lines;
use crate::error::{CliError, ErrorBody, Exit};

/// How long a request may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read: far above a list of 100,000 nodes, and below what would hurt a small machine.
const ANSWER_LIMIT: usize = 128 << 20;

type SendRequest = http1::SendRequest<Full<Bytes>>;

/// What moves the bytes of a request and its answer.
pub(super) type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// Makes requests to a daemon on this machine, each on a connection of its own.
#[derive(Clone, Debug)]
pub struct UnixClient {
    path: PathBuf,
    daemon: &'static str,
    timeout: Duration,
}

impl UnixClient {
    /// A client of the daemon (`tunnel-cloud`, `tunnel-edge`: errors call it so) that serves the socket at `path`.
    pub fn new(path: impl Into<PathBuf>, daemon: &'static str) -> Self {
        Self {
            path: path.into(),
            daemon,
            timeout: TIMEOUT,
        }
    }

    /// Sets how long a request may take, from connecting to the last byte of the answer; 10 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a request, with `body` as JSON where there is one, and reads the answer as JSON; an empty answer reads
    /// as `null`, that is `()`.
    ///
    /// # Errors
    /// The daemon's own error, as it sent it. Or one of: `admin-no-socket`, `admin-no-answer` (is the daemon
    /// running?), `admin-denied` (exit 5), `admin-timeout` (exit 6), `admin-protocol`.
    pub async fn request<B, T>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T, CliError>
    where
        B: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let request = self.prepare(method, path, body)?;
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timed_out()),
        }
    }

    /// A request without a body.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.request(Method::GET, path, None::<&()>).await
    }

    /// Makes a request whose answer is read line by line, for as long as it goes on. The time that requests may take is
    /// that until the answer begins.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn follow<B>(&self, method: Method, path: &str, body: Option<&B>) -> Result<Lines, CliError>
    where
        B: Serialize + ?Sized,
    {
        let request = self.prepare(method, path, body)?;
        let begun = async {
            let (mut sender, connection) = self.connect().await?;
            let mut connection = Box::pin(connection);
            let mut answer = std::pin::pin!(sender.send_request(request));
            let answer = tokio::select! {
                answer = &mut answer => answer,
                _ = &mut connection => answer.await,
            };
            let response = answer.map_err(|error| self.protocol(&error))?;
            let status = response.status();
            if status.is_success() {
                return Ok(Lines::new(self.clone(), response.into_body(), connection));
            }
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect();
            let mut body = std::pin::pin!(body);
            let body = tokio::select! {
                body = &mut body => body,
                _ = &mut connection => body.await,
            };
            let body = body.map_err(|error| self.protocol(&error))?.to_bytes();
            Err(self.refusal(status, &body))
        };
        match tokio::time::timeout(self.timeout, begun).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timed_out()),
        }
    }

    fn prepare<B>(&self, method: Method, path: &str, body: Option<&B>) -> Result<Request<Full<Bytes>>, CliError>
    where
        B: Serialize + ?Sized,
    {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| self.protocol(&error))?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| self.protocol(&error))
    }

    async fn connect(&self) -> Result<(SendRequest, Connection), CliError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.unreachable(&error))?;
        http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.protocol(&error))
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, CliError> {
        let (mut sender, connection) = self.connect().await?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| self.protocol(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| self.protocol(&error))?.to_bytes();
            Ok::<_, CliError>((status, body))
        };
        // The connection moves the bytes that the answer waits for. Its own error, if any, reaches the answer too.
        let mut answer = std::pin::pin!(answer);
        let (status, body) = tokio::select! {
            outcome = &mut answer => outcome?,
            _ = connection => answer.await?,
        };
        self.read(status, &body)
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, CliError> {
        if status.is_success() {
            let json: &[u8] = if body.is_empty() { b"null" } else { body };
            return serde_json::from_slice(json).map_err(|error| self.protocol(&error));
        }
        Err(self.refusal(status, body))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> CliError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(error) => error.into(),
            Err(_) => self.protocol(&format_args!("status {status} without an explanation")),
        }
    }

    fn unreachable(&self, error: &io::Error) -> CliError {
        let (path, daemon) = (self.path.display(), self.daemon);
        match error.kind() {
            io::ErrorKind::NotFound => CliError::new(
                Exit::Failure,
                "admin-no-socket",
                format!("there is no admin socket at {path}"),
            )
            .with_hint(format!("is {daemon} running, and with this configuration?")),
            io::ErrorKind::ConnectionRefused => {
                CliError::new(Exit::Failure, "admin-no-answer", format!("nobody answers at {path}"))
                    .with_hint(format!("{daemon} has stopped; start it again"))
            }
            io::ErrorKind::PermissionDenied => {
                CliError::new(Exit::Denied, "admin-denied", format!("this user may not open {path}"))
                    .with_hint(format!("run as root, or as the user that {daemon} runs as"))
            }
            _ => CliError::new(
                Exit::Failure,
                "admin-connect",
                format!("cannot connect to {path}: {error}"),
            )
            .with_hint(format!("is {daemon} running?")),
        }
    }

    fn timed_out(&self) -> CliError {
        self.silent(self.timeout)
    }

    pub(super) fn silent(&self, time: Duration) -> CliError {
        let message = format!("no answer from {} within {} s", self.daemon, time.as_secs_f32());
        CliError::new(Exit::Timeout, "admin-timeout", message).with_hint("its log may say what it is busy with")
    }

    pub(super) fn protocol(&self, error: &dyn std::fmt::Display) -> CliError {
        let message = format!("{} did not answer as expected: {error}", self.daemon);
        CliError::new(Exit::Failure, "admin-protocol", message).with_hint("are daemon and command of the same version?")
    }
}
