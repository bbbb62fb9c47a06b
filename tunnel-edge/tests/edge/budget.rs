use std::time::Duration;

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};
use tunnel_daemon::shutdown::Deadlines;
use tunnel_edge::{agent::Agent, config::Bytes};
use tunnel_model::{Class, Reason, Refusal};

use crate::{
    agent::{reach, read},
    gateway::{Gateway, Session, soon},
};

#[tokio::test]
async fn what_has_spent_its_budget_is_cut_and_refused_also_after_a_restart_and_nothing_else_is() {
    let mut gateway = Gateway::new();
    let state = gateway.enrolled(Duration::ZERO);
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = gateway.config(state.path(), &[("web", target.local_addr().unwrap())]);
    config.link_budget.api = Some(Bytes(100_000));
    let agent = Agent::start(&config).unwrap();
    let session = gateway.session().await;
    let (mut stream, mut served) = reach(&session, &target, "service:web").await;
    let spending = tokio::spawn(async move { while served.write_all(&[7; 10_000]).await.is_ok() {} });
    let why = read(&mut stream).await.unwrap_err();
    let why = why.get_ref().and_then(|why| why.downcast_ref::<Refusal>()).unwrap();
    assert_eq!(why.reason, Reason::RateLimited);
    assert!(why.message.contains("its 100kB of today (link.budget.api)"), "{why}");
    soon("the target's end", spending).await.unwrap();
    is_spent(&session, &target).await;
    agent.shutdown(Deadlines::default()).await.unwrap();

    let agent = Agent::start(&config).unwrap();
    let session = gateway.session().await;
    is_spent(&session, &target).await;
    let today = agent.status().today.unwrap();
    let of = |name: &str| today.carried.iter().find(|share| share.of == name).unwrap();
    assert!(
        of("api").bytes >= 100_000 && of("all").bytes > of("api").bytes,
        "{today:?}"
    );
    assert_eq!(of("api").budget, Some(100_000));

    // Whoever raises it need not start anything again.
    config.link_budget.api = None;
    agent.apply(&config).await;
    let (_stream, _served) = reach(&session, &target, "service:web").await;
}

/// Streams of class api are refused, and others are not.
async fn is_spent(session: &Session, target: &TcpListener) {
    let refused = soon("a refusal", session.connect("service:web")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::RateLimited, "{refused}");
    let typing = session.connect_as(Class::Interactive, "service:web");
    let (typing, _served): (_, (TcpStream, _)) =
        soon("a stream", async { (typing.await, target.accept().await.unwrap()) }).await;
    typing.unwrap();
}
