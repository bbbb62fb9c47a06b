use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tunnel_edge::{agent::Agent, config::Listener};
use tunnel_model::{Reason, Refusal, Target};

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
    let state = gateway.enrolled(Duration::ZERO);
    let mut config = gateway.config(state.path(), &[]);
    config.listeners = vec![listener("127.0.0.1:0".parse().unwrap(), service)];
    (Agent::start(&config).unwrap(), state)
}

fn listener(listen: SocketAddr, service: &str) -> Listener {
    Listener {
        listen,
        service: service.parse().unwrap(),
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
