use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tunnel_carrier::{Answer, Stream};
use tunnel_edge::{
    agent::Agent,
    config::{Config, ProxyConfig},
};
use tunnel_model::{Class, Host, Reason, Refusal, Target, Zone};
use tunnel_proto::Open;

use crate::{
    gateway::{Gateway, Session, soon},
    smuggling::{FIELDS, HEADS},
    spellings::{SPELLINGS, Verdict},
};

#[tokio::test]
async fn a_tunnel_leads_to_a_service_of_the_cloud_and_each_direction_ends_by_itself() {
    let (mut edge, mut session) = Edge::connected(&[]).await;
    let mut client = edge.client().await;
    client
        .send("CONNECT registry.cloud:5000 HTTP/1.1\r\nHost: registry.cloud:5000\r\n\r\nearly")
        .await;
    let (open, answer) = next(&mut session).await;
    assert_eq!(asked(&open), "cloud service:registry");
    assert_eq!((open.principal.as_str(), open.class), ("", Class::Api));
    let mut stream = answer.accept().await.unwrap();
    assert_eq!(client.head().await.0, 200);
    client.send(" question").await;
    client.io.shutdown().await.unwrap();
    assert_eq!(read(&mut stream).await, b"early question");
    stream.write_all(b"answer").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"answer");
    edge.stop().await;
}

#[tokio::test]
async fn plain_requests_of_one_connection_share_a_stream_and_another_service_has_its_own() {
    let (edge, mut session) = Edge::connected(&[]).await;
    let mut client = edge.client().await;
    client
        .send("GET http://web.edge2:81/a HTTP/1.1\r\nHost: web.edge2:81\r\nProxy-Authorization: Basic eA==\r\n\r\n")
        .await;
    let (open, answer) = next(&mut session).await;
    assert_eq!(asked(&open), "edge2 service:web");
    let mut stream = answer.accept().await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("GET /a HTTP/1.1\r\nHost: web.edge2:81\r\n"), "{head}");
    assert!(
        !head.contains("Proxy-Authorization"),
        "a credential is nobody's business: {head}"
    );
    assert!(head.contains(&format!("Traceparent: 00-{}-", open.trace)), "{head}");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
        .await
        .unwrap();
    assert_eq!(client.message().await, (200, b"a".to_vec()));

    client
        .send("POST http://web.edge2:81/b HTTP/1.1\r\nHost: web.edge2:81\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert!(read_head(&mut stream).await.starts_with("POST /b "), "the same stream");
    client.send("2\r\nhi\r\n").await;
    assert_eq!(
        exactly(&mut stream, 7).await,
        b"2\r\nhi\r\n",
        "a body goes on as it comes"
    );
    client.send("0\r\n\r\n").await;
    assert_eq!(exactly(&mut stream, 5).await, b"0\r\n\r\n");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
        .await
        .unwrap();
    assert_eq!(client.message().await, (200, b"b".to_vec()));

    client
        .send("GET http://registry.cloud/c HTTP/1.1\r\nHost: registry.cloud\r\n\r\n")
        .await;
    let (open, answer) = next(&mut session).await;
    assert_eq!(asked(&open), "cloud service:registry");
    let mut other = answer.accept().await.unwrap();
    read_head(&mut other).await;
    other.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(client.head().await.0, 204);
    assert_eq!(read(&mut stream).await, b"", "the first ends in order");
}

#[tokio::test]
async fn another_protocol_follows_an_upgrade() {
    let (edge, mut session) = Edge::connected(&[]).await;
    let mut client = edge.client().await;
    client
        .send("GET http://web.edge2/ HTTP/1.1\r\nHost: web.edge2\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    let mut stream = next(&mut session).await.1.accept().await.unwrap();
    assert!(
        read_head(&mut stream)
            .await
            .ends_with("Connection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    );
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome")
        .await
        .unwrap();
    assert_eq!(client.head().await.0, 101);
    client.send("anything").await;
    assert_eq!(exactly(&mut stream, 8).await, b"anything");
    stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"welcome");
}

#[tokio::test]
async fn socks_leads_to_a_service_by_name_with_or_without_a_credential() {
    let (edge, mut session) = Edge::connected(&[]).await;
    for greeting in [&b"\x05\x01\x00"[..], b"\x05\x02\x00\x02\x01\x05alice\x06secret"] {
        let mut client = edge.client().await;
        let name = b"\x05\x01\x00\x03\x10Web.Edge2.tunnel\x00\x50";
        client.io.write_all(&[greeting, name].concat()).await.unwrap();
        let (open, answer) = next(&mut session).await;
        assert_eq!(asked(&open), "edge2 service:web");
        let mut stream = answer.accept().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(client.io.shutdown().await);
        let heard = client.rest().await.unwrap();
        assert!(heard.ends_with(b"\x05\x00\x00\x01\0\0\0\0\0\0hello"), "{heard:?}");
    }
}

/// N9
#[tokio::test]
async fn n9_what_the_gateway_refuses_is_told_and_what_it_breaks_off_is_reset() {
    let (edge, mut session) = Edge::connected(&[]).await;
    for (reason, status, code) in [
        (Reason::Denied, 403, 2),
        (Reason::UnknownService, 404, 4),
        (Reason::NodeOffline, 503, 4),
        (Reason::TargetRefused, 502, 5),
    ] {
        for way in WAYS {
            let (mut client, way) = (edge.client().await, *way);
            client.ask(way, "web.edge2:80").await;
            next(&mut session)
                .await
                .1
                .refuse(&Refusal::new(reason, "the gateway's words"))
                .await;
            let said = client.told(way).await;
            match way {
                Way::Socks => assert_eq!(said, (code, String::new())),
                Way::Connect | Way::Plain => {
                    assert_eq!(said.0, status, "{reason}");
                    assert!(said.1.contains(&format!("Tunnel-Reason: {reason}\r\n")), "{}", said.1);
                    assert!(
                        said.1.ends_with(&format!("error[{reason}]: the gateway's words\n")),
                        "{}",
                        said.1
                    );
                }
            }
        }
    }

    let mut cut = edge.client().await;
    cut.ask(Way::Connect, "web.edge2:80").await;
    let mut stream = next(&mut session).await.1.accept().await.unwrap();
    assert_eq!(cut.head().await.0, 200);
    stream.write_all(b"half of it").await.unwrap();
    cut.io.read_exact(&mut [0; 10]).await.unwrap();
    drop(stream);
    assert!(cut.is_reset().await);

    let mut short = edge.client().await;
    short.ask(Way::Plain, "web.edge2:80").await;
    let mut stream = next(&mut session).await.1.accept().await.unwrap();
    read_head(&mut stream).await;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        .await
        .unwrap();
    assert_eq!(short.head().await.0, 200);
    drop(stream);
    assert!(short.is_reset().await);
}

/// T2: whatever else a client asks for is refused by the edge itself, and says by whom.
#[tokio::test]
async fn t2_only_services_are_asked_for_and_never_an_address() {
    let (edge, session) = Edge::connected(&[]).await;
    let opened = Opened::watch(session);
    for asked in [
        "10.0.0.7:80",
        "127.0.0.1:22",
        "[::1]:22",
        "169.254.169.254:80",
        "10.0.0.7.via.edge2:80",
        "edge2:22",
        "edge2.tunnel:22",
        "cloud:80",
        "localhost:80",
        "www.example.com:443",
        "web.edge2.example.com:80",
        "metadata.google.internal:80",
    ] {
        for way in WAYS {
            let mut client = edge.client().await;
            client.ask(*way, asked).await;
            let (code, said) = client.told(*way).await;
            match way {
                Way::Socks => assert_eq!(code, 2, "{asked}"),
                Way::Connect | Way::Plain => {
                    assert_eq!(code, 403, "{asked}: {said}");
                    assert!(said.contains("\r\nTunnel-Reason: not-allowed-by-edge\r\n"), "{said}");
                    assert!(
                        said.contains("only services are reached: write SERVICE.cloud or SERVICE.NODE"),
                        "{said}"
                    );
                }
            }
        }
    }
    assert_eq!(opened.end(edge).await, [""; 0]);
}

#[tokio::test]
async fn what_is_denied_here_is_never_asked_of_the_gateway() {
    let (edge, session) = Edge::connected(&["*.edge2", "db-*.cloud:5432", "10.0.0.0/8"]).await;
    let opened = Opened::watch(session);
    for (asked, rule) in [
        ("web.edge2:80", "*.edge2"),
        ("WEB.EDGE2.tunnel.:80", "*.edge2"),
        ("db-1.cloud:5432", "db-*.cloud:5432"),
        ("10.1.2.3:80", "10.0.0.0/8"),
    ] {
        for way in WAYS {
            let mut client = edge.client().await;
            client.ask(*way, asked).await;
            let (code, said) = client.told(*way).await;
            match way {
                Way::Socks => assert_eq!(code, 2, "{asked}"),
                Way::Connect | Way::Plain => {
                    assert_eq!(code, 403, "{asked}: {said}");
                    assert!(said.contains("\r\nTunnel-Reason: not-allowed-by-edge\r\n"), "{said}");
                    assert!(said.contains(&format!("by \"{rule}\" of proxy.deny")), "{said}");
                }
            }
        }
    }
    let mut allowed = edge.client().await;
    allowed.ask(Way::Connect, "web.edge3:80").await;
    assert_eq!(allowed.told(Way::Connect).await.0, 404);
    assert_eq!(opened.end(edge).await, ["edge3 service:web"]);
}

#[tokio::test]
async fn what_is_denied_by_a_reload_is_closed_to_the_next_request_of_a_kept_connection() {
    let (edge, mut session) = Edge::connected(&[]).await;
    let mut client = edge.client().await;
    client.ask(Way::Plain, "web.edge2:80").await;
    let mut stream = next(&mut session).await.1.accept().await.unwrap();
    read_head(&mut stream).await;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await
        .unwrap();
    assert_eq!(client.message().await, (200, b"ok".to_vec()));

    let mut config = edge.config.clone();
    config.proxy.as_mut().unwrap().deny = ["web.*".parse().unwrap()].into_iter().collect();
    edge.agent.apply(&config).await;
    client.ask(Way::Plain, "web.edge2:80").await;
    let (status, said) = client.told(Way::Plain).await;
    assert_eq!(status, 403, "{said}");
    assert!(said.contains("\"web.*\" of proxy.deny"), "{said}");
}

/// B14, T4: no spelling of an address is anything but refused; what is asked of the gateway are services by their names.
#[tokio::test]
async fn b14_no_spelling_of_an_address_leaves_the_edge() {
    assert!(SPELLINGS.len() >= 200, "{}", SPELLINGS.len());
    let (edge, session) = Edge::connected(&[]).await;
    let opened = Opened::watch(session);
    let mut expected = Vec::new();
    for &(spelling, verdict) in SPELLINGS {
        let service = match Host::parse(spelling, &Zone::default()) {
            Ok(Host::Named(named)) if matches!(named.target, Target::Service(_)) => {
                Some(format!("{} {}", named.node, named.target))
            }
            _ => None,
        };
        assert!(service.is_none() || matches!(verdict, Verdict::Ours(_)), "{spelling:?}");
        for way in WAYS {
            // What follows these is not the host's in a URL, and SOCKS5 cannot say a host without a port.
            let unsaid = match way {
                Way::Connect => false,
                Way::Plain => spelling.contains(['/', '?']),
                Way::Socks => socks_request(spelling).is_none(),
            };
            if unsaid {
                continue;
            }
            let mut client = edge.client().await;
            client.ask(*way, spelling).await;
            let (code, said) = client.told(*way).await;
            let what = format!("{way:?} {spelling:?}: {code} {said}");
            match &service {
                // As the gateway of this test says of everything.
                Some(service) => {
                    assert!(matches!(code, 404 | 4), "{what}");
                    expected.push(service.clone());
                }
                None => assert!(matches!(code, 400 | 403 | 1 | 2), "{what}"),
            }
        }
    }
    assert_eq!(opened.end(edge).await, expected);
}

/// B15: a request that two parsers might read differently is refused, though what it names would be reached.
#[tokio::test]
async fn b15_no_ambiguous_request_leaves_the_edge() {
    // The table speaks of nodes; here only services are reached.
    let ours = |text: &str| text.replace("edge1", "web.edge1").replace("edge2", "web.edge2");
    let post = |fields: &&str| {
        (
            format!("POST http://web.edge1/ HTTP/1.1\r\nHost: web.edge1\r\n{}", ours(fields)),
            400,
        )
    };
    let heads = HEADS.iter().map(|&(head, status)| (ours(head), status));
    let cases: Vec<(String, u16)> = FIELDS.iter().map(post).chain(heads).collect();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let (edge, session) = Edge::connected(&[]).await;
    let opened = Opened::watch(session);
    for (head, status) in &cases {
        let mut client = edge.client().await;
        client
            .send(&format!(
                "{head}Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n0\r\n\r\n"
            ))
            .await;
        let answer = String::from_utf8(client.rest().await.unwrap()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        assert!(
            answer.contains("\r\nTunnel-Reason: bad-request\r\n"),
            "{head:?}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
    }
    assert_eq!(opened.end(edge).await, [""; 0]);
}

/// B17
#[tokio::test]
async fn b17_a_head_without_end_is_refused_at_its_limit() {
    let (edge, _session) = Edge::connected(&[]).await;
    let mut client = edge.client().await;
    let long = "y".repeat(64 * 1024);
    client
        .send(&format!(
            "GET http://web.edge2/ HTTP/1.1\r\nHost: web.edge2\r\nX: {long}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.head().await.0, 431);
}

#[tokio::test]
async fn without_a_gateway_the_answer_comes_at_once_with_since_when_and_why() {
    let gateway = Gateway::new();
    gateway.revoke_all();
    let edge = Edge::start(gateway, &[]);
    // Revoked or not tried yet: either way nobody waits.
    let mut state = edge.agent.state();
    soon("a refusal", state.wait_for(|state| state.why.is_some()))
        .await
        .unwrap();
    let since = edge.agent.state().borrow().away_since.unwrap();
    for way in WAYS {
        let mut client = edge.client().await;
        client.ask(*way, "web.edge2:80").await;
        let (code, said) = client.told(*way).await;
        match way {
            Way::Socks => assert_eq!(code, 4),
            Way::Connect | Way::Plain => {
                assert_eq!(code, 503, "{said}");
                assert!(said.contains("\r\nTunnel-Reason: node-offline\r\n"), "{said}");
                let told = format!("this edge has had no connection to its gateway since {since}: ");
                assert!(said.contains(&told) && said.contains("[revoked]"), "{said}");
            }
        }
    }
}

#[tokio::test]
async fn an_address_that_is_taken_keeps_the_agent_with_a_proxy_from_starting() {
    let gateway = Gateway::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let state = gateway.enrolled(Duration::ZERO);
    let mut config = gateway.config(state.path(), &[]);
    config.proxy = Some(ProxyConfig {
        listen: taken.local_addr().unwrap(),
        ..ProxyConfig::default()
    });
    let error = Agent::start(&config).unwrap_err().to_string();
    assert!(error.contains("for the proxy"), "{error}");
}

/// How a client asks.
#[derive(Debug, Clone, Copy)]
enum Way {
    Connect,
    Plain,
    Socks,
}

const WAYS: &[Way] = &[Way::Connect, Way::Plain, Way::Socks];

/// An edge with a proxy, and its gateway.
struct Edge {
    gateway: Gateway,
    config: Config,
    agent: Agent,
    _state: tempfile::TempDir,
}

impl Edge {
    fn start(gateway: Gateway, deny: &[&str]) -> Self {
        let state = gateway.enrolled(Duration::ZERO);
        let mut config = gateway.config(state.path(), &[]);
        config.proxy = Some(ProxyConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            deny: deny.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..ProxyConfig::default()
        });
        Self {
            agent: Agent::start(&config).unwrap(),
            config,
            gateway,
            _state: state,
        }
    }

    async fn connected(deny: &[&str]) -> (Self, Session) {
        let mut edge = Self::start(Gateway::new(), deny);
        let session = edge.gateway.session().await;
        soon("the first pong", edge.agent.connected()).await;
        (edge, session)
    }

    async fn client(&self) -> Client {
        let address: SocketAddr = self.agent.proxy().unwrap();
        Client {
            io: TcpStream::connect(address).await.unwrap(),
            buf: Vec::new(),
        }
    }

    async fn stop(&mut self) {
        let ended = soon(
            "the agent's end",
            self.agent.shutdown(tunnel_daemon::shutdown::Deadlines::default()),
        )
        .await;
        ended.unwrap();
    }
}

/// What an edge opens, each of it answered as unknown.
struct Opened(JoinHandle<Vec<String>>);

impl Opened {
    fn watch(mut session: Session) -> Self {
        Self(tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(incoming) = session.incoming.recv().await {
                let (open, answer) = incoming.into_parts();
                all.push(asked(&open));
                answer
                    .refuse(&Refusal::new(Reason::UnknownService, "there is none"))
                    .await;
            }
            all
        }))
    }

    /// All of it, once the edge has stopped and can open no more.
    async fn end(self, mut edge: Edge) -> Vec<String> {
        edge.stop().await;
        soon("the session's end", self.0).await.unwrap()
    }
}

/// A local client that says exactly what a test wants it to.
struct Client {
    io: TcpStream,
    buf: Vec<u8>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Asks for `HOST:PORT` in whatever spelling.
    async fn ask(&mut self, way: Way, to: &str) {
        match way {
            Way::Connect => self.send(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await,
            Way::Plain => {
                self.send(&format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n"))
                    .await
            }
            Way::Socks => {
                let request = socks_request(to).unwrap();
                self.io
                    .write_all(&[b"\x05\x01\x00", &request[..]].concat())
                    .await
                    .unwrap();
            }
        }
    }

    /// The code of a refusal, and its words where it has any.
    async fn told(&mut self, way: Way) -> (u16, String) {
        match way {
            Way::Socks => {
                let mut reply = [0; 12];
                soon("a reply", self.io.read_exact(&mut reply)).await.unwrap();
                assert_eq!(reply[..3], [5, 0, 5], "{reply:?}");
                (reply[3].into(), String::new())
            }
            Way::Connect | Way::Plain => {
                let (status, head) = self.head().await;
                let length = length_of(&head);
                let body = self.exactly(length).await;
                (status, head + &String::from_utf8(body).unwrap())
            }
        }
    }

    async fn message(&mut self) -> (u16, Vec<u8>) {
        let (status, head) = self.head().await;
        (status, self.exactly(length_of(&head)).await)
    }

    async fn head(&mut self) -> (u16, String) {
        loop {
            if let Some(end) = self.buf.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buf.split_off(end + 4);
                let head = String::from_utf8(std::mem::replace(&mut self.buf, rest)).unwrap();
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), head);
            }
            self.fill().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buf.len() < length {
            self.fill().await;
        }
        let rest = self.buf.split_off(length);
        std::mem::replace(&mut self.buf, rest)
    }

    async fn fill(&mut self) {
        let read = soon("more", self.io.read_buf(&mut self.buf)).await.unwrap();
        assert_ne!(
            read,
            0,
            "an end instead of more than {:?}",
            String::from_utf8_lossy(&self.buf)
        );
    }

    /// Everything up to the end.
    async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        soon("an end", self.io.read_to_end(&mut self.buf)).await?;
        Ok(std::mem::take(&mut self.buf))
    }

    async fn is_reset(&mut self) -> bool {
        self.rest()
            .await
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }
}

/// A request for `HOST:PORT` by name, if SOCKS5 can say that.
fn socks_request(to: &str) -> Option<Vec<u8>> {
    let (host, port) = to.rsplit_once(':')?;
    let (length, port) = (u8::try_from(host.len()).ok()?, port.parse::<u16>().ok()?);
    Some([&[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat())
}

fn length_of(head: &str) -> usize {
    let value = |line: &str| {
        line.strip_prefix("Content-Length: ")
            .map(|length| length.parse().unwrap())
    };
    head.lines().find_map(value).unwrap_or(0)
}

fn asked(open: &Open) -> String {
    format!("{} {}", open.node.as_ref().unwrap(), open.target)
}

async fn next(session: &mut Session) -> (Open, Answer) {
    soon("a stream", session.incoming.recv()).await.unwrap().into_parts()
}

async fn read_head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn exactly(stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon("bytes", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn read(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    soon("an end", stream.read_to_end(&mut all)).await.unwrap();
    all
}
