use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tunnel_e2e::{Nat, Need, Process, Site, require, run};

use crate::world::{Edge, SOON, World, stderr_of, stdout_of};

const TOKEN: &str = "a-bearer-token";
const VERSION: &str = "v1.33.1";
const PORT: u16 = 8443;

#[tokio::test]
async fn kubectl_reaches_an_api_server_behind_a_nat() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("kubectl"));
    let (world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link("20mbit,40ms,0.5%")).await?;
    let cluster = Cluster::start(&world, &edge)?;
    let version = cluster.kubectl(&world, TOKEN, &["version"]).await?;
    assert!(stdout_of(&version)?.contains(VERSION), "{version:?}");
    let raw = cluster
        .kubectl(&world, TOKEN, &["get", "--raw", "/api/v1/nodes"])
        .await?;
    let names = [FIRST.to_owned()];
    assert_eq!(serde_json::from_str::<Value>(&stdout_of(&raw)?)?, list(&names));
    let table = cluster.kubectl(&world, TOKEN, &["get", "nodes"]).await?;
    assert!(stdout_of(&table)?.contains(FIRST), "{table:?}");

    // It is the server's word that counts, behind a tunnel as anywhere.
    let refused = cluster.kubectl(&world, "another-token", &["get", "nodes"]).await?;
    assert!(
        !refused.status.success() && stderr_of(&refused).contains("must be logged in"),
        "{refused:?}"
    );
    Ok(())
}

/// The secret goes to the proxy within TLS. kubectl has one list of authorities, for the proxy and for what is behind it.
#[tokio::test]
async fn kubectl_reaches_an_api_server_by_the_proxy_within_tls() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("kubectl"));
    let (world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link("20mbit,40ms,0.5%")).await?;
    let mut cluster = Cluster::start(&world, &edge)?;
    cluster.scheme = "https";

    let own = cluster.authority.clone();
    cluster.authority += &fs::read_to_string(world.state().join("keys/root.crt"))?;
    let raw = cluster
        .kubectl(&world, TOKEN, &["get", "--raw", "/api/v1/nodes"])
        .await?;
    assert_eq!(
        serde_json::from_str::<Value>(&stdout_of(&raw)?)?,
        list(&[FIRST.to_owned()])
    );
    let table = cluster.kubectl(&world, TOKEN, &["get", "nodes"]).await?;
    assert!(stdout_of(&table)?.contains(FIRST), "{table:?}");

    // A proxy that nobody vouches for gets no secret.
    cluster.authority = own;
    let refused = cluster.kubectl(&world, TOKEN, &["get", "nodes"]).await?;
    assert!(
        !refused.status.success() && stderr_of(&refused).contains("certificate signed by unknown authority"),
        "{refused:?}"
    );
    Ok(())
}

/// The node that a cluster has from the beginning.
pub(crate) const FIRST: &str = "worker-1";

/// An API server behind an edge.
pub(crate) struct Cluster {
    /// The names of its nodes.
    nodes: watch::Sender<Vec<String>>,
    /// The certificate of the authority that its own is from, and others that kubectl is to believe.
    authority: String,
    /// How kubectl speaks to the proxy.
    scheme: &'static str,
}

impl Cluster {
    /// Starts the server on the machine of an edge.
    pub(crate) fn start(world: &World, edge: &Edge) -> anyhow::Result<Self> {
        let (tls, authority) = tls("edge1")?;
        let listener = world.lab.host(&edge.host).listen(PORT)?;
        let nodes = watch::Sender::new(vec![FIRST.to_owned()]);
        let api = api(nodes.subscribe());
        tokio::spawn(async move { axum::serve(TlsListener { listener, tls }, api).await });
        Ok(Self {
            nodes,
            authority,
            scheme: "http",
        })
    }

    /// One node more, which is told to whoever watches.
    pub(crate) fn add(&self, name: &str) {
        self.nodes.send_modify(|nodes| nodes.push(name.to_owned()));
    }

    /// `kubectl get nodes --watch`, which lists what there is and goes on with what comes.
    pub(crate) fn watch(&self, world: &World) -> anyhow::Result<Process> {
        let command = self.command(world, TOKEN, &["get", "nodes", "--watch"])?;
        Process::spawn("kubectl", command, world.logs())
    }

    async fn kubectl(&self, world: &World, token: &str, args: &[&str]) -> anyhow::Result<std::process::Output> {
        run(self.command(world, token, args)?, SOON).await
    }

    fn command(&self, world: &World, token: &str, args: &[&str]) -> anyhow::Result<Command> {
        let proxy = world.proxy_url(self.scheme);
        let mut command = world.client().command("kubectl");
        command
            .arg("--kubeconfig")
            .arg(kubeconfig(world, &proxy, &self.authority, token)?);
        command.arg("--cache-dir").arg(world.lab.dir().join("kube-cache"));
        command.args(args);
        Ok(command)
    }
}

/// As much of an API server as kubectl asks for.
fn api(nodes: watch::Receiver<Vec<String>>) -> Router {
    let versions = json!({ "kind": "APIVersions", "versions": ["v1"] });
    let groups = json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] });
    let resources = json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [
        { "name": "nodes", "singularName": "node", "namespaced": false, "kind": "Node",
          "verbs": ["get", "list", "watch"] },
    ]});
    let version = json!({ "major": "1", "minor": "33", "gitVersion": VERSION });
    let answer = |answer: Value| get(async move || Json(answer));
    Router::new()
        .route("/version", answer(version))
        .route("/api", answer(versions))
        .route("/apis", answer(groups))
        .route("/api/v1", answer(resources))
        .route("/api/v1/nodes", get(get_nodes))
        .with_state(nodes)
        .layer(middleware::from_fn(authenticate))
}

/// What the question for the nodes may say.
#[derive(Deserialize)]
struct Wanted {
    watch: Option<bool>,
    /// How many nodes whoever watches has seen.
    #[serde(rename = "resourceVersion")]
    seen: Option<usize>,
}

async fn get_nodes(State(nodes): State<watch::Receiver<Vec<String>>>, Query(wanted): Query<Wanted>) -> Response {
    if wanted.watch != Some(true) {
        return Json(list(&nodes.borrow())).into_response();
    }
    // One event in a line for each node that comes, for as long as there is a cluster.
    let events = stream::unfold((nodes, wanted.seen.unwrap_or(0)), async |(mut nodes, seen)| {
        let name = nodes.wait_for(|nodes| nodes.len() > seen).await.ok()?[seen].clone();
        let event = json!({ "type": "ADDED", "object": node(&name, seen + 1) });
        Some((Ok::<_, io::Error>(format!("{event}\n")), (nodes, seen + 1)))
    });
    let json = [(CONTENT_TYPE, "application/json")];
    (json, Body::from_stream(events)).into_response()
}

fn list(names: &[String]) -> Value {
    let items: Vec<_> = (1..).zip(names).map(|(version, name)| node(name, version)).collect();
    let metadata = json!({ "resourceVersion": names.len().to_string() });
    json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": items })
}

fn node(name: &str, version: usize) -> Value {
    let metadata = json!({ "name": name, "resourceVersion": version.to_string() });
    json!({ "kind": "Node", "apiVersion": "v1", "metadata": metadata })
}

async fn authenticate(request: Request, next: Next) -> Result<Response, StatusCode> {
    let wanted = format!("Bearer {TOKEN}");
    let shown = request.headers().get(AUTHORIZATION);
    if shown.is_some_and(|shown| *shown == wanted) {
        Ok(next.run(request).await)
    } else {
        Err(StatusCode::UNAUTHORIZED)
    }
}

/// A certificate for `name`, and the authority's for those who are to believe it.
pub(super) fn tls(name: &str) -> anyhow::Result<(TlsAcceptor, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    // With its authority's name, OpenSSL would take it for self-signed.
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, &authority)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())?;
    Ok((Arc::new(config).into(), authority.pem()))
}

pub(super) struct TlsListener {
    pub(super) listener: TcpListener,
    pub(super) tls: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, addr)) = self.listener.accept().await else {
                continue;
            };
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, addr);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn kubeconfig(world: &World, proxy: &str, authority: &str, token: &str) -> anyhow::Result<PathBuf> {
    let dir = world.lab.dir();
    let authority_path = dir.join("kube-ca.crt");
    fs::write(&authority_path, authority)?;
    let path = dir.join(format!("{token}.kubeconfig"));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "edge", "cluster": {
            "server": format!("https://edge1:{PORT}"),
            "proxy-url": proxy,
            "certificate-authority": authority_path,
        }}],
        "users": [{ "name": "user", "user": { "token": token } }],
        "contexts": [{ "name": "edge", "context": { "cluster": "edge", "user": "user" } }],
        "current-context": "edge",
    });
    // JSON is YAML.
    fs::write(&path, config.to_string())?;
    Ok(path)
}
