//! Both ends, joined by pipes.

mod hostile;
mod support;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_model::Reason;

use self::support::{Caller, GET, Page, Pair, page, plain};
use crate::scrape::{MAX_BODY, Served};

#[tokio::test]
async fn many_scrapes_of_one_connection_are_exact_and_small() {
    let pair = Pair::new();
    let mut caller = pair.caller(|n, _| page(n));
    for n in 0..40 {
        let before = pair.wire();
        assert_eq!(caller.get(GET).await, page(n).body, "scrape {n}");
        if n > 2 {
            let wire = pair.wire() - before;
            assert!(wire < page(n).body.len() as u64 / 50, "scrape {n} took {wire} bytes");
        }
    }
    assert!(pair.served().iter().all(|how| matches!(how, Served::Scraped { .. })));
}

#[tokio::test]
async fn a_page_is_exact_however_it_is_framed_and_encoded() {
    let gzip: Vec<u8> = (0..5_000u32).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
    let pages = [
        page(1),
        page(2).chunked(100),
        Page::new("Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", gzip),
        Page::new("", Vec::new()),
        page(3).chunked(7),
        Page::new("DATE: yesterday\r\nX-Odd:  two  spaces \r\n", b"a 1\r\nb 2".to_vec()),
    ];
    let pair = Pair::new();
    let all = pages.clone();
    let mut caller = pair.caller(move |n, _| all[n].clone());
    for page in pages {
        assert_eq!(caller.get(GET).await, page.body);
    }
}

#[tokio::test]
async fn the_head_of_an_answer_is_the_targets_own_but_for_its_framing() {
    let pair = Pair::new();
    let dates = ["26 Nov 2026 15:01:22", "26 Nov 2026 15:01:37", "26 Nov 2026 15:01:30"];
    let mut caller = pair.caller(move |n, _| {
        Page::new(
            &format!("A: b\r\nDate: Thu, {} GMT\r\nC: d\r\n", dates[n]),
            b"x 1\n".to_vec(),
        )
        .chunked(2)
    });
    for date in dates {
        let (head, body) = caller.exchange(GET).await;
        assert_eq!(body, b"x 1\n");
        assert_eq!(
            String::from_utf8(head).unwrap(),
            format!("HTTP/1.1 200 OK\r\nA: b\r\nDate: Thu, {date} GMT\r\nC: d\r\nContent-Length: 4\r\n\r\n")
        );
    }
}

#[tokio::test]
async fn the_target_is_asked_for_plain_text_by_whom_and_as_the_caller_says() {
    let pair = Pair::new();
    let mut caller = pair.caller(|_, head| plain(head));
    let head = "GET /metrics?a=b HTTP/1.1\r\nHost: edge1:9100\r\nAccept: text/plain\r\nAccept-Encoding: gzip\r\n\
                Authorization: Bearer x\r\nTraceparent: 00-01-02-00\r\n\r\n";
    assert_eq!(
        String::from_utf8(caller.get(head).await).unwrap(),
        "GET /metrics?a=b HTTP/1.1\r\nHost: edge1:9100\r\nAccept: text/plain\r\nAuthorization: Bearer x\r\n\r\n"
    );
}

#[tokio::test]
async fn callers_at_once_cost_one_transfer_and_each_gets_the_whole() {
    let pair = Pair::new();
    let (mut first, hold) = pair.held_caller();
    first.send(GET).await;
    hold.asked().await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = pair.caller(|_, _| panic!("it has no need to be asked"));
        other
            .send("GET /metrics HTTP/1.1\r\nHost: a\r\nTraceparent: 00-7-7-00\r\n\r\n")
            .await;
        other.poll().await;
        others.push(other);
    }
    let before = pair.wire();
    hold.answer(&page(1));
    assert_eq!(first.receive().await.1, page(1).body);
    for other in &mut others {
        assert_eq!(other.receive().await.1, page(1).body);
    }
    assert!(pair.wire() - before < 2 * page(1).body.len() as u64);
    let shared = pair
        .served()
        .iter()
        .filter(|how| matches!(how, Served::Shared(_)))
        .count();
    assert_eq!(shared, 3);
}

#[tokio::test]
async fn an_answer_is_not_shared_between_credentials_paths_nodes_or_targets() {
    let pair = Pair::new();
    let (mut first, hold) = pair.held_caller();
    let alice = "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n\r\n";
    first.send(alice).await;
    hold.asked().await;
    for (node, target, head) in [
        ("edge1", "service:node", alice.replace("alice", "mallory")),
        ("edge1", "service:node", GET.to_owned()),
        ("edge1", "service:node", alice.replace("/metrics", "/other")),
        ("edge2", "service:node", alice.to_owned()),
        ("edge1", "service:other", alice.to_owned()),
    ] {
        let mut other = pair.caller_of(node, target, |_, _| plain(b"own"));
        assert_eq!(other.get(&head).await, b"own");
    }
    hold.answer(&plain(b"for alice"));
    assert_eq!(first.receive().await.1, b"for alice");
}

#[tokio::test]
async fn whoever_waits_for_a_scrape_that_comes_to_nothing_makes_one_of_its_own() {
    let pair = Pair::new();
    let (mut first, hold) = pair.held_caller();
    first.send(GET).await;
    hold.asked().await;
    let mut second = pair.caller(|_, _| plain(b"second's own"));
    second.send(GET).await;
    second.poll().await;
    drop(first);
    assert_eq!(second.receive().await.1, b"second's own");
}

#[tokio::test]
async fn a_base_that_either_end_has_lost_costs_one_whole_body() {
    let mut pair = Pair::new();
    let mut n = 0;
    let mut scrape = async |pair: &Pair| {
        let mut caller = pair.caller(move |_, _| page(n));
        let before = pair.wire();
        assert_eq!(caller.get(GET).await, page(n).body);
        n += 1;
        pair.wire() - before
    };
    let whole = scrape(&pair).await;
    assert!(scrape(&pair).await < whole / 3);
    pair.restart_edge();
    assert!(scrape(&pair).await > whole / 2);
    assert!(scrape(&pair).await < whole / 3);
    pair.restart_gateway();
    assert!(scrape(&pair).await > whole / 2);
    assert!(scrape(&pair).await < whole / 3);
}

#[tokio::test]
async fn a_target_that_ends_without_an_answer_is_seen_to_end() {
    let pair = Pair::new();
    let mut caller = pair.caller(|n, _| if n == 0 { page(0) } else { Page::end() });
    caller.get(GET).await;
    caller.send(GET).await;
    assert_eq!(caller.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn a_target_that_ends_within_its_answer_is_not_completed() {
    let pair = Pair::new();
    let cut = Page::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").last();
    let said = cut.bytes();
    let mut caller = pair.caller(move |_, _| cut.clone());
    caller.send(GET).await;
    assert_eq!(caller.rest().await.unwrap(), said);
}

#[tokio::test]
async fn a_target_that_says_more_than_its_length_is_passed_on_as_it_is() {
    let pair = Pair::new();
    let mut caller = pair.caller(|_, _| Page::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nx 1\nand more").last());
    let body = caller.get(GET).await;
    assert_eq!(
        (body, caller.rest().await.unwrap()),
        (b"x 1\n".to_vec(), b"and more".to_vec())
    );
}

#[tokio::test]
async fn what_cannot_be_held_travels_as_it_is() {
    let long = Page::new("", vec![b'x'; MAX_BODY + 1]);
    for odd in [
        Page::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").last(),
        Page::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n").last(),
        Page::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx").last(),
        Page::raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").last(),
        Page::raw("SSH-2.0-OpenSSH\r\n").last(),
        long.chunked(MAX_BODY).last(),
        Page::new("", vec![b'x'; MAX_BODY + 1]).last(),
    ] {
        let said = odd.bytes();
        let pair = Pair::new();
        let mut caller = pair.caller(move |_, _| odd.clone());
        caller.send(GET).await;
        let rest = caller.rest().await.unwrap();
        assert!(rest == said, "{}", String::from_utf8_lossy(&said[..said.len().min(80)]));
        assert_eq!(pair.served(), [Served::Raw]);
    }
}

#[tokio::test]
async fn a_page_that_is_too_long_is_asked_for_compressed_from_then_on() {
    let pair = Pair::new();
    for encoded in [false, true] {
        let mut caller = pair.caller(move |_, head| {
            assert_eq!(String::from_utf8_lossy(head).contains("gzip"), encoded);
            if encoded {
                plain(b"smaller")
            } else {
                Page::new("", vec![b'x'; MAX_BODY + 1])
            }
        });
        caller
            .get("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_pauses_is_passed_on_as_far_as_it_has_come() {
    let pair = Pair::new();
    let mut caller = pair.caller(|_, _| Page::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nso far"));
    caller.send(GET).await;
    let mut buf = [0; 100];
    let n = tokio::time::timeout(Duration::from_secs(5), caller.stream.read(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert!(n > 0);
}

#[tokio::test]
async fn other_requests_travel_as_they_are_also_after_scrapes() {
    let pair = Pair::new();
    let mut caller = pair.caller(|_, head| plain(head));
    assert_eq!(caller.get(GET).await, GET.as_bytes());
    for head in [
        "POST /x HTTP/1.1\r\nHost: a\r\nTraceparent: 00-1\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
        GET,
    ] {
        assert_eq!(caller.get(head).await, head.as_bytes());
    }
    for head in [
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: x\r\n\r\n",
        "\u{16}\u{3}\u{1} a client's hello\r\n\r\n",
    ] {
        let mut caller = pair.caller(|_, head| plain(head));
        assert_eq!(caller.get(head).await, head.as_bytes(), "{head}");
    }
}

#[tokio::test]
async fn an_answer_that_says_what_is_wrong_is_passed_on_and_is_no_base() {
    let pair = Pair::new();
    let broken = Page::raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater");
    let none = Page::raw("HTTP/1.1 204 No Content\r\n\r\n");
    let answers = [page(0), broken.clone(), none.clone(), page(1)];
    let mut caller = pair.caller(move |n, _| answers[n].clone());
    caller.get(GET).await;
    assert_eq!(
        caller.exchange(GET).await.0,
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\n"
    );
    caller.send(GET).await;
    assert_eq!(caller.exactly(none.bytes().len()).await, none.bytes());
    let before = pair.wire();
    assert_eq!(caller.get(GET).await, page(1).body);
    assert!(pair.wire() - before < page(1).body.len() as u64 / 10);
}

#[tokio::test]
async fn both_ends_of_a_stream_can_end_by_themselves() {
    let pair = Pair::new();
    let mut caller = pair.caller(|_, _| page(0));
    caller.get(GET).await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.rest().await.unwrap(), b"");
    assert_eq!(caller.edge.await.unwrap(), Ok(()));
    let mut caller = pair.caller(|_, _| page(0).last());
    assert_eq!(caller.get(GET).await, page(0).body);
    assert_eq!(caller.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn what_breaks_the_stream_breaks_both_ends_and_is_no_end() {
    let pair = Pair::new();
    let (mut caller, hold) = pair.held_caller();
    caller.send(GET).await;
    hold.asked().await;
    let Caller { stream, edge, .. } = caller;
    let why = tunnel_model::Refusal::new(Reason::Denied, "no right any more");
    stream.reset(&why);
    assert_eq!(pair.resets(), [why]);
    drop(edge);
}
