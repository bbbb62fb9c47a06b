use std::sync::Mutex;

use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tunnel_daemon::error::ErrorBody;
use tunnel_identity::{JoinToken, UnixTime};
use tunnel_model::Zone;

use super::*;
use crate::{
    state::{NewCluster, init},
    store::Enrolment,
};

#[tokio::test]
async fn a_created_token_is_what_the_edge_reads_and_the_store_keeps() {
    let gateway = Gateway::new().await;
    let made = gateway
        .ok(
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 60, "uses": 2, "labels": {"site": "hz"}}),
        )
        .await;
    let token: JoinToken = made["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.gateways()[0].to_string(), "gw.example.com:7000");
    assert_eq!(token.pin(), gateway.app.state.authority.root().pin());
    let kept = gateway.app.state.store.token(token.id()).await.unwrap().unwrap();
    assert_eq!(kept.key, token.secret().key());

    let listed = gateway.ok("GET", "/v1/tokens", Value::Null).await;
    assert_eq!(listed["tokens"][0]["state"], "valid");
    assert_eq!(listed["tokens"][0]["uses_left"], 2);
    assert_eq!(listed["tokens"][0]["labels"]["site"], "hz");
    assert!(!listed.to_string().contains(&made["token"].as_str().unwrap()[10..30]));

    gateway
        .ok("DELETE", &format!("/v1/tokens/{}", token.id()), Value::Null)
        .await;
    let listed = gateway.ok("GET", "/v1/tokens", Value::Null).await;
    assert_eq!(listed["tokens"][0]["state"], "revoked");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let gateway = Gateway::new().await;
    for (method, path, body, code) in [
        (
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 0, "uses": 1}),
            "bad-request",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 1e12, "uses": 1}),
            "bad-request",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 60, "uses": 0}),
            "bad-request",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 60, "uses": 2, "name": "a"}),
            "bad-request",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 60, "uses": 1, "name": "cloud"}),
            "bad-request",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({"ttl_seconds": 60, "uses": 1, "nmae": "a"}),
            "bad-request",
        ),
        ("POST", "/v1/tokens", json!("x"), "bad-request"),
        ("DELETE", "/v1/tokens/x", Value::Null, "bad-request"),
        (
            "DELETE",
            "/v1/tokens/00112233445566778899aabbccddeeff",
            Value::Null,
            "unknown-token",
        ),
        ("POST", "/v1/users", json!({"name": "../x"}), "bad-request"),
        ("DELETE", "/v1/users/nobody", Value::Null, "unknown-user"),
        ("DELETE", "/v1/users/..%2fx", Value::Null, "unknown-user"),
        ("POST", "/v1/backup", json!({"path": "relative"}), "bad-request"),
        ("GET", "/v2/tokens", Value::Null, "admin-unknown-request"),
    ] {
        let error = gateway.call(method, path, body.clone()).await.unwrap_err();
        assert_eq!(error.code(), code, "{method} {path} {body}: {error}");
    }
}

/// B13
#[tokio::test]
async fn an_unknown_node_is_named_with_the_one_that_may_be_meant() {
    let gateway = Gateway::new().await;
    gateway.join("edge-hangzhou").await;
    let error = gateway
        .call("GET", "/v1/nodes/edge-hangzho", Value::Null)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"error[unknown-node]: no node is named "edge-hangzho" (did you mean "edge-hangzhou"?)"#
    );
    assert_eq!(error.exit(), Exit::UnknownNode);
    for path in [
        "/v1/nodes/zzz",
        "/v1/nodes/..%2F..%2Fx",
        "/v1/nodes/%2e%2e",
        "/v1/nodes/Edge",
    ] {
        let error = gateway.call("DELETE", path, Value::Null).await.unwrap_err();
        assert_eq!(error.hint(), Some("`tunnel-cloud nodes ls` lists them"), "{path}");
    }
}

#[tokio::test]
async fn nodes_are_listed_labelled_and_shown() {
    let gateway = Gateway::new().await;
    gateway.join("b").await;
    let online = gateway.join("a").await;
    gateway.online(online);
    let list = gateway.ok("GET", "/v1/nodes", Value::Null).await;
    assert_eq!(list["nodes"][0]["name"], "a");
    assert_eq!(list["nodes"][0]["state"], "online");
    assert_eq!(list["nodes"][1]["state"], "offline");
    assert_eq!(list["nodes"][1]["reason"], Value::Null);

    let edit = json!({"set": [["site", "hz"], ["arch", "arm64"]], "remove": []});
    gateway.ok("PATCH", "/v1/nodes/a/labels", edit).await;
    let shown = gateway
        .ok("PATCH", "/v1/nodes/a/labels", json!({"remove": ["arch"]}))
        .await;
    assert_eq!(shown["labels"], json!({"site": "hz"}));
    assert_eq!(shown["certificates"][0]["serial"], "a0");
    let error = gateway
        .call("PATCH", "/v1/nodes/a/labels", json!({"set": [["A", "b"]]}))
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.exit()), ("bad-label", Exit::Usage));
}

/// T1
#[tokio::test]
async fn revoking_or_removing_a_node_cuts_its_session() {
    let gateway = Gateway::new().await;
    let (a, b) = (gateway.join("a").await, gateway.join("b").await);
    gateway.ok("POST", "/v1/nodes/a/revoke", Value::Null).await;
    assert!(gateway.app.state.directory.is_revoked(a));
    gateway.ok("DELETE", "/v1/nodes/b", Value::Null).await;
    assert!(gateway.app.state.directory.is_revoked(b));
    assert_eq!(
        *gateway.sessions.cut.lock().unwrap(),
        [(a, Reason::Revoked), (b, Reason::Revoked)]
    );

    let list = gateway.ok("GET", "/v1/nodes", Value::Null).await;
    assert_eq!(list["nodes"].as_array().unwrap().len(), 1);
    assert!(list["nodes"][0]["revoked_at"].is_string());
}

#[tokio::test]
async fn what_a_node_advertises_is_approved_listed_and_revoked() {
    let gateway = Gateway::new().await;
    let a = gateway.join("a").await;
    let stay = gateway.app.state.directory.online(a, String::new(), now()).unwrap();
    let offer = tunnel_model::Offer {
        services: Vec::new(),
        subnets: vec!["10.42.3.0/24".parse().unwrap()],
    };
    gateway.app.state.directory.declare(&stay, offer);
    let shown = gateway.ok("GET", "/v1/nodes/a", Value::Null).await;
    assert_eq!(shown["subnets"], json!(["10.42.3.0/24"]));
    let listed = gateway.ok("GET", "/v1/routes", Value::Null).await;
    assert_eq!(listed["routes"][0]["state"], "advertised");

    let route = json!({"node": "a", "subnet": "10.42.3.0/24"});
    let listed = gateway.ok("POST", "/v1/routes/approve", route.clone()).await;
    assert_eq!(listed["routes"][0]["state"], "approved");
    assert_eq!(listed["routes"][0]["ambiguous"], false);
    let listed = gateway.ok("POST", "/v1/routes/revoke", route.clone()).await;
    assert_eq!(listed["routes"][0]["approved_at"], Value::Null);
    for (path, body, code) in [
        ("revoke", route, "unknown-route"),
        (
            "approve",
            json!({"node": "a", "subnet": "10.0.0.0/8"}),
            "route-not-advertised",
        ),
        ("approve", json!({"node": "b", "subnet": "10.0.0.0/8"}), "unknown-node"),
        ("approve", json!({"node": "a", "subnet": "010.0.0.0/8"}), "bad-request"),
    ] {
        let error = gateway
            .call("POST", &format!("/v1/routes/{path}"), body)
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test]
async fn a_ping_answers_or_says_why_not() {
    let gateway = Gateway::new().await;
    let a = gateway.join("a").await;
    let ping = || gateway.call("POST", "/v1/nodes/a/ping", Value::Null);
    assert_eq!(ping().await.unwrap_err().exit(), Exit::NodeOffline);
    gateway.online(a);
    assert_eq!(ping().await.unwrap()["round_trip_ms"], 12.5);
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_nobody_answers_ends() {
    let gateway = Gateway::new().await;
    let silent = gateway.join("silent").await;
    gateway.online(silent);
    *gateway.sessions.silent.lock().unwrap() = true;
    let error = gateway
        .call("POST", "/v1/nodes/silent/ping", Value::Null)
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.exit()), ("ping-timeout", Exit::Timeout));
}

#[tokio::test]
async fn status_counts_and_a_gateway_that_does_not_run_says_so() {
    let mut gateway = Gateway::new().await;
    let online = gateway.join("a").await;
    gateway.online(online);
    gateway.join("b").await;
    gateway.join("c").await;
    gateway.ok("POST", "/v1/nodes/c/revoke", Value::Null).await;
    let status = gateway.ok("GET", "/v1/status", Value::Null).await;
    assert_eq!(status["nodes"], json!({"online": 1, "offline": 1, "revoked": 1}));
    assert_eq!(status["zone"], "tunnel");
    assert_eq!(status["listen"]["proxy"], "127.0.0.1:7080");

    gateway.app.sessions = None;
    for (method, path) in [("GET", "/v1/status"), ("POST", "/v1/nodes/a/ping")] {
        let error = gateway.call(method, path, Value::Null).await.unwrap_err();
        assert_eq!(error.code(), "gateway-not-running");
    }
}

#[tokio::test]
async fn a_user_is_made_listed_and_removed_and_the_secret_shown_once() {
    let gateway = Gateway::new().await;
    let made = gateway
        .ok("POST", "/v1/users", json!({"name": "alice", "groups": ["admins"]}))
        .await;
    let secret = made["secret"].as_str().unwrap();
    let users = gateway.ok("GET", "/v1/users", Value::Null).await;
    assert_eq!(users["users"][1]["name"], "alice");
    assert!(!users.to_string().contains(secret));
    let error = gateway
        .call("POST", "/v1/users", json!({"name": "alice"}))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "user-exists");
    gateway.ok("DELETE", "/v1/users/alice", Value::Null).await;
    assert_eq!(gateway.app.state.users.list().len(), 1);
}

#[tokio::test]
async fn a_forward_is_open_for_as_long_as_its_answer_is_read() {
    let gateway = Gateway::new().await;
    let wanted = json!({"listen": "127.0.0.1:5432", "node": "edge1", "target": "port:5432"});
    let request = Request::post("/v1/forwards")
        .body(Body::from(wanted.to_string()))
        .unwrap();
    let router = TowerToHyperService::new(router(gateway.app.clone()));
    let mut answer = router.call(request).await.unwrap().into_body();
    let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&first).unwrap(),
        json!({"listen": "127.0.0.1:5432"})
    );
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "\n");
    assert!(!gateway.sessions.closed.is_cancelled());
    drop(answer);
    gateway.sessions.closed.cancelled().await;
}

#[tokio::test]
async fn a_forward_that_others_reach_has_to_be_asked_for_in_so_many_words() {
    let gateway = Gateway::new().await;
    let wanted = json!({"listen": "0.0.0.0:5432", "node": "edge1", "target": "port:5432"});
    let error = gateway.call("POST", "/v1/forwards", wanted).await.unwrap_err();
    assert_eq!((error.code(), error.exit()), ("listen-not-local", Exit::Denied));
}

/// The API on a real state, with sessions that only take notes.
struct Gateway {
    _place: TempDir,
    app: AppState,
    sessions: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    cut: Mutex<Vec<(NodeId, Reason)>>,
    silent: Mutex<bool>,
    /// Cancelled when a forward was closed.
    closed: CancellationToken,
}

#[async_trait]
impl Sessions for Notes {
    async fn ping(&self, _: NodeId) -> Result<Duration, Refusal> {
        let silent = *self.silent.lock().unwrap();
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(Duration::from_micros(12_500))
    }

    fn carrier(&self, _: NodeId) -> Option<CarrierKind> {
        Some(CarrierKind::Quic)
    }

    fn disconnect(&self, node: NodeId, why: Reason) {
        self.cut.lock().unwrap().push((node, why));
    }

    fn forward(&self, wanted: &api::CreateForward) -> Result<OpenForward, CliError> {
        Ok(OpenForward {
            listen: wanted.listen,
            held: self.closed.clone().drop_guard(),
            ending: CancellationToken::new(),
        })
    }

    fn status(&self) -> api::GatewayStatus {
        api::GatewayStatus {
            started_at: UnixTime::from_secs(0).to_string(),
            listen: api::Listening {
                public: "0.0.0.0:7000".parse().unwrap(),
                proxy: "127.0.0.1:7080".parse().unwrap(),
                metrics: "127.0.0.1:7090".parse().unwrap(),
                sni: Vec::new(),
                http: Vec::new(),
                forwards: Vec::new(),
            },
            streams: 0,
        }
    }
}

impl Gateway {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let new = NewCluster {
            config: place.path().join("cloud.toml"),
            state: place.path().join("state"),
            public: "gw.example.com:7000".parse().unwrap(),
            proxy: "127.0.0.1:7080".parse().unwrap(),
            zone: Zone::default(),
        };
        init(&new, now()).await.unwrap();
        let config = Config::load(&new.config).unwrap();
        let state = State::open(&config).await.unwrap();
        let sessions = Arc::new(Notes::default());
        let app = AppState {
            config: Arc::new(config),
            state: Arc::new(state),
            sessions: Some(Arc::clone(&sessions) as Arc<dyn Sessions>),
            gateway: None,
            reloader: None,
        };
        Self {
            _place: place,
            app,
            sessions,
        }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Result<Value, CliError> {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let router = TowerToHyperService::new(router(self.app.clone()));
        let response = router.call(request).await.unwrap();
        let good = response.status().is_success();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if good {
            Ok(serde_json::from_slice(&body).unwrap())
        } else {
            Err(serde_json::from_slice::<ErrorBody>(&body).unwrap().into())
        }
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, path, body).await.unwrap()
    }

    /// A node of this name, with the first letter of it as its id and serial number.
    async fn join(&self, name: &str) -> NodeId {
        let made = self
            .ok("POST", "/v1/tokens", json!({"ttl_seconds": 60, "uses": 1}))
            .await;
        let token: JoinToken = made["token"].as_str().unwrap().parse().unwrap();
        let id = NodeId::from_bytes([name.as_bytes()[0]; 16]);
        let enrolment = Enrolment {
            token: token.id(),
            id,
            name: name.parse().unwrap(),
            services: Vec::new(),
            agent_version: String::new(),
            serial: format!("{}0", &name[..1]),
            not_after: now().secs() + 100,
            now: now().secs(),
        };
        self.app.state.directory.enrol(enrolment).await.unwrap();
        id
    }

    fn online(&self, node: NodeId) {
        self.app
            .state
            .directory
            .online(node, "0.1.0".to_owned(), now())
            .unwrap();
    }
}

fn now() -> UnixTime {
    UnixTime::from(std::time::SystemTime::now())
}
