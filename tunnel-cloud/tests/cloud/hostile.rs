use std::{fs, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tunnel_carrier::{
    Carrier, Stream, Tunnel,
    quic::{Dialer, Limits},
};
use tunnel_cloud::{
    config::Config,
    gateway::{self, Running},
    store::Enrolment,
};
use tunnel_daemon::shutdown::Tasks;
use tunnel_identity::{JoinToken, NodeFiles, TimeFloor, UnixTime, tls};
use tunnel_model::{Class, NodeId, Protocol, Reason, Refusal, SessionId, TraceId};
use tunnel_proto::{Config as SessionConfig, Hello, Open, Side, VERSIONS};

use crate::operator::Operator;

const SOON: Duration = Duration::from_secs(20);
/// T2 asks for as many.
const FORGED: usize = 1_000;

/// T1, T2: a valid certificate of edge1 opens what a rule for edge1 names. No other wish makes the gateway connect to
/// anything, whatever it names and whoever it says to be.
#[tokio::test]
async fn t2_a_thousand_forged_wishes_of_an_edge_are_refused_and_dial_nothing() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let operator = Operator::with_cluster();
    let text = fs::read_to_string(operator.config()).unwrap();
    let more = format!(
        "[[service]]\nname = \"own\"\ntarget = \"127.0.0.1:{port}\"\n\
         [[service]]\nname = \"other\"\ntarget = \"localhost:{port}\"\n\
         [[rule]]\nsubjects = [\"node:edge1\"]\nnodes = \"cloud\"\ntargets = [\"service:own\"]\n\
         [[rule]]\nsubjects = [\"node:edge2\", \"user:admin\", \"group:admins\"]\n\
         nodes = [\"*\", \"cloud\"]\ntargets = [\"*\"]\n"
    );
    fs::write(operator.config(), format!("{text}\n{more}")).unwrap();
    // Before the gateway runs in this thread, which could not answer a command that is waited for here.
    let tokens = [(); 2].map(|()| operator.run(&["token", "create"]).well());
    let tasks = Tasks::new();
    let gateway = gateway::start(Config::load(&operator.config()).unwrap(), &tasks)
        .await
        .unwrap();
    let edge1 = session(&operator, &gateway, &tokens[0], "edge1").await;
    let _edge2 = session(&operator, &gateway, &tokens[1], "edge2").await;

    let targets = [
        "service:other".to_owned(),
        "service:none".to_owned(),
        format!("port:{port}"),
        format!("tcp:127.0.0.1:{port}"),
        format!("tcp:localhost:{port}"),
        format!("tcp:[::ffff:127.0.0.1]:{port}"),
        "tcp:169.254.169.254:80".to_owned(),
        format!("udp:{port}"),
        format!("udp:127.0.0.1:{port}"),
    ];
    let nodes = [None, Some("cloud"), Some("edge1"), Some("edge2"), Some("edge3")];
    let names = [
        "node:edge2",
        "user:admin",
        "group:admins",
        "",
        "node:edge1",
        "cidr:127.0.0.1",
    ];
    for i in 0..FORGED {
        let (target, node) = (&targets[i % targets.len()], nodes[i % nodes.len()]);
        let class = Class::ALL[i % Class::ALL.len()];
        let refusal = wish(&edge1, target, node, names[i % names.len()], class)
            .await
            .unwrap_err();
        assert!(
            matches!(refusal.reason, Reason::Denied | Reason::BadRequest),
            "{target} of {node:?}: {refusal}"
        );
    }

    // The first connection that the service sees is the one that a rule allows.
    let mut stream = wish(&edge1, "service:own", None, "", Class::Api).await.unwrap();
    stream.write_all(b"allowed").await.unwrap();
    stream.shutdown().await.unwrap();
    let (mut served, _) = service.accept().await.unwrap();
    let mut got = Vec::new();
    served.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"allowed");
    served.write_all(b"answer").await.unwrap();
    drop(served);
    got.clear();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"answer");
}

/// A stream that an edge opens, once what it names is there.
async fn wish(
    edge: &Tunnel,
    target: &str,
    node: Option<&str>,
    principal: &str,
    class: Class,
) -> Result<Stream, Refusal> {
    let open = Open {
        target: target.parse().unwrap(),
        protocol: Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
        class,
        trace: TraceId::from_bytes([1; 16]),
        principal: principal.to_owned(),
        node: node.map(|name| name.parse().unwrap()),
    };
    let mut stream = edge.open(&open, SOON).await?;
    stream.established().await?;
    Ok(stream)
}

/// The session of a newly enrolled node, held by this test and by no agent.
async fn session(operator: &Operator, gateway: &Running, token: &str, name: &str) -> Tunnel {
    let dir = operator.dir().join(name);
    fs::create_dir(&dir).unwrap();
    let (now, id) = (
        UnixTime::from(std::time::SystemTime::now()),
        NodeId::random(&mut rand::rng()),
    );
    let (state, root) = (&gateway.state, gateway.state.authority.root().clone());
    let files = NodeFiles::open(&dir).unwrap();
    files.save_root(&root).unwrap();
    let key = files.node().begin().unwrap();
    let name = name.parse().unwrap();
    let chain = state
        .authority
        .issue_node(&key.public().unwrap(), id, &name, now)
        .unwrap();
    files.node().commit(chain).unwrap();
    let token: JoinToken = token.trim().parse().unwrap();
    let enrolment = Enrolment {
        token: token.id(),
        id,
        name,
        services: Vec::new(),
        agent_version: "0.1.0".to_owned(),
        serial: id.to_string(),
        not_after: now.secs() + 3600,
        now: now.secs(),
    };
    Arc::clone(&state.directory).enrol(enrolment).await.unwrap();

    let credential = files.node().load().unwrap().unwrap();
    let floor = TimeFloor::new(UnixTime::from_secs(0), None);
    let tls = tls::client_config_node(&root, &credential, &floor, tls::Alpn::Tunnel).unwrap();
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let connection = dialer.dial_addresses(&[gateway.listening.public], tls).await.unwrap();
    let hello = Hello {
        min_version: VERSIONS.0,
        max_version: VERSIONS.1,
        features: Vec::new(),
        session: SessionId::from_bytes([0; 16]),
        carrier: 1,
        continues: false,
        resume_for: SessionConfig::default().resume_for,
        software: "hostile".to_owned(),
        name: "edge2".to_owned(),
        unix_millis: 0,
    };
    let config = SessionConfig::default();
    let carrier = Carrier::dial(connection, hello, config.patience).await.unwrap();
    let tunnel = Tunnel::new(Side::Edge, config).tunnel;
    tokio::spawn(tunnel.attach(carrier).unwrap().run());
    tunnel
}
