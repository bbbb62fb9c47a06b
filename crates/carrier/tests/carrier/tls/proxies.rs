use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tunnel_carrier::tls::{Connection, DialError, Dialer, Failure, Limits, Proxies, ProxyFailure, Server};
use tunnel_identity::tls::Alpn;
use tunnel_model::{GatewayAddr, Reason};

use crate::cluster::{Cluster, soon};

/// The gateway's name, which only the proxy knows.
const NAME: &str = "gateway.behind-proxy.invalid:443";

#[tokio::test]
async fn a_gateway_is_reached_through_proxies_of_both_kinds_and_they_resolve_its_name() {
    for (scheme, kind) in [
        ("http", Kind::Http),
        ("socks5", Kind::Socks5),
        ("socks5h", Kind::Socks5),
    ] {
        for credentials in ["", "joe:p%40ss:word@"] {
            let mut site = Site::new(kind, !credentials.is_empty()).await;
            let url = format!("{scheme}://{credentials}{}", site.proxy);
            let connection = site.connect(&url).await;
            assert_eq!(connection.remote_address(), site.proxy);
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
        }
    }
}

#[tokio::test]
async fn n12_credentials_that_are_missing_or_wrong_are_told_apart() {
    for (scheme, kind) in [("http", Kind::Http), ("socks5", Kind::Socks5)] {
        let site = Site::new(kind, true).await;
        let missing = site.failure(&format!("{scheme}://{}", site.proxy)).await;
        assert!(matches!(missing, ProxyFailure::CredentialsMissing(_)), "{missing}");
        for wrong in ["joe:guess", "jane:p%40ss:word"] {
            let refused = site.failure(&format!("{scheme}://{wrong}@{}", site.proxy)).await;
            assert!(matches!(refused, ProxyFailure::CredentialsRefused(_)), "{refused}");
            assert!(!refused.to_string().contains("guess"));
        }
    }
}

#[tokio::test]
async fn n12_a_proxy_that_refuses_or_is_none_or_is_not_there_is_named() {
    for (scheme, kind, words) in [
        ("http", Kind::Http, "502 Bad Gateway"),
        ("socks5", Kind::Socks5, "host unreachable"),
    ] {
        let site = Site::new(kind, false).await;
        let proxies = proxies(&format!("{scheme}://{}", site.proxy));
        let error = site.dial(&proxies, "unknown.invalid:443").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(&site.proxy.to_string()), "{text}");
        assert_eq!(error.to_refusal().reason, Reason::TargetUnreachable);
    }
    // One kind is asked for the other's protocol.
    let site = Site::new(Kind::Socks5, false).await;
    let other = site.failure(&format!("http://{}", site.proxy)).await;
    assert!(
        matches!(other, ProxyFailure::Malformed(_) | ProxyFailure::Closed(_)),
        "{other}"
    );
    let absent = site.failure("http://127.0.0.1:1").await;
    assert!(matches!(absent, ProxyFailure::Connect(_)), "{absent}");
    let nameless = site.failure("http://no-such-proxy.invalid:3128").await;
    assert!(matches!(nameless, ProxyFailure::Resolve(_)), "{nameless}");
}

/// B17
#[tokio::test]
async fn b17_a_proxy_that_answers_without_end_is_cut_short() {
    for (scheme, begin) in [
        ("http", &b"HTTP/1.1 200 OK\r\n"[..]),
        ("http", b""),
        ("socks5", b"\x05\x00\x05\x00\x00\x09"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let sent = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(begin).await.unwrap();
            let mut sent = 0;
            while tcp.write_all(b"x-bomb: aaaaaaaaaaaaaaaaaaaaaaaa\r\n").await.is_ok() {
                sent += 1;
            }
            sent
        });
        let site = Site::new(Kind::Http, false).await;
        let failure = site.failure(&format!("{scheme}://{proxy}")).await;
        assert!(matches!(failure, ProxyFailure::Malformed(_)), "{failure}");
        soon("an end of sending", sent).await.unwrap();
    }
}

#[tokio::test]
async fn n12_a_proxy_that_opens_tls_is_found_out() {
    let mut site = Site::new(Kind::Http, false).await;
    // It connects to a server of its own instead.
    let inspector = Cluster::new().serve_tls(&Limits::gateway());
    site.retarget(inspector.local_addr()).await;
    let proxies = proxies(&format!("http://{}", site.proxy));
    let error = site.dial(&proxies, NAME).await.unwrap_err();
    assert_eq!(error.failures().next(), Some(&Failure::Inspected));
}

#[tokio::test]
async fn a_gateway_that_is_excepted_is_dialled_directly() {
    let mut site = Site::new(Kind::Http, false).await;
    let proxy = "http://127.0.0.1:1";
    let proxies = Proxies::new(proxy.parse().unwrap(), "127.0.0.0/8".parse().unwrap());
    let gateway = site.server.local_addr();
    let dialer = Dialer::new(Limits::edge(), proxies);
    let gateways = [gateway.to_string().parse().unwrap()];
    let dialled = dialer.dial(&gateways, site.cluster.client_tls(Alpn::Tunnel));
    let (dialled, _) = soon("a connection", async { tokio::join!(dialled, site.server.accept()) }).await;
    assert_eq!(dialled.unwrap().remote_address(), gateway);
}

fn proxies(url: &str) -> Proxies {
    Proxies::new(url.parse().unwrap(), "".parse().unwrap())
}

/// A gateway that can only be reached through a proxy.
struct Site {
    cluster: Cluster,
    server: Server,
    proxy: SocketAddr,
    kind: Kind,
    _running: JoinSet<()>,
}

impl Site {
    async fn new(kind: Kind, credentials: bool) -> Self {
        let cluster = Cluster::new();
        let server = cluster.serve_tls(&Limits::gateway());
        let (proxy, running) = proxy(kind, credentials, server.local_addr()).await;
        Self {
            cluster,
            server,
            proxy,
            kind,
            _running: running,
        }
    }

    /// Has the proxy connect elsewhere.
    async fn retarget(&mut self, target: SocketAddr) {
        (self.proxy, self._running) = proxy(self.kind, false, target).await;
    }

    async fn dial(&self, proxies: &Proxies, gateway: &str) -> Result<Connection, DialError> {
        let dialer = Dialer::new(Limits::edge(), proxies.clone());
        let gateways: [GatewayAddr; 1] = [gateway.parse().unwrap()];
        soon(
            "an outcome",
            dialer.dial(&gateways, self.cluster.client_tls(Alpn::Tunnel)),
        )
        .await
    }

    async fn connect(&mut self, url: &str) -> Connection {
        let connection = self.dial(&proxies(url), NAME).await.unwrap();
        soon("the gateway's end", self.server.accept()).await.unwrap();
        connection
    }

    async fn failure(&self, url: &str) -> ProxyFailure {
        let error = self.dial(&proxies(url), NAME).await.unwrap_err();
        match error.failures().next() {
            Some(Failure::Proxy(error)) => error.failure.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Http,
    Socks5,
}

/// A proxy that knows one name.
async fn proxy(kind: Kind, credentials: bool, target: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = JoinSet::new();
    let served = Arc::new(move |tcp| async move {
        let mut tcp = BufReader::new(tcp);
        let admitted = match kind {
            Kind::Http => http(&mut tcp, credentials).await,
            Kind::Socks5 => socks5(&mut tcp, credentials).await,
        };
        if admitted.is_some() {
            let mut onward = TcpStream::connect(target).await.unwrap();
            let _ = copy_bidirectional(&mut tcp, &mut onward).await;
        }
    });
    running.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(served(tcp));
        }
    });
    (address, running)
}

async fn http(tcp: &mut BufReader<TcpStream>, credentials: bool) -> Option<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if tcp.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let (first, fields) = head.split_once("\r\n")?;
    // joe:p@ss:word
    let authorised = fields.contains("Proxy-Authorization: Basic am9lOnBAc3M6d29yZA==\r\n");
    let answer = if credentials && !authorised {
        "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"site\""
    } else if first == format!("CONNECT {NAME} HTTP/1.1") && fields.contains(&format!("Host: {NAME}\r\n")) {
        "200 Connection established\r\nVia: 1.1 site"
    } else {
        "502 Bad Gateway"
    };
    tcp.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes())
        .await
        .ok()?;
    answer.starts_with("200").then_some(())
}

async fn socks5(tcp: &mut BufReader<TcpStream>, credentials: bool) -> Option<()> {
    let (version, count) = (tcp.read_u8().await.ok()?, tcp.read_u8().await.ok()?);
    if version != 5 {
        return None;
    }
    let mut methods = vec![0; count.into()];
    tcp.read_exact(&mut methods).await.ok()?;
    let method = if credentials { 2 } else { 0 };
    if !methods.contains(&method) {
        tcp.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    tcp.write_all(&[5, method]).await.ok()?;
    if credentials {
        assert_eq!(tcp.read_u8().await.ok()?, 1);
        let (user, password) = (string(tcp).await?, string(tcp).await?);
        let wrong = u8::from((user.as_str(), password.as_str()) != ("joe", "p@ss:word"));
        tcp.write_all(&[1, wrong]).await.ok()?;
        if wrong != 0 {
            return None;
        }
    }
    let mut request = [0; 4];
    tcp.read_exact(&mut request).await.ok()?;
    assert_eq!(request, [5, 1, 0, 3]);
    let name = format!("{}:{}", string(tcp).await?, tcp.read_u16().await.ok()?);
    let reply = if name == NAME { 0 } else { 4 };
    tcp.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    (reply == 0).then_some(())
}

async fn string(tcp: &mut BufReader<TcpStream>) -> Option<String> {
    let mut bytes = vec![0; tcp.read_u8().await.ok()?.into()];
    tcp.read_exact(&mut bytes).await.ok()?;
    String::from_utf8(bytes).ok()
}
