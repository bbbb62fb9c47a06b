use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};
use tunnel_carrier::Flow;
use tunnel_edge::{agent::Agent, config::Listener};
use tunnel_model::{Class, Protocol, Reason, Refusal, Target};

use crate::gateway::{Gateway, Session, soon};

#[tokio::test]
async fn a_local_client_reaches_a_service_and_each_direction_ends_by_itself() {
    let mut gateway = Gateway::new();
    let (agent, _state) = edge(&gateway, "registry");
    let mut session = gateway.session().await;
    soon("the first pong", agent.connected()).await;
    let mut client = TcpStream::connect(agent.listening()[0]).await.unwrap();
    let incoming = soon("the stream", session.incoming.recv()).await.unwrap();
    let (open, answer) = incoming.into_parts();
    assert_eq!(open.target, "service:registry".parse::<Target>().unwrap());
    assert_eq!(open.node.unwrap().as_str(), "cloud");
    let mut stream = answer.accept().await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"question");
    stream.write_all(b"answer").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read(&mut client).await.unwrap(), b"answer");
}

/// Across a long link, that is one round trip instead of two.
#[tokio::test]
async fn what_a_client_says_goes_out_before_the_service_has_answered() {
    let mut gateway = Gateway::new();
    let (agent, _state) = edge(&gateway, "registry");
    let mut session = gateway.session().await;
    soon("the first pong", agent.connected()).await;
    let mut client = TcpStream::connect(agent.listening()[0]).await.unwrap();
    let (_, answer) = next(&mut session).await;
    let came = |session: &Session| session.tunnel.status().unwrap().received_bytes;
    let before = came(&session);
    client.write_all(&[7; 10_000]).await.unwrap();
    soon("what the client says", async {
        while came(&session) < before + 10_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stream = answer.accept().await.unwrap();
    client.write_all(&[8; 100_000]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(
        read(&mut stream).await.unwrap(),
        [&[7; 10_000][..], &[8; 100_000]].concat()
    );
}

#[tokio::test]
async fn a_listeners_streams_are_of_the_class_that_it_or_its_service_names() {
    let at = "127.0.0.1:0".parse().unwrap();
    for (service, class, opened) in [
        ("registry", None, Class::Api),
        ("ssh.edge2", None, Class::Interactive),
        ("ssh.edge2", "bulk".parse().ok(), Class::Bulk),
    ] {
        let mut gateway = Gateway::new();
        let (agent, _state) = edge_with(
            &gateway,
            Listener {
                class,
                ..listener(at, service)
            },
        );
        let mut session = gateway.session().await;
        soon("the first pong", agent.connected()).await;
        let _client = TcpStream::connect(agent.listening()[0]).await.unwrap();
        let (open, _answer) = next(&mut session).await;
        assert_eq!(open.class, opened, "{service}");
        assert_eq!(agent.status().link.unwrap().classes.get(&opened), Some(&1));
    }
}

/// N9
#[tokio::test]
async fn n9_what_the_gateway_refuses_or_breaks_off_is_reset_at_the_client() {
    let mut gateway = Gateway::new();
    let (agent, _state) = edge(&gateway, "web.edge2");
    let mut session = gateway.session().await;
    soon("the first pong", agent.connected()).await;

    let mut refused = TcpStream::connect(agent.listening()[0]).await.unwrap();
    let (open, answer) = next(&mut session).await;
    assert_eq!(open.node.unwrap().as_str(), "edge2");
    answer.refuse(&Refusal::new(Reason::Denied, "no rule")).await;
    assert!(is_reset(&mut refused).await);

    let mut cut = TcpStream::connect(agent.listening()[0]).await.unwrap();
    let mut stream = next(&mut session).await.1.accept().await.unwrap();
    stream.write_all(b"half of it").await.unwrap();
    cut.read_exact(&mut [0; 10]).await.unwrap();
    drop(stream);
    assert!(is_reset(&mut cut).await);
}

#[tokio::test]
async fn without_a_session_connections_are_reset_and_the_listener_stays() {
    let gateway = Gateway::new();
    gateway.revoke_all();
    let (agent, _state) = edge(&gateway, "registry");
    for _ in 0..3 {
        let mut client = TcpStream::connect(agent.listening()[0]).await.unwrap();
        assert!(is_reset(&mut client).await);
    }

    let mut gateway_that_works = Gateway::new();
    let (agent, _state) = edge(&gateway_that_works, "registry");
    let first = gateway_that_works.session().await;
    soon("the first pong", agent.connected()).await;
    first.tunnel.close(&Refusal::new(Reason::Internal, "gone"));
    let mut second = gateway_that_works.session().await;
    let reached_again = async {
        loop {
            // Until the second session has answered, it is reset.
            let mut client = TcpStream::connect(agent.listening()[0]).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                wanted = next(&mut second) => return wanted.0,
                _ = client.read(&mut byte) => {}
            }
        }
    };
    let open = soon("a stream of the second session", reached_again).await;
    assert_eq!(open.target, "service:registry".parse::<Target>().unwrap());
}

#[tokio::test]
async fn each_client_of_a_udp_listener_has_a_flow_and_gets_its_own_answers() {
    let mut gateway = Gateway::new();
    let (agent, _state) = udp_edge(&gateway, "dns.edge2");
    let mut session = gateway.session().await;
    soon("the first pong", agent.connected()).await;
    let mut flows = Vec::new();
    for name in ["one", "two"] {
        let client = client(&agent).await;
        client.send(name.as_bytes()).await.unwrap();
        let (open, answer) = next(&mut session).await;
        assert_eq!((open.protocol, open.node.unwrap().as_str()), (Protocol::Udp, "edge2"));
        assert_eq!(open.target, "service:dns".parse::<Target>().unwrap());
        let mut flow = answer.accept_flow().await.unwrap();
        assert_eq!(packets(&mut flow).await.unwrap(), [name.as_bytes()]);
        flows.push((name, client, flow));
    }
    for (name, client, flow) in &mut flows {
        for size in [0, 1_200, 9_000] {
            client.send(&vec![1; size]).await.unwrap();
            assert_eq!(packets(flow).await.unwrap(), [vec![1; size]]);
        }
        assert!(flow.send(name.as_bytes()));
        let mut heard = [0; 16];
        let heard = tokio::select! {
            length = soon("the answer", client.recv(&mut heard)) => &heard[..length.unwrap()],
            over = packets(flow) => panic!("{over:?}"),
        };
        assert_eq!(heard, name.as_bytes());
    }
}

#[tokio::test]
async fn a_client_whose_flow_was_refused_is_tried_again_with_its_next_packet() {
    let mut gateway = Gateway::new();
    let (agent, _state) = udp_edge(&gateway, "dns");
    let mut session = gateway.session().await;
    soon("the first pong", agent.connected()).await;
    let client = client(&agent).await;
    client.send(b"one").await.unwrap();
    let refusal = Refusal::new(Reason::Denied, "no rule");
    next(&mut session).await.1.refuse(&refusal).await;
    let again = async {
        loop {
            // What comes before the refusal belongs to the flow that is refused.
            client.send(b"two").await.unwrap();
            tokio::select! {
                (_, answer) = next(&mut session) => return answer,
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let mut flow = soon("another flow", again).await.accept_flow().await.unwrap();
    assert_eq!(packets(&mut flow).await.unwrap()[0], &b"two"[..]);
}

#[tokio::test]
async fn an_address_that_is_taken_keeps_the_agent_from_starting() {
    let gateway = Gateway::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let state = gateway.enrolled(Duration::ZERO);
    let mut config = gateway.config(state.path(), &[]);
    config.listeners = vec![listener(taken.local_addr().unwrap(), "registry")];
    let error = Agent::start(&config).unwrap_err();
    assert!(error.to_string().contains("registry.cloud"), "{error}");
}

/// An enrolled edge that listens for clients of a service.
fn edge(gateway: &Gateway, service: &str) -> (Agent, tempfile::TempDir) {
    edge_with(gateway, listener("127.0.0.1:0".parse().unwrap(), service))
}

/// Likewise by UDP.
fn udp_edge(gateway: &Gateway, service: &str) -> (Agent, tempfile::TempDir) {
    let listener = Listener {
        protocol: Protocol::Udp,
        ..listener("127.0.0.1:0".parse().unwrap(), service)
    };
    edge_with(gateway, listener)
}

fn edge_with(gateway: &Gateway, listener: Listener) -> (Agent, tempfile::TempDir) {
    let state = gateway.enrolled(Duration::ZERO);
    let mut config = gateway.config(state.path(), &[]);
    config.listeners = vec![listener];
    (Agent::start(&config).unwrap(), state)
}

/// A client of the first listener.
async fn client(agent: &Agent) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(agent.listening()[0]).await.unwrap();
    socket
}

async fn packets(flow: &mut Flow) -> Result<Vec<bytes::Bytes>, Refusal> {
    let mut packets = Vec::new();
    soon("packets", flow.recv_many(&mut packets)).await.map(|()| packets)
}

fn listener(listen: SocketAddr, service: &str) -> Listener {
    Listener {
        listen,
        service: service.parse().unwrap(),
        protocol: Protocol::Tcp,
        class: None,
    }
}

async fn next(session: &mut Session) -> (tunnel_proto::Open, tunnel_carrier::Answer) {
    soon("a stream", session.incoming.recv()).await.unwrap().into_parts()
}

async fn is_reset(client: &mut TcpStream) -> bool {
    let end = soon("a reset", client.read(&mut [0])).await;
    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

async fn read(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut got = Vec::new();
    soon("an end or a break", from.read_to_end(&mut got)).await.map(|_| got)
}
