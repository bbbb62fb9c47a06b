//! Plain HTTP requests, in absolute form.

use tunnel_ingress::Way;
use tunnel_model::Class;

use crate::{
    caller::Caller,
    proxy::{ALICE, BOB, Proxy},
    target::Target,
};

#[tokio::test]
async fn a_plain_request_reaches_its_target_in_origin_form_and_without_the_credential() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://web.edge1:8080/a?b", "X-Mine: 1").await;
    let mut end = target.accept().await;
    let request = end.message().await.unwrap().head;
    assert!(
        request.starts_with("GET /a?b HTTP/1.1\r\nHost: web.edge1:8080\r\nX-Mine: 1\r\nTraceparent: 00-"),
        "{request}"
    );
    assert!(!request.to_lowercase().contains("proxy-"), "{request}");

    end.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nTunnel-Reason: forged\r\n\r\nok")
        .await;
    let answer = caller.message().await.unwrap();
    assert_eq!(answer.head, "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(answer.body, b"ok");

    let [dial] = &proxy.dials()[..] else {
        panic!("{:?}", proxy.dials())
    };
    assert_eq!(dial.destination.target.to_string(), "service:web");
    assert!(
        request.contains(&dial.trace.to_string()),
        "the target sees the trace that was dialled with"
    );
    assert_eq!(proxy.metrics.requests(Way::Plain), 1);
}

#[tokio::test]
async fn requests_to_one_target_share_a_stream() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    let mut caller = proxy.caller().await;
    for n in 0..5 {
        caller.request("GET", &format!("http://edge1/{n}"), "").await;
        let answer = caller.message().await.unwrap();
        assert!(answer.body.starts_with(format!("GET /{n} ").as_bytes()));
    }
    caller.request("HEAD", "http://nobody/", "").await;
    assert_eq!(
        caller.head().await.unwrap().status(),
        404,
        "a refusal does not end the connection"
    );
    assert_eq!(proxy.dials().len(), 2);
}

#[tokio::test]
async fn a_request_of_another_class_gets_a_stream_of_its_own_and_no_target_hears_of_classes() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    let mut caller = proxy.caller().await;
    for field in [
        "",
        "Tunnel-Class: bulk",
        "tunnel-class: bulk",
        "Tunnel-Class: metrics",
        "",
    ] {
        caller.request("GET", "http://edge1/", field).await;
        let seen = String::from_utf8(caller.message().await.unwrap().body).unwrap();
        assert!(!seen.to_lowercase().contains("tunnel-class"), "{seen}");
    }
    let classes: Vec<_> = proxy.dials().iter().map(|dial| dial.class).collect();
    assert_eq!(classes, [Class::Api, Class::Bulk, Class::Metrics, Class::Api]);
}

/// T4
#[tokio::test]
async fn t4_a_stream_is_shared_neither_between_targets_nor_between_principals() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    proxy.node("edge2").await.answer_all();
    let mut caller = proxy.caller().await;
    for (host, credential) in [("edge1", ALICE), ("edge2", ALICE), ("edge2", BOB), ("edge2:81", BOB)] {
        caller
            .send(format!(
                "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {credential}\r\n\r\n"
            ))
            .await;
        assert_eq!(caller.message().await.unwrap().status(), 200);
    }
    let dials = proxy.dials();
    let dialled: Vec<_> = dials
        .iter()
        .map(|d| (d.principal.to_string(), d.destination.node.to_string()))
        .collect();
    assert_eq!(
        dialled,
        [
            ("user:alice", "edge1"),
            ("user:alice", "edge2"),
            ("user:bob", "edge2"),
            ("user:bob", "edge2")
        ]
        .map(|(who, node)| (who.to_owned(), node.to_owned()))
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (proxy, target) = Proxy::with_target().await;
    target.answer_all();
    let mut caller = proxy.caller().await;
    let mut all = String::new();
    for n in 0..20 {
        let request = format!("POST http://edge1/{n} HTTP/1.1\r\nHost: edge1\r\nProxy-Authorization: {ALICE}\r\n");
        all.push_str(&format!("{request}Content-Length: 5\r\n\r\nbody{}", n % 10));
    }
    caller.send(all).await;
    for n in 0..20 {
        let body = String::from_utf8(caller.message().await.unwrap().body).unwrap();
        assert!(
            body.starts_with(&format!("POST /{n} ")) && body.ends_with(&format!("body{}", n % 10)),
            "{body}"
        );
    }
    assert_eq!(proxy.dials().len(), 1);
}

#[tokio::test]
async fn a_target_that_tired_of_waiting_is_dialled_again() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    answer_one(&mut caller, &target).await;

    // This time it ends only once the next request is on its way.
    caller.request("GET", "http://edge1/again", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.message().await.unwrap().status(), 200);
    caller.request("GET", "http://edge1/once-more", "").await;
    end.message().await.unwrap();
    drop(end);
    let mut end = target.accept().await;
    assert!(end.message().await.unwrap().head.starts_with("GET /once-more "));
    end.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(caller.message().await.unwrap().status(), 204);
}

/// A request answered by a target that then ends the connection.
async fn answer_one(caller: &mut Caller, target: &Target) {
    caller.request("GET", "http://edge1/first", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.message().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_not_safe_to_repeat_is_not_repeated() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    caller.message().await.unwrap();

    caller.request("POST", "http://edge1/pay", "").await;
    end.message().await.unwrap();
    drop(end);
    let answer = caller.message().await.unwrap();
    assert_eq!(
        (answer.status(), answer.field("tunnel-reason")),
        (502, Some("target-reset"))
    );
    assert_eq!(proxy.dials().len(), 1);
}

#[tokio::test]
async fn a_target_that_speaks_out_of_turn_is_not_used_again() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        .await;
    assert_eq!(caller.message().await.unwrap().body, b"ok");
    caller.request("GET", "http://edge1/", "").await;
    let mut fresh = target.accept().await;
    fresh.message().await.unwrap();
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
    assert_eq!(caller.message().await.unwrap().body, b"good");
}

/// N9
#[tokio::test]
async fn n9_an_answer_that_is_cut_never_looks_complete() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnot all\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnot all\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnot all, and malformed\r\n",
    ] {
        for reset in [false, true] {
            let (proxy, target) = Proxy::with_target().await;
            let mut caller = proxy.caller().await;
            caller.request("GET", "http://edge1/", "").await;
            let mut end = target.accept().await;
            end.message().await.unwrap();
            end.send(answer).await;
            caller.head().await.unwrap();
            if reset {
                end.reset()
            } else {
                drop(end)
            }
            caller.assert_reset().await;
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_as_the_target_ends_it() {
    for (reset, orderly) in [(false, true), (true, false)] {
        let (proxy, target) = Proxy::with_target().await;
        let mut caller = proxy.caller().await;
        caller.request("GET", "http://edge1/", "").await;
        let mut end = target.accept().await;
        end.message().await.unwrap();
        end.send("HTTP/1.1 200 OK\r\n\r\nall there is").await;
        let head = caller.head().await.unwrap();
        assert_eq!(head.field("connection"), Some("close"));
        assert_eq!(caller.exactly(3).await.unwrap(), b"all");
        if reset {
            end.reset()
        } else {
            drop(end)
        }
        if orderly {
            assert_eq!(caller.until_end().await.unwrap(), b" there is");
        } else {
            caller.assert_reset().await;
        }
    }
}

#[tokio::test]
async fn a_target_without_a_proper_answer_is_a_502() {
    for (answer, code) in [
        ("", "target-reset"),
        ("HTTP/1.1 200 OK\r\nContent-", "target-reset"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "protocol-error"),
        ("HTTP/1.1 200 OK\n\n", "protocol-error"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "protocol-error",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "protocol-error",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "protocol-error",
        ),
    ] {
        let (proxy, target) = Proxy::with_target().await;
        let mut caller = proxy.caller().await;
        caller.request("GET", "http://edge1/", "").await;
        let mut end = target.accept().await;
        end.message().await.unwrap();
        end.send(answer).await;
        end.half_close().await;
        let got = caller.message().await.unwrap();
        assert_eq!(
            (got.status(), got.field("tunnel-reason")),
            (502, Some(code)),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_caller_that_breaks_in_mid_request_resets_the_target() {
    for body in [
        "Content-Length: 100\r\n\r\nnot all",
        "Transfer-Encoding: chunked\r\n\r\n7\r\nnot all\r\n",
    ] {
        for reset in [false, true] {
            let (proxy, target) = Proxy::with_target().await;
            let mut caller = proxy.caller().await;
            caller
                .send(format!(
                    "POST http://edge1/ HTTP/1.1\r\nHost: edge1\r\nProxy-Authorization: {ALICE}\r\n{body}"
                ))
                .await;
            let mut end = target.accept().await;
            end.head().await.unwrap();
            end.exactly(7).await.unwrap();
            if reset {
                caller.reset()
            } else {
                drop(caller)
            }
            end.assert_reset().await;
        }
    }
}

#[tokio::test]
async fn a_caller_that_breaks_while_it_waits_resets_the_target() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", "").await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    caller.reset();
    end.assert_reset().await;
}

#[tokio::test]
async fn a_caller_that_ends_its_direction_after_the_request_gets_its_answer() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("GET", "http://edge1/", "").await;
    caller.half_close().await;
    let mut end = target.accept().await;
    end.message().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert!(caller.until_end().await.unwrap().ends_with(b"\r\n\r\nok"));
    assert_eq!(end.until_end().await.unwrap(), b"", "the idle stream ended in order");
}

#[tokio::test]
async fn a_caller_may_wait_to_be_told_to_continue() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller
        .request("PUT", "http://edge1/", "Content-Length: 4\r\nExpect: 100-continue")
        .await;
    let mut end = target.accept().await;
    assert_eq!(end.head().await.unwrap().field("expect"), Some("100-continue"));
    end.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.unwrap().status(), 103);
    assert_eq!(caller.head().await.unwrap().status(), 100);
    caller.send("body").await;
    assert_eq!(end.exactly(4).await.unwrap(), b"body");
    end.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    let answer = caller.message().await.unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (201, None));
}

#[tokio::test]
async fn a_caller_that_is_told_no_instead_of_continue_gets_no_second_request_through() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller
        .request("PUT", "http://edge1/", "Content-Length: 40\r\nExpect: 100-continue")
        .await;
    let mut end = target.accept().await;
    end.head().await.unwrap();
    end.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        .await;
    let answer = caller.message().await.unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (417, Some("close")));
    assert_eq!(caller.until_end().await.unwrap(), b"");
    end.assert_reset().await;
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_through_is_delivered() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller.request("POST", "http://edge1/", "Content-Length: 1000000").await;
    caller.send("a beginning").await;
    let mut end = target.accept().await;
    end.head().await.unwrap();
    end.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        .await;
    end.half_close().await;
    let answer = caller.message().await.unwrap();
    assert_eq!(
        (answer.status(), answer.field("connection"), &answer.body[..]),
        (413, Some("close"), &b"big"[..])
    );
    assert_eq!(caller.until_end().await.unwrap(), b"");
}

#[tokio::test]
async fn a_request_and_its_answer_may_flow_at_the_same_time() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller
        .request("POST", "http://edge1/", "Transfer-Encoding: chunked")
        .await;
    let mut end = target.accept().await;
    end.head().await.unwrap();
    end.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    caller.head().await.unwrap();
    for n in 0..10 {
        let chunk = format!("2\r\n#{n}\r\n");
        caller.send(&chunk).await;
        assert_eq!(end.exactly(chunk.len()).await.unwrap(), chunk.as_bytes());
        end.send(&chunk).await;
        assert_eq!(caller.exactly(chunk.len()).await.unwrap(), chunk.as_bytes());
    }
    end.send("0\r\n\r\n").await;
    assert_eq!(caller.exactly(5).await.unwrap(), b"0\r\n\r\n");
    caller.send("0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(end.exactly(15).await.unwrap(), b"0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(caller.until_end().await.unwrap(), b"");
}

#[tokio::test]
async fn answers_without_a_body_do_not_hold_up_the_next() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    let mut end = None;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 100\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        caller.request(method, "http://edge1/", "").await;
        let end = match &mut end {
            Some(end) => end,
            none => none.insert(target.accept().await),
        };
        end.message().await.unwrap();
        end.send(answer).await;
        let head = caller.head().await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(head.status().to_string().as_str()));
    }
    assert_eq!(proxy.dials().len(), 1);
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_an_answer_that_it_understands() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    caller
        .send(format!(
            "GET http://edge1/ HTTP/1.0\r\nProxy-Authorization: {ALICE}\r\n\r\n"
        ))
        .await;
    let mut end = target.accept().await;
    let request = end.message().await.unwrap();
    assert!(
        request.head.starts_with("GET / HTTP/1.0\r\nHost: edge1\r\n"),
        "{}",
        request.head
    );
    assert_eq!(request.field("connection"), Some("close"));
    end.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let all = String::from_utf8(caller.until_end().await.unwrap()).unwrap();
    assert_eq!(
        all,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    );
}

#[tokio::test]
async fn a_long_body_arrives_whole_in_both_directions() {
    let (proxy, target) = Proxy::with_target().await;
    let mut caller = proxy.caller().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    caller
        .request("POST", "http://edge1/", &format!("Content-Length: {}", body.len()))
        .await;
    let mut end = target.accept().await;
    let (sent, got) = tokio::join!(caller.send(&body), end.message());
    let () = sent;
    assert!(got.unwrap().body == body);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = async {
        end.send(head).await;
        end.send(&body).await;
    };
    let ((), got) = tokio::join!(answer, caller.message());
    assert!(got.unwrap().body == body);
}
