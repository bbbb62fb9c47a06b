use std::time::Duration;

use tunnel_carrier::Notice;
use tunnel_daemon::shutdown::Deadlines;
use tunnel_edge::{
    agent::{Agent, Phase},
    journal::History,
};
use tunnel_model::{LinkLoss, LossCause, Reason, Refusal};

use crate::gateway::{Gateway, Session, soon};

#[tokio::test]
async fn losses_of_the_link_are_kept_over_restarts_and_told_until_the_gateway_keeps_them() {
    let mut gateway = Gateway::new();
    let state = gateway.enrolled(Duration::from_secs(24 * 3600));
    let config = gateway.config(state.path(), &[]);
    let agent = Agent::start(&config).unwrap();
    let first = gateway.session().await;
    soon("the first pong", agent.connected()).await;
    assert_eq!(History::read(state.path()).unwrap().losses, []);
    first.tunnel.close(&Refusal::new(Reason::Superseded, "another edge"));
    let mut phase = agent.state();
    let waits = phase.wait_for(|state| state.phase == Phase::Waiting);
    soon("the end of the session", waits).await.unwrap();
    // It is in no hurry then.
    agent.shutdown(Deadlines::default()).await.unwrap();
    let kept = History::read(state.path()).unwrap().losses;
    assert_eq!((kept.len(), kept[0].cause), (1, LossCause::Superseded));
    assert_eq!(kept[0].lasted_seconds, None);
    assert!(kept[0].sent_bytes > 0 && kept[0].received_bytes > 0, "{kept:?}");

    // The end of a loss is noted by the process that sees it, and its cause is that of the beginning.
    let agent = Agent::start(&config).unwrap();
    let mut second = gateway.session().await;
    let told = journal(&mut second).await;
    assert_eq!((told.len(), told[0].cause), (1, LossCause::Superseded));
    assert_eq!(told[0].message, "another edge");
    // It stops before the gateway has said that it keeps that.
    soon("the first pong", agent.connected()).await;
    agent.shutdown(Deadlines::default()).await.unwrap();

    let agent = Agent::start(&config).unwrap();
    let mut third = gateway.session().await;
    let told = journal(&mut third).await;
    let causes: Vec<_> = told.iter().map(|loss| (loss.number, loss.cause)).collect();
    assert_eq!(causes, [(1, LossCause::Superseded), (2, LossCause::EdgeStopped)]);
    third.tunnel.journaled(2);
    let uploaded = async {
        while !History::read(state.path())
            .unwrap()
            .losses
            .iter()
            .all(|loss| loss.uploaded)
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the answer", uploaded).await;
    third.tunnel.drain(Refusal::new(Reason::Draining, "upgrade"), None);

    let mut fourth = gateway.session().await;
    let told = journal(&mut fourth).await;
    let causes: Vec<_> = told.iter().map(|loss| (loss.number, loss.cause)).collect();
    assert_eq!(causes, [(3, LossCause::GatewayLeft)], "nothing is told twice");
    drop(agent);
}

#[tokio::test]
async fn a_gateway_that_keeps_no_journal_is_no_obstacle_and_many_losses_go_page_by_page() {
    let mut gateway = Gateway::new();
    let state = gateway.enrolled(Duration::from_secs(24 * 3600));
    let mut text = String::new();
    for number in 1..=100 {
        text += &format!(
            "{{\"lost\":{{\"number\":{number},\"cause\":\"dns\",\"begun_ms\":{number},\"sent\":0,\"received\":0,\
             \"message\":\"\"}}}}\n{{\"back\":{{\"number\":{number},\"cause\":\"dns\",\"message\":\"\",\"lasted_ms\":5}}}}\n"
        );
    }
    std::fs::write(state.path().join("link-journal.jsonl"), text).unwrap();
    let agent = Agent::start(&gateway.config(state.path(), &[])).unwrap();
    let mut session = gateway.session().await;
    // Nobody answers, and the session is as good as any.
    let first = journal(&mut session).await;
    soon("a pong", agent.connected()).await;
    session.tunnel.journaled(0);
    session.tunnel.journaled(1000);
    session.tunnel.journaled(first.last().unwrap().number);
    let second = journal(&mut session).await;
    let numbers: Vec<_> = first.iter().chain(&second).map(|loss| loss.number).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    assert_eq!(second.len(), 100 - tunnel_proto::MAX_LOSSES);
}

/// The next page of the journal.
async fn journal(session: &mut Session) -> Vec<LinkLoss> {
    loop {
        match soon("the journal", session.notices.recv()).await.map(|notice| *notice) {
            Some(Notice::Journal(losses)) => return losses,
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
}
