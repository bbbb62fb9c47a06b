//! Keys from the web.

use std::{fs, sync::Arc, time::Duration};

use rustls::ServerConfig;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tunnel_identity::{GatewayFiles, encode_certs, tls};
use tunnel_model::ClusterId;

use super::{
    NOW,
    provider::{Provider, good},
};
use crate::oidc::{Oidc, TokenError, config::KeySource};

#[tokio::test]
async fn keys_come_by_https_and_stay_when_the_next_answer_is_useless() {
    let (provider, site) = (Provider::new(), Site::start().await);
    let keys = json!({"keys": [provider.jwk()]}).to_string();
    let oidc = site.oidc(&provider, &site.ca);
    let token = provider.token("ec", &good());
    site.answer(ok(&keys)).await;
    assert!(oidc.verify(&token, NOW).await.is_ok());
    let moved = format!(
        "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{}/x\r\n\r\n",
        site.port
    );
    let large = ok(&format!("{}{keys}", " ".repeat(256 * 1024)));
    let cut = ok(&keys).replace("Content-Length: ", "Content-Length: 9");
    for useless in [moved, large, cut, ok("[]"), "HTTP/1.1 500 Oops\r\n\r\n".to_owned()] {
        site.answer(useless.clone()).await;
        assert!(!oidc.issuers[0].refresh(Duration::ZERO).await, "{useless:.60}");
        assert!(oidc.verify(&token, NOW).await.is_ok());
    }
    site.answer(ok(&keys)).await;
    assert!(oidc.issuers[0].refresh(Duration::ZERO).await);
}

/// A server that another authority vouches for is not asked.
#[tokio::test]
async fn keys_of_a_server_that_is_not_trusted_are_not_read() {
    let (provider, site, other) = (Provider::new(), Site::start().await, Site::start().await);
    let oidc = site.oidc(&provider, &other.ca);
    site.answer(ok(&json!({"keys": [provider.jwk()]}).to_string())).await;
    let token = provider.token("ec", &good());
    assert_eq!(oidc.verify(&token, NOW).await, Err(TokenError::NoKeys));
    assert!(!oidc.issuers[0].has_keys());
}

/// A web server that answers each connection with what it was last told.
struct Site {
    port: u16,
    ca: std::path::PathBuf,
    answers: tokio::sync::mpsc::Sender<String>,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1".to_owned()];
        let now = tunnel_identity::UnixTime::from(std::time::SystemTime::now());
        let files = GatewayFiles::init(&dir.path().join("keys"), ClusterId::from_bytes([3; 16]), &names, now).unwrap();
        let root = files.authority().unwrap().root().clone();
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, encode_certs(&[root.certificate().clone()])).unwrap();
        let config = tls::server_config_proxy(&files.gateway().unwrap(), &root).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, mut told) = tokio::sync::mpsc::channel::<String>(1);
        tokio::spawn(async move {
            while let Some(answer) = told.recv().await {
                let (tcp, _) = listener.accept().await.unwrap();
                serve(tcp, config.clone(), &answer).await;
            }
        });
        Self {
            port,
            ca,
            answers,
            _dir: dir,
        }
    }

    /// What the next connection gets.
    async fn answer(&self, answer: String) {
        self.answers.send(answer).await.unwrap();
    }

    fn oidc(&self, provider: &Provider, ca: &std::path::Path) -> Oidc {
        provider.oidc(|config| {
            config.jwks = KeySource::Web(format!("https://127.0.0.1:{}/keys", self.port));
            config.ca = Some(ca.to_owned());
        })
    }
}

async fn serve(tcp: tokio::net::TcpStream, config: ServerConfig, answer: &str) {
    let Ok(mut io) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await else {
        return;
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"));
    // The client may have had enough before the end.
    let _ = io.write_all(answer.as_bytes()).await;
    let _ = io.shutdown().await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
