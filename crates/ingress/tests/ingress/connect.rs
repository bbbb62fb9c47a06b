//! HTTP CONNECT.

use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tunnel_ingress::Way;
use tunnel_model::{Class, Reason};

use crate::{caller::in_time, proxy::Proxy};

#[tokio::test]
async fn a_caller_reaches_a_target_by_connect() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let field = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    caller.request("CONNECT", "edge1.edge.test:22", &field).await;
    assert_eq!(caller.head().await.unwrap().status(), 200);
    let mut end = target.accept().await;
    caller.send("ping").await;
    assert_eq!(end.exactly(4).await.unwrap(), b"ping");
    end.send("pong").await;
    assert_eq!(caller.exactly(4).await.unwrap(), b"pong");

    let [dial] = &proxy.dials()[..] else {
        panic!("{:?}", proxy.dials())
    };
    assert_eq!(dial.principal.to_string(), "user:alice");
    assert_eq!(dial.destination.target.to_string(), "port:22");
    assert_eq!(dial.class, Class::Interactive);
    assert_eq!(dial.trace.to_string(), trace);
    assert_eq!(dial.client, caller.io.local_addr().unwrap());
    assert_eq!(proxy.metrics.requests(Way::Connect), 1);
}

#[tokio::test]
async fn a_caller_may_choose_the_class_of_its_tunnel() {
    let (proxy, target) = Proxy::with_target().await;
    for (chosen, class) in [
        ("bulk", Class::Bulk),
        ("interactive", Class::Interactive),
        ("api", Class::Api),
    ] {
        let mut caller = proxy.caller().await;
        let field = format!("Tunnel-Class: {chosen}");
        caller.request("CONNECT", "edge1:22", &field).await;
        assert_eq!(caller.head().await.unwrap().status(), 200);
        let _end = target.accept().await;
        assert_eq!(proxy.dials().last().unwrap().class, class);
    }
}

/// B15
#[tokio::test]
async fn b15_a_class_that_is_none_is_refused_in_one_line_and_nothing_is_dialled() {
    let (proxy, _target) = Proxy::with_target().await;
    for fields in [
        "Tunnel-Class: control",
        "Tunnel-Class: urgent",
        "Tunnel-Class: bulk\r\nTunnel-Class: bulk",
        "Tunnel_Class: bulk",
    ] {
        for (method, to) in [("CONNECT", "edge1:22"), ("GET", "http://edge1/")] {
            let mut caller = proxy.caller().await;
            caller.request(method, to, fields).await;
            let answer = caller.message().await.unwrap();
            assert_eq!(answer.status(), 400, "{method} {fields}");
            assert_eq!(answer.field("tunnel-reason"), Some("bad-request"));
            let text = String::from_utf8(answer.body).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            if fields == "Tunnel-Class: urgent" {
                assert_eq!(
                    text,
                    "error[bad-request]: Tunnel-Class names no class of a stream; write interactive, api, metrics or bulk\n"
                );
            }
            caller.until_end().await.unwrap();
        }
    }
    assert_eq!(proxy.dials(), []);
}

#[tokio::test]
async fn a_caller_that_ends_its_direction_still_gets_the_answer() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let mut end = target.accept().await;
    caller.send("question").await;
    caller.half_close().await;
    assert_eq!(end.until_end().await.unwrap(), b"question");
    end.send("answer").await;
    drop(end);
    assert_eq!(caller.until_end().await.unwrap(), b"answer");
}

#[tokio::test]
async fn a_target_that_ends_its_direction_still_gets_what_follows() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let mut end = target.accept().await;
    end.send("all").await;
    end.half_close().await;
    assert_eq!(caller.until_end().await.unwrap(), b"all");
    caller.send("more").await;
    caller.half_close().await;
    assert_eq!(end.until_end().await.unwrap(), b"more");
}

/// N9
#[tokio::test]
async fn n9_a_target_that_breaks_resets_the_caller() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let mut end = target.accept().await;
    end.send("half of it").await;
    assert_eq!(caller.exactly(4).await.unwrap(), b"half");
    end.reset();
    caller.assert_reset().await;
}

#[tokio::test]
async fn a_caller_that_breaks_resets_the_target() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let mut end = target.accept().await;
    caller.send("half of it").await;
    assert_eq!(end.exactly(4).await.unwrap(), b"half");
    caller.reset();
    end.assert_reset().await;
}

#[tokio::test]
async fn a_caller_that_breaks_is_noticed_while_the_target_does_not_read() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let mut end = target.accept().await;
    end.half_close().await;
    assert_eq!(caller.until_end().await.unwrap(), b"");
    let chunk = [0; 64 * 1024];
    while tokio::time::timeout(Duration::from_millis(300), caller.io.write_all(&chunk))
        .await
        .is_ok()
    {}
    caller.reset();
    in_time(end.io.ready(Interest::ERROR)).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_breaks_is_noticed_after_it_ended_its_direction() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.connect("edge1:80").await;
    let mut end = target.accept().await;
    caller.half_close().await;
    assert_eq!(end.until_end().await.unwrap(), b"");
    caller.reset();
    in_time(proxy.gateway.ended.notified()).await;
}

#[tokio::test]
async fn a_caller_that_breaks_is_not_dialled_for_any_longer() {
    let proxy = Proxy::start().await;
    let mut caller = proxy.caller().await;
    caller.request("CONNECT", "never:80", "").await;
    in_time(proxy.gateway.waiting.notified()).await;
    caller.reset();
    in_time(proxy.gateway.gave_up.notified()).await;
}

#[tokio::test]
async fn what_a_caller_sends_ahead_reaches_the_target_first() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    let credential = crate::proxy::ALICE;
    caller
        .send(format!(
            "CONNECT edge1:80 HTTP/1.0\r\nProxy-Authorization: {credential}\r\n\r\nahead, "
        ))
        .await;
    assert_eq!(caller.head().await.unwrap().status(), 200);
    caller.send("then the rest").await;
    caller.half_close().await;
    assert_eq!(
        target.accept().await.until_end().await.unwrap(),
        b"ahead, then the rest"
    );
}

#[tokio::test]
async fn a_caller_without_a_valid_credential_is_asked_for_one() {
    let (proxy, _target) = Proxy::with_target().await;
    for field in [
        "X-Nothing: here",
        "Proxy-Authorization: Basic YWxpY2U6d3Jvbmc=",
        "Proxy-Authorization: Basic !",
        "Proxy-Authorization: Bearer wrong",
        "Proxy-Authorization: Digest username=alice",
        "Authorization: Basic YWxpY2U6c2VjcmV0",
    ] {
        for (method, target) in [
            ("CONNECT", "edge1:80"),
            ("GET", "http://edge1/"),
            ("GET", "http://169.254.169.254/"),
        ] {
            let host = target.trim_start_matches("http://").trim_end_matches('/');
            let mut caller = proxy.caller().await;
            caller
                .send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n"))
                .await;
            let answer = caller.message().await.unwrap();
            assert_eq!(answer.status(), 407, "{method} {field}");
            assert_eq!(
                answer.field("tunnel-reason"),
                Some("unauthenticated"),
                "{method} {field}"
            );
            assert!(
                answer.head.contains("Proxy-Authenticate: Basic realm="),
                "{}",
                answer.head
            );
            assert!(
                answer.head.contains("Proxy-Authenticate: Bearer realm="),
                "{}",
                answer.head
            );
        }
    }
    assert_eq!(proxy.dials(), [], "nobody was let in");
    assert_eq!(proxy.metrics.refusals(Reason::Unauthenticated), 18);
}

#[tokio::test]
async fn a_caller_that_was_asked_may_answer_on_the_same_connection() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    let mut caller = proxy.caller().await;
    caller.send("GET http://edge1/ HTTP/1.1\r\nHost: edge1\r\n\r\n").await;
    assert_eq!(caller.message().await.unwrap().status(), 407);
    caller
        .send("GET http://edge1/ HTTP/1.1\r\nHost: edge1\r\nProxy-Authorization: Bearer token\r\n\r\n")
        .await;
    assert_eq!(caller.message().await.unwrap().status(), 200);
    assert_eq!(proxy.dials()[0].principal.to_string(), "user:robot");
}

#[tokio::test]
async fn each_refusal_has_its_status_and_its_code() {
    let proxy = Proxy::start().await;
    for (node, status, code) in [
        ("nobody", 404, "unknown-node"),
        ("offline", 503, "node-offline"),
        ("denied", 403, "denied"),
        ("refusing", 502, "target-refused"),
        ("slow", 504, "target-timeout"),
        ("busy", 503, "overloaded"),
        ("no.such.name", 403, "denied"),
    ] {
        for (method, target) in [("CONNECT", format!("{node}:80")), ("GET", format!("http://{node}/"))] {
            let mut caller = proxy.caller().await;
            caller.request(method, &target, "").await;
            let answer = caller.message().await.unwrap();
            assert_eq!(
                (answer.status(), answer.field("tunnel-reason")),
                (status, Some(code)),
                "{method} {target}"
            );
            let body = String::from_utf8(answer.body.clone()).unwrap();
            assert!(
                body.starts_with(&format!("error[{code}]: ")) && body.ends_with('\n'),
                "{body}"
            );
            assert_eq!(body.lines().count(), 1, "{body}");
            assert_eq!(answer.field("retry-after").is_some(), node == "busy");
        }
    }
}

#[tokio::test]
async fn a_program_is_refused_in_json() {
    let proxy = Proxy::start().await;
    let mut caller = proxy.caller().await;
    caller
        .request("GET", "http://offline/", "Accept: text/html, application/json;q=0.9")
        .await;
    let answer = caller.message().await.unwrap();
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["code"], "node-offline");
    assert_eq!(body["error"]["message"], "offline: node-offline");
}
