//! Messages that two parsers might read differently (B15), and those that are simply broken.

use tunnel_model::Reason;

use crate::proxy::{ALICE, Proxy};

/// Fields after `POST http://edge1/ HTTP/1.1` and `Host: edge1`; what they mean to whom is the attacker's business.
const FIELDS: &[&str] = &[
    // Lengths and encodings that contradict each other, or themselves.
    "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "Content-Length: 6\r\nContent-Length: 5\r\n",
    "Content-Length: 6\r\nContent-Length: 6\r\n",
    "Content-Length: 0\r\nContent-Length: 0\r\n",
    "Content-Length: 6, 6\r\n",
    "Content-Length: 6, 5\r\n",
    "Content-Length: 6,\r\n",
    "Content-Length: +6\r\n",
    "Content-Length: -6\r\n",
    "Content-Length: -0\r\n",
    "Content-Length: 6 6\r\n",
    "Content-Length: 0x6\r\n",
    "Content-Length: 6.0\r\n",
    "Content-Length: 6e0\r\n",
    "Content-Length: 1_0\r\n",
    "Content-Length: \"6\"\r\n",
    "Content-Length: six\r\n",
    "Content-Length: \r\n",
    "Content-Length:\r\n",
    "Content-Length: ٦\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 18446744073709551622\r\n",
    "Content-Length: 9223372036854775808\r\n",
    "Content-Length: 00000000000000000000006\r\n",
    "Content-Length: 6\r\nX: y\r\ncontent-length: 7\r\n",
    "Content_Length: 6\r\n",
    "CONTENT_LENGTH: 6\r\nContent-Length: 5\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding: Chunked\r\n",
    "Transfer-Encoding: CHUNKED\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: chunk\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: cow\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: 'chunked'\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
    "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: \r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: \x0cchunked\r\n",
    "Transfer-Encoding: chunked\x0b\r\n",
    "Transfer-Encoding: chunked\0\r\n",
    "Transfer-Encoding: chun\0ked\r\n",
    "Transfer-Encoding: \u{a0}chunked\r\n",
    "Transfer-Encoding: \u{ff43}hunked\r\n",
    "Transfer-Encoding: \x7fchunked\r\n",
    // Field lines that not everybody takes for the same.
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "\tTransfer-Encoding: chunked\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "X: y\r\n\tz\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding: chunked\r\n \r\n",
    "Transfer-Encoding\r\n: chunked\r\n",
    "Transfer-Encoding\r\n",
    "Transfer Encoding: chunked\r\n",
    "Transfer-Encoding\0: chunked\r\n",
    "Transfer-Encoding\x01: chunked\r\n",
    "Trans\u{e9}fer: chunked\r\n",
    "Transfer(Encoding): chunked\r\n",
    "\"Transfer-Encoding\": chunked\r\n",
    ": y\r\n",
    "X: y\0z\r\n",
    "X: y\x08z\r\n",
    "X: y\x1b[2Jz\r\n",
    "X\r\n",
    "GET /admin HTTP/1.1\r\n",
    // Line ends.
    "X: y\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\r\r\n",
    "X: y\r\r\nTransfer-Encoding: chunked\r\n",
    "X: y\n\r\n",
    "\n",
    "\rX: y\r\n",
    // Who is meant.
    "Host: edge1\r\n",
    "Host: edge2\r\n",
    "host: edge1\r\n",
    "Host:\r\n",
    "Connection: Host\r\n",
    "Connection: close, Content-Length\r\nContent-Length: 6\r\n",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
    "Proxy-Authorization: Basic Ym9iOnNlY3JldA==\r\n",
];

/// Heads of which the first line or `Host` is wrong.
const HEADS: &[(&str, u16)] = &[
    ("GET http://edge1/ HTTP/1.1\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge2\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge1:81\r\n", 400),
    ("GET http://edge1:81/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost:\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge1, edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge1/\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: http://edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge2@edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge1:\r\n", 400),
    ("GET http://edge1/ HTTP/1.1\r\nHost: edge1:080x\r\n", 400),
    ("GET http://edge1/ HTTP/1.0\r\nHost: edge2\r\n", 400),
    ("GET http://edge1/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
    ("GET http://edge2@edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge2:80@edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://@edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1\\@edge2/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1%2f/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://%65dge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1%00/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edg\u{435}1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/\u{e9} HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/#x HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1#@edge2/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http:/edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http:edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http:///edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET https://edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET file:///etc/passwd HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET gopher://edge1:22/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET //edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET edge1:80 HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("OPTIONS * HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1:0/ HTTP/1.1\r\nHost: edge1:0\r\n", 400),
    ("GET http://edge1:65616/ HTTP/1.1\r\nHost: edge1:65616\r\n", 400),
    ("GET http://edge1:/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1:8_0/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("CONNECT edge1 HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("CONNECT edge1: HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("CONNECT edge1:80 HTTP/1.1\r\n", 400),
    ("CONNECT edge1:80 HTTP/1.1\r\nHost: edge2:80\r\n", 400),
    ("CONNECT edge1:80 HTTP/1.1\r\nHost: edge1:81\r\n", 400),
    ("CONNECT edge1:80/ HTTP/1.1\r\nHost: edge1:80\r\n", 400),
    ("CONNECT a@edge1:80 HTTP/1.1\r\nHost: edge1:80\r\n", 400),
    ("CONNECT /edge1:80 HTTP/1.1\r\nHost: edge1:80\r\n", 400),
    ("CONNECT ../x:80 HTTP/1.1\r\nHost: ../x:80\r\n", 400),
    ("CONNECT %2e%2e:80 HTTP/1.1\r\nHost: edge1\r\n", 400),
    (
        "CONNECT edge1:80 HTTP/1.1\r\nHost: edge1:80\r\nContent-Length: 6\r\n",
        400,
    ),
    (
        "CONNECT edge1:80 HTTP/1.1\r\nHost: edge1:80\r\nTransfer-Encoding: chunked\r\n",
        400,
    ),
    ("GET  http://edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/  HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET\thttp://edge1/\tHTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ x HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.1 \r\nHost: edge1\r\n", 400),
    (" GET http://edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("\r\nGET http://edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("G\u{e9}T http://edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET(x) http://edge1/ HTTP/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/0.9\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.2\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/2\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/2.0\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/1.10\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ HTTP/11\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ http/1.1\r\nHost: edge1\r\n", 400),
    ("GET http://edge1/ ICY/1.1\r\nHost: edge1\r\n", 400),
    ("PRI * HTTP/2.0\r\n", 505),
];

/// Bodies in chunks that are wrong from the first, or only in the end.
const CHUNKS: &[&str] = &[
    "x\r\n",
    "\r\n",
    "0x1\r\na\r\n",
    "+1\r\na\r\n",
    " 1\r\na\r\n",
    "1 \r\na\r\n",
    "1\na\n0\n\n",
    "1;x\na\r\n",
    "1;\0\r\na\r\n",
    "1\r\naa\r\n",
    "1\r\na\n0\r\n\r\n",
    "1\r\na0\r\n\r\n",
    "10000000000000001\r\na\r\n",
    "1\r\na\r\n0\r\n\n",
    "1\r\na\r\n0\r\nX : y\r\n\r\n",
    "1\r\na\r\n0\r\nGET /admin HTTP/1.1\r\n\r\n",
];

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
    for chunks in CHUNKS {
        let (proxy, target) = Proxy::with_target().await;
        let mut caller = proxy.caller().await;
        caller
            .request("POST", "http://edge1/", "Transfer-Encoding: chunked")
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
