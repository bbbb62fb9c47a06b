//! The admin socket: both ends over a real one.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tunnel_daemon::accept::{AcceptMetrics, Acceptor};
use tunnel_daemon::admin::{self, AdminListener, BindError, Peer, UnixClient};
use tunnel_daemon::error::{CliError, ErrorBody, Exit};
use tunnel_daemon::metrics::Metrics;

#[tokio::test]
async fn a_command_asks_the_daemon_which_knows_who_asks() {
    let server = Server::start();
    let answer: Value = server
        .client()
        .request(Method::POST, "/v1/echo", Some(&json!({"name": "alpha"})))
        .await
        .unwrap();
    let uid = fs::metadata(server.dir.path()).unwrap().uid();
    assert_eq!(
        answer,
        json!({"method": "POST", "body": {"name": "alpha"}, "uid": uid, "pid": std::process::id()})
    );
    let () = server.client().get("/v1/nothing").await.unwrap();
}

#[tokio::test]
async fn the_daemons_error_arrives_whole_with_its_exit_code() {
    let server = Server::start();
    let error = server.client().get::<Value>("/v1/fail").await.unwrap_err();
    assert_eq!(error, failure());
}

#[tokio::test]
async fn an_answer_that_is_no_error_and_no_json_is_named_as_such() {
    let server = Server::start();
    for path in ["/v1/garbage", "/v1/bare-failure"] {
        assert_eq!(
            server.client().get::<Value>(path).await.unwrap_err().code(),
            "admin-protocol",
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_does_not_answer_is_a_timeout() {
    let server = Server::start();
    let client = server.client().timeout(Duration::from_secs(3));
    let error = client.get::<Value>("/v1/never").await.unwrap_err();
    assert_eq!((error.exit(), error.code()), (Exit::Timeout, "admin-timeout"));
    assert_eq!(error.message(), "no answer from tunnel-test within 3 s");
}

#[tokio::test]
async fn a_missing_or_dead_socket_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let client = UnixClient::new(&path, "tunnel-test");
    let error = client.get::<Value>("/v1/status").await.unwrap_err();
    let expected = format!(
        "error[admin-no-socket]: there is no admin socket at {} (is tunnel-test running, and with this configuration?)",
        path.display()
    );
    assert_eq!(error.to_string(), expected);

    leave_stale(&path);
    let error = client.get::<Value>("/v1/status").await.unwrap_err();
    assert_eq!(error.code(), "admin-no-answer");
    assert_eq!(error.hint(), Some("tunnel-test has stopped; start it again"));
}

#[tokio::test]
async fn the_socket_is_private_and_goes_away_with_its_daemon() {
    let server = Server::start();
    let mode = fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = server.path();
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
    assert!(!path.exists());
    assert_eq!(fs::read_dir(server.dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    leave_stale(&path);
    let owner = AdminListener::bind(&path).unwrap();
    let error = AdminListener::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    drop(owner);
    AdminListener::bind(&path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    fs::write(&path, "precious").unwrap();
    let error = AdminListener::bind(&path).unwrap_err();
    assert_eq!(CliError::from(error).code(), "admin-not-a-socket");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_daemon_removes_only_its_own_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let first = AdminListener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = AdminListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn of_daemons_that_start_at_once_one_wins() {
    const DAEMONS: usize = 8;
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        leave_stale(&path);
        let together = Arc::new(Barrier::new(DAEMONS));
        let start = || {
            let (path, together) = (path.clone(), Arc::clone(&together));
            tokio::task::spawn_blocking(move || {
                together.wait();
                AdminListener::bind(path)
            })
        };
        let starts: Vec<_> = std::iter::repeat_with(start).take(DAEMONS).collect();
        let mut bound = Vec::new();
        for start in starts {
            bound.extend(start.await.unwrap().ok());
        }
        assert_eq!(bound.len(), 1);
        tokio::net::UnixStream::connect(&path).await.unwrap();
    }
}

struct Server {
    dir: TempDir,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = AdminListener::bind(dir.path().join("admin.sock")).unwrap();
        let acceptor = Acceptor::new(listener, 8, &AcceptMetrics::new(&Metrics::new("test")), "admin");
        let stop = CancellationToken::new();
        let task = tokio::spawn(admin::serve(acceptor, service_fn(answer), stop.clone()));
        Self { dir, stop, task }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    fn client(&self) -> UnixClient {
        UnixClient::new(self.path(), "tunnel-test")
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/v1/echo" => (200, echo(request).await.to_string()),
        "/v1/nothing" => (204, String::new()),
        "/v1/fail" => (503, json!(ErrorBody::from(&failure())).to_string()),
        "/v1/garbage" => (200, "<html>".to_owned()),
        "/v1/never" => std::future::pending().await,
        _ => (500, "oops".to_owned()),
    };
    Ok(Response::builder().status(status).body(body).unwrap())
}

async fn echo(request: Request<Incoming>) -> Value {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    let peer = parts.extensions.get::<Peer>().unwrap();
    json!({"method": parts.method.as_str(), "body": body, "uid": peer.uid, "pid": peer.pid})
}

fn failure() -> CliError {
    CliError::new(Exit::NodeOffline, "node-offline", "node alpha is offline").with_hint("wait for it")
}

/// A socket as a killed process leaves it.
/// Leaves a socket on which nobody answers. It never listens: a child that another test starts at this moment holds
/// a copy until it runs its program, and would keep a listening one answering.
fn leave_stale(path: &Path) {
    UnixSocket::new_stream().unwrap().bind(path).unwrap();
}
