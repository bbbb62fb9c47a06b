use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tunnel_e2e::{Nat, Need, Site, require, run};

use crate::world::{SOON, World, stderr_of, stdout_of};

const TOKEN: &str = "a-bearer-token";
const VERSION: &str = "v1.33.1";

#[tokio::test]
async fn kubectl_reaches_an_api_server_behind_a_nat() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("kubectl"));
    let (world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link("20mbit,40ms,0.5%")).await?;
    let (tls, authority) = tls("edge1")?;
    let listener = world.lab.host(&edge.host).listen(8443)?;
    tokio::spawn(async move { axum::serve(TlsListener { listener, tls }, api()).await });

    let proxy = world.proxy_url("http");
    let kubeconfig = kubeconfig(&world, &proxy, &authority, TOKEN)?;
    let version = kubectl(&world, &kubeconfig, &["version"]).await?;
    assert!(stdout_of(&version)?.contains(VERSION), "{version:?}");
    let raw = kubectl(&world, &kubeconfig, &["get", "--raw", "/api/v1/nodes"]).await?;
    assert_eq!(serde_json::from_str::<Value>(&stdout_of(&raw)?)?, nodes());
    let table = kubectl(&world, &kubeconfig, &["get", "nodes"]).await?;
    assert!(stdout_of(&table)?.contains("worker-1"), "{table:?}");

    // It is the server's word that counts, behind a tunnel as anywhere.
    let stranger = self::kubeconfig(&world, &proxy, &authority, "another-token")?;
    let refused = kubectl(&world, &stranger, &["get", "nodes"]).await?;
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
    let (tls, authority) = tls("edge1")?;
    let listener = world.lab.host(&edge.host).listen(8443)?;
    tokio::spawn(async move { axum::serve(TlsListener { listener, tls }, api()).await });

    let proxy = world.proxy_url("https");
    let both = authority.clone() + &fs::read_to_string(world.state().join("keys/root.crt"))?;
    let trusting = kubeconfig(&world, &proxy, &both, TOKEN)?;
    let raw = kubectl(&world, &trusting, &["get", "--raw", "/api/v1/nodes"]).await?;
    assert_eq!(serde_json::from_str::<Value>(&stdout_of(&raw)?)?, nodes());
    let table = kubectl(&world, &trusting, &["get", "nodes"]).await?;
    assert!(stdout_of(&table)?.contains("worker-1"), "{table:?}");

    // A proxy that nobody vouches for gets no secret.
    let doubting = kubeconfig(&world, &proxy, &authority, TOKEN)?;
    let refused = kubectl(&world, &doubting, &["get", "nodes"]).await?;
    assert!(
        !refused.status.success() && stderr_of(&refused).contains("certificate signed by unknown authority"),
        "{refused:?}"
    );
    Ok(())
}

/// As much of an API server as kubectl asks for.
fn api() -> Router {
    let versions = json!({ "kind": "APIVersions", "versions": ["v1"] });
    let groups = json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] });
    let resources = json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [
        { "name": "nodes", "singularName": "node", "namespaced": false, "kind": "Node", "verbs": ["get", "list"] },
    ]});
    let version = json!({ "major": "1", "minor": "33", "gitVersion": VERSION });
    let answer = |answer: Value| get(async move || Json(answer));
    Router::new()
        .route("/version", answer(version))
        .route("/api", answer(versions))
        .route("/apis", answer(groups))
        .route("/api/v1", answer(resources))
        .route("/api/v1/nodes", answer(nodes()))
        .layer(middleware::from_fn(authenticate))
}

fn nodes() -> Value {
    json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [
        { "kind": "Node", "apiVersion": "v1", "metadata": { "name": "worker-1" } },
    ]})
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
            "server": "https://edge1:8443",
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

async fn kubectl(world: &World, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<std::process::Output> {
    let mut command = world.client().command("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig);
    command.arg("--cache-dir").arg(world.lab.dir().join("kube-cache"));
    command.args(args);
    run(command, SOON).await
}
