//! Ports that always lead to the same target.

use std::sync::{Arc, atomic::Ordering};

use tokio_util::sync::CancellationToken;
use tunnel_ingress::{
    Door, Way,
    forward::{Asker, Forward},
};
use tunnel_model::{Class, Principal, Reason};

use crate::{caller::in_time, proxy::Proxy};

#[tokio::test]
async fn a_forward_joins_both_directions_and_each_ends_on_its_own() {
    let (proxy, _) = forward("edge1:22", Asker::Caller).await;
    let target = proxy.node("edge1").await;
    let mut caller = proxy.caller().await;
    caller.send("question").await;
    caller.half_close().await;
    let mut end = target.accept().await;
    assert_eq!(end.until_end().await.unwrap(), b"question");
    end.send("answer").await;
    drop(end);
    assert_eq!(caller.until_end().await.unwrap(), b"answer");
    assert_eq!(proxy.metrics.requests(Way::Forward), 1);
    let dials = proxy.dials();
    assert_eq!(dials[0].destination, "edge1:22".parse().unwrap());
    assert_eq!(dials[0].principal, Principal::address([127, 0, 0, 1].into()));
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard() {
    let (proxy, _) = forward("edge1:22", Asker::Caller).await;
    let target = proxy.node("edge1").await;
    let mut caller = proxy.caller().await;
    let mut end = target.accept().await;
    end.send("SSH-2.0-x\r\n").await;
    assert_eq!(caller.exactly(11).await.unwrap(), b"SSH-2.0-x\r\n");
    end.half_close().await;
    assert_eq!(caller.until_end().await.unwrap(), b"");
    caller.send("still here").await;
    assert_eq!(end.exactly(10).await.unwrap(), b"still here");
}

/// Across a long link, that is one round trip instead of two.
#[tokio::test]
async fn what_a_caller_says_goes_out_before_the_target_has_answered() {
    let (proxy, _) = forward("shy:22", Asker::Caller).await;
    let target = proxy.node("shy").await;
    let mut caller = proxy.caller().await;
    let mut end = target.accept().await;
    caller.send("question").await;
    assert_eq!(end.exactly(8).await.unwrap(), b"question");
    end.send("answer").await;
    assert_eq!(caller.exactly(6).await.unwrap(), b"answer");
    assert_eq!(proxy.metrics.requests(Way::Forward), 1);
}

#[tokio::test]
async fn a_refused_caller_is_reset_and_the_reason_counted() {
    for (to, reason) in [
        ("denied:22", Reason::Denied),
        ("offline:22", Reason::NodeOffline),
        ("refusing:22", Reason::TargetRefused),
        ("slow:22", Reason::TargetTimeout),
    ] {
        let (proxy, _) = forward(to, Asker::Caller).await;
        proxy.caller().await.assert_reset().await;
        assert_eq!(proxy.metrics.refusals(reason), 1, "{to}");
        assert_eq!(proxy.metrics.requests(Way::Forward), 0, "{to}");
    }
}

#[tokio::test]
async fn a_caller_whose_address_is_not_enough_reaches_nothing() {
    let (proxy, _) = forward("edge1:22", Asker::Caller).await;
    proxy.gateway.trusting.store(false, Ordering::Relaxed);
    let _target = proxy.node("edge1").await;
    proxy.caller().await.assert_reset().await;
    assert_eq!(proxy.metrics.refusals(Reason::Unauthenticated), 1);
    assert_eq!(proxy.dials(), []);
}

#[tokio::test]
async fn a_forward_on_somebodys_behalf_asks_as_that_user_from_the_callers_address() {
    let (proxy, _) = forward("edge1:22", Asker::User("alice".parse().unwrap())).await;
    proxy.gateway.trusting.store(false, Ordering::Relaxed);
    let target = proxy.node("edge1").await;
    let _caller = proxy.caller().await;
    let _end = target.accept().await;
    let principal = proxy.dials()[0].principal.clone();
    assert_eq!(principal.to_string(), "user:alice");
    assert_eq!(principal.ip(), Some([127, 0, 0, 1].into()));
}

#[tokio::test]
async fn a_closed_forward_listens_no_more_and_cuts_what_runs() {
    let (proxy, closed) = forward("edge1:22", Asker::Caller).await;
    let target = proxy.node("edge1").await;
    let mut caller = proxy.caller().await;
    let mut end = target.accept().await;
    end.send("half of it").await;
    assert_eq!(caller.exactly(10).await.unwrap(), b"half of it");
    closed.cancel();
    caller.assert_reset().await;
    end.assert_reset().await;
    // The port is free once the accept loop has gone.
    while tokio::net::TcpStream::connect(proxy.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_streams_of_a_forward_are_of_the_class_that_was_configured_for_it() {
    for (class, dialled) in [(None, Class::Interactive), (Some(Class::Bulk), Class::Bulk)] {
        let (proxy, _) = forward_of_class("edge1:22", Asker::Caller, class).await;
        let target = proxy.node("edge1").await;
        let _caller = proxy.caller().await;
        let _end = target.accept().await;
        assert_eq!(proxy.dials()[0].class, dialled);
    }
}

/// N9
#[tokio::test]
async fn n9_a_cut_does_not_look_like_an_end_through_a_forward() {
    let (proxy, _) = forward("edge1:22", Asker::Caller).await;
    let target = proxy.node("edge1").await;
    let mut caller = proxy.caller().await;
    let mut end = target.accept().await;
    end.send("half of it").await;
    assert_eq!(caller.exactly(10).await.unwrap(), b"half of it");
    end.reset();
    caller.assert_reset().await;

    let caller = proxy.caller().await;
    let mut end = target.accept().await;
    caller.reset();
    end.assert_reset().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_dial_along() {
    let (proxy, _) = forward("never:22", Asker::Caller).await;
    let caller = proxy.caller().await;
    in_time(proxy.gateway.waiting.notified()).await;
    caller.reset();
    in_time(proxy.gateway.gave_up.notified()).await;
}

async fn forward(to: &str, asker: Asker) -> (Proxy, CancellationToken) {
    forward_of_class(to, asker, None).await
}

async fn forward_of_class(to: &str, asker: Asker, class: Option<Class>) -> (Proxy, CancellationToken) {
    let closed = CancellationToken::new();
    let forward = Forward {
        destination: to.parse().unwrap(),
        asker,
        class,
        closed: closed.clone(),
    };
    (Proxy::door(Door::Forward(Arc::new(forward))).await, closed)
}
