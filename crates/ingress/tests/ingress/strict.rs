//! Messages that two parsers might read differently (B15), and those that are simply broken.

use tunnel_ingress::Door;
use tunnel_model::Reason;

use crate::{
    proxy::{ALICE, Proxy},
    smuggling::{BY_HOST, CHUNKS, FIELDS, HEADS},
};

/// B15
#[tokio::test]
async fn b15_no_ambiguous_request_gets_further_than_the_door() {
    let post = |fields: &&str| (format!("POST http://edge1/ HTTP/1.1\r\nHost: edge1\r\n{fields}"), 400);
    let heads = HEADS.iter().map(|&(head, status)| (head.to_owned(), status));
    let cases: Vec<(String, u16)> = FIELDS.iter().map(post).chain(heads).collect();
    assert!(cases.len() >= 100, "{} cases", cases.len());

    let (proxy, _target) = Proxy::with_target().await;
    for (head, status) in &cases {
        let mut caller = proxy.caller().await;
        caller
            .send(format!("{head}Proxy-Authorization: {ALICE}\r\n\r\n0\r\n\r\n"))
            .await;
        assert_refused(&caller.until_end().await.unwrap(), *status, head);
    }
    assert_eq!(proxy.dials(), [], "a request got through");
    assert_eq!(proxy.metrics.refusals(Reason::BadRequest), cases.len() as u64);
}

/// B15
#[tokio::test]
async fn b15_no_ambiguous_request_gets_further_than_the_door_where_host_decides() {
    let post = |fields: &&str| (format!("POST / HTTP/1.1\r\nHost: edge1\r\n{fields}"), 400);
    let heads = BY_HOST.iter().map(|&(head, status)| (head.to_owned(), status));
    let cases: Vec<(String, u16)> = FIELDS.iter().map(post).chain(heads).collect();
    assert!(cases.len() >= 150, "{} cases", cases.len());

    let proxy = Proxy::door(Door::Http).await;
    let _targets = (proxy.node("edge1").await, proxy.node("edge2").await);
    for (head, status) in &cases {
        let mut caller = proxy.caller().await;
        caller
            .send(format!("{head}Proxy-Authorization: {ALICE}\r\n\r\n0\r\n\r\n"))
            .await;
        assert_refused(&caller.until_end().await.unwrap(), *status, head);
    }
    assert_eq!(proxy.dials(), [], "a request got through");
    assert_eq!(proxy.metrics.refusals(Reason::BadRequest), cases.len() as u64);
}

/// One refusal, and after it the end.
fn assert_refused(answer: &[u8], status: u16, what: &str) {
    let answer = String::from_utf8_lossy(answer);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what:?}: {answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{what:?}: {answer}");
    assert!(
        answer.contains("\r\nTunnel-Reason: bad-request\r\n"),
        "{what:?}: {answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what:?}: {answer}");
}

/// B15
#[tokio::test]
async fn b15_malformed_chunks_end_the_request_and_reset_the_target() {
    let doors = [(Door::Proxy, "http://edge1/"), (Door::Http, "/")];
    for (chunks, (door, url)) in CHUNKS
        .iter()
        .flat_map(|chunks| doors.clone().map(|door| (chunks, door)))
    {
        let proxy = Proxy::door(door).await;
        let target = proxy.node("edge1").await;
        let mut caller = proxy.caller().await;
        caller
            .send(format!(
                "POST {url} HTTP/1.1\r\nHost: edge1\r\nProxy-Authorization: {ALICE}\r\nTransfer-Encoding: chunked\r\n\r\n"
            ))
            .await;
        let mut end = target.accept().await;
        end.head().await.unwrap();
        caller.send(chunks).await;
        assert_refused(&caller.until_end().await.unwrap(), 400, chunks);
        end.assert_reset().await;
    }
}

/// B15
#[tokio::test]
async fn b15_what_follows_a_refused_request_is_not_taken_for_a_request() {
    let smuggled = format!("GET http://edge1/admin HTTP/1.1\r\nHost: edge1\r\nProxy-Authorization: {ALICE}\r\n\r\n");
    let length = smuggled.len();
    for (first, credential, status) in [
        (
            "CONNECT offline:80 HTTP/1.1\r\nHost: offline:80\r\n".to_owned(),
            ALICE,
            503,
        ),
        (
            "CONNECT edge1:80 HTTP/1.1\r\nHost: edge1:80\r\n".to_owned(),
            "Basic x",
            407,
        ),
        (
            format!("POST http://offline/ HTTP/1.1\r\nHost: offline\r\nContent-Length: {length}\r\n"),
            ALICE,
            503,
        ),
        (
            "POST http://offline/ HTTP/1.1\r\nHost: offline\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            ALICE,
            503,
        ),
    ] {
        let (proxy, _target) = Proxy::with_target().await;
        let mut caller = proxy.caller().await;
        caller
            .send(format!("{first}Proxy-Authorization: {credential}\r\n\r\n{smuggled}"))
            .await;
        let answer = String::from_utf8(caller.until_end().await.unwrap()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{first}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{first}: {answer}");
        assert!(
            proxy
                .dials()
                .iter()
                .all(|dial| dial.destination.node.as_str() == "offline"),
            "{first}"
        );
    }
}

/// B17
#[tokio::test]
async fn b17_heads_without_end_are_refused_at_their_limit() {
    let many: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(64 * 1024));
    let (proxy, _target) = Proxy::with_target().await;
    for fields in [many, long] {
        let mut caller = proxy.caller().await;
        caller.request("GET", "http://edge1/", fields.trim_end()).await;
        assert_refused(&caller.until_end().await.unwrap(), 431, &fields[..20]);
    }
    assert_eq!(proxy.dials(), []);
}

#[tokio::test]
async fn a_head_that_ends_in_the_middle_is_refused() {
    let proxy = Proxy::start().await;
    let mut caller = proxy.caller().await;
    caller.send("GET http://edge1/ HTTP/1.1\r\nHost: ed").await;
    caller.half_close().await;
    assert_refused(&caller.until_end().await.unwrap(), 400, "half a head");
}

#[tokio::test]
async fn another_protocol_is_told_what_is_spoken_here() {
    let proxy = Proxy::start().await;
    for (hello, status) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], 505),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400),
        (b"\x04\x01\0\x50\0\0\0\x01\0edge1\0", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
    ] {
        let mut caller = proxy.caller().await;
        caller.send(hello).await;
        assert_refused(
            &caller.until_end().await.unwrap(),
            status,
            &String::from_utf8_lossy(hello),
        );
    }
}
