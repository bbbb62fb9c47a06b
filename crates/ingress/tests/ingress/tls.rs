//! The proxy port within TLS, and client certificates.

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tunnel_identity::{GatewayFiles, PrivateKey, UnixTime, UserId, encode_certs};
use tunnel_ingress::Tls;
use tunnel_model::{ClusterId, NodeId};

use crate::{
    caller::in_time,
    clients::curl,
    proxy::{ALICE, BOB, Proxy},
};

#[tokio::test]
async fn curl_reaches_a_target_through_an_https_proxy() {
    let cluster = Cluster::new();
    let proxy = cluster.proxy().await;
    proxy.node("edge1").await.answer_all();
    let https = format!("https://{}", proxy.addr);
    let (root, user, node) = (cluster.path("root"), cluster.user(), cluster.node());
    let trust = ["--proxy", &https, "--proxy-cacert", &root];
    let certificate = ["--proxy-cert", &user.0, "--proxy-key", &user.1];
    for (args, who) in [
        (&["--proxy-user", "alice:secret"][..], "user:alice"),
        (&certificate, "user:certified"),
        (&[&certificate[..], &["--proxytunnel"]].concat(), "user:certified"),
        // What the request shows counts more than the connection's certificate.
        (
            &[&certificate[..], &["--proxy-user", "alice:secret"]].concat(),
            "user:alice",
        ),
    ] {
        let args = [&trust, args, &["http://edge1.edge.test/path"]].concat();
        let Some((code, text)) = curl(&args).await else { return };
        assert!(
            code == 0 && text.contains("GET /path HTTP/1.1"),
            "{args:?}: {code} {text}"
        );
        assert_eq!(proxy.dials().last().unwrap().principal.to_string(), who);
    }
    let dials = proxy.dials().len();
    for (args, says) in [
        (&[][..], "HTTP/1.1 407"),
        // A wrong credential is not made up for by the certificate.
        (
            &[&certificate[..], &["--proxy-user", "alice:wrong"]].concat(),
            "HTTP/1.1 407",
        ),
        // B10: a node's certificate is no user's.
        (&["--proxy-cert", &node.0, "--proxy-key", &node.1], "alert"),
    ] {
        let args = [&trust, args, &["http://edge1.edge.test/path"]].concat();
        let Some((_, text)) = curl(&args).await else { return };
        assert!(text.contains(says), "{args:?}: {text}");
    }
    assert_eq!(proxy.dials().len(), dials);
}

#[tokio::test]
async fn each_direction_ends_on_its_own_within_tls() {
    let (_cluster, proxy, mut caller) = connected().await;
    let target = proxy.node("edge1").await;
    open(&mut caller, ALICE).await;
    let mut end = target.accept().await;
    caller.write_all(b"question").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(end.until_end().await.unwrap(), b"question");
    end.send("answer").await;
    drop(end);
    let mut answer = Vec::new();
    in_time(caller.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
}

/// N9: within TLS a cut is neither `close_notify` nor an end of the connection below.
#[tokio::test]
async fn n9_a_target_that_breaks_resets_a_caller_within_tls() {
    let (_cluster, proxy, mut caller) = connected().await;
    let target = proxy.node("edge1").await;
    open(&mut caller, ALICE).await;
    let mut end = target.accept().await;
    end.send("half of it").await;
    let mut half = [0; 4];
    in_time(caller.read_exact(&mut half)).await.unwrap();
    end.reset();
    let error = in_time(caller.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// N9: a caller's connection that ends below TLS was cut, however orderly the FIN.
#[tokio::test]
async fn n9_an_end_without_close_notify_resets_the_target() {
    let (_cluster, proxy, mut caller) = connected().await;
    let target = proxy.node("edge1").await;
    open(&mut caller, BOB).await;
    let mut end = target.accept().await;
    caller.write_all(b"half of it").await.unwrap();
    assert_eq!(end.exactly(4).await.unwrap(), b"half");
    let (mut tcp, _) = caller.into_inner();
    tcp.shutdown().await.unwrap();
    end.assert_reset().await;
}

/// N9: a caller that resets is noticed while its target takes nothing.
#[tokio::test]
async fn a_caller_within_tls_that_breaks_resets_the_target() {
    let (_cluster, proxy, mut caller) = connected().await;
    let target = proxy.node("edge1").await;
    open(&mut caller, ALICE).await;
    let mut end = target.accept().await;
    caller.write_all(b"x").await.unwrap();
    assert_eq!(end.exactly(1).await.unwrap(), b"x");
    let (tcp, _) = caller.into_inner();
    tcp.set_zero_linger().unwrap();
    drop(tcp);
    end.assert_reset().await;
}

#[tokio::test]
async fn a_large_body_passes_tls_in_both_directions() {
    let (_cluster, proxy, mut caller) = connected().await;
    let target = proxy.node("edge1").await;
    open(&mut caller, ALICE).await;
    let mut end = target.accept().await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(caller);
    let mut back = vec![0; sent.len()];
    let echo = async {
        let got = end.exactly(sent.len()).await.unwrap();
        end.send(got).await;
    };
    let upload = async {
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
    };
    in_time(async { tokio::join!(echo, upload, async { read.read_exact(&mut back).await.unwrap() }) }).await;
    assert!(back == sent);
}

#[tokio::test]
async fn a_gateway_without_tls_answers_a_handshake_with_a_refusal() {
    let proxy = Proxy::start().await;
    let mut caller = proxy.caller().await;
    caller.send([0x16, 3, 1, 0, 1, 0]).await;
    caller.half_close().await;
    assert_eq!(caller.message().await.unwrap().status(), 400);
}

/// A cluster's keys, and files with what callers need of them.
struct Cluster {
    dir: tempfile::TempDir,
    files: GatewayFiles,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1".to_owned()];
        let cluster = ClusterId::from_bytes([7; 16]);
        let files = GatewayFiles::init(&dir.path().join("keys"), cluster, &names, now()).unwrap();
        let authority = files.authority().unwrap();
        let root = [authority.root().certificate().clone()];
        fs::write(dir.path().join("root"), encode_certs(&root)).unwrap();
        Self { dir, files }
    }

    async fn proxy(&self) -> Proxy {
        let authority = self.files.authority().unwrap();
        Proxy::with_tls(Tls::new(&self.files.gateway().unwrap(), authority.root()).unwrap()).await
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The files of a user's certificate and key.
    fn user(&self) -> (String, String) {
        let (id, day) = (UserId::from_bytes([1; 8]), Duration::from_secs(24 * 3600));
        self.credential("user", |authority, key| {
            authority.issue_user(key, id, &"alice".parse().unwrap(), day, now())
        })
    }

    fn node(&self) -> (String, String) {
        let id = NodeId::from_bytes([1; 16]);
        self.credential("node", |authority, key| {
            authority.issue_node(key, id, &"edge1".parse().unwrap(), now())
        })
    }

    fn credential(
        &self,
        name: &str,
        issue: impl FnOnce(
            &tunnel_identity::Authority,
            &tunnel_identity::PublicKey,
        ) -> Result<Vec<CertificateDer<'static>>, tunnel_identity::CaError>,
    ) -> (String, String) {
        let key = PrivateKey::generate().unwrap();
        let chain = issue(&self.files.authority().unwrap(), &key.public().unwrap()).unwrap();
        let paths = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        fs::write(&paths.0, encode_certs(&chain)).unwrap();
        fs::write(&paths.1, &*key.to_pem()).unwrap();
        paths
    }

    /// A caller's configuration, with its certificate.
    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(read_certs(&self.path("root")).remove(0)).unwrap();
        let (cert, key) = self.user();
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                read_certs(&cert),
                PrivateKeyDer::from_pem_file(PathBuf::from(key)).unwrap(),
            )
            .unwrap()
    }
}

/// A caller that has shaken hands.
async fn connected() -> (Cluster, Proxy, TlsStream<TcpStream>) {
    let cluster = Cluster::new();
    let proxy = cluster.proxy().await;
    let tcp = TcpStream::connect(proxy.addr).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::new(cluster.client()));
    let caller = in_time(connector.connect(name, tcp)).await.unwrap();
    (cluster, proxy, caller)
}

/// Opens a tunnel to `edge1`.
async fn open(caller: &mut TlsStream<TcpStream>, who: &str) {
    let request = format!("CONNECT edge1:80 HTTP/1.1\r\nHost: edge1:80\r\nProxy-Authorization: {who}\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(in_time(caller.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
}

fn read_certs(path: &str) -> Vec<CertificateDer<'static>> {
    let certs = CertificateDer::pem_file_iter(path).unwrap();
    certs.collect::<Result<_, _>>().unwrap()
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}
