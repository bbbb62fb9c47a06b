//! Requests one after the other, cut anywhere.

use bytes::{Buf, BytesMut};
use proptest::prelude::*;

use super::{body::BodyScan, head::HeadScan, request::Request};

/// A request as it was made: its bytes, and what a reader should make of it.
#[derive(Debug, Clone)]
struct Made {
    bytes: Vec<u8>,
    read: Read,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Read {
    method: String,
    fields: usize,
    body: Vec<u8>,
}

proptest! {
    #[test]
    fn a_stream_of_requests_reads_the_same_however_it_is_cut(
        made in prop::collection::vec(request(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream: Vec<u8> = made.iter().flat_map(|m| m.bytes.clone()).collect();
        let expected: Vec<Read> = made.into_iter().map(|m| m.read).collect();
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).chain([stream.len()]).collect();
        at.sort_unstable();
        prop_assert_eq!(read(&stream, &at), expected);
    }
}

#[test]
fn a_stream_of_requests_reads_the_same_byte_by_byte() {
    let stream =
        b"POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: u\r\n\r\n\
                   PUT http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\r\n\
                   GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let whole = read(stream, &[stream.len()]);
    assert_eq!(whole.len(), 3);
    assert_eq!(whole[1].body, b"\r\n");
    assert_eq!(read(stream, &(1..=stream.len()).collect::<Vec<_>>()), whole);
}

/// Reads what arrives up to each of `cuts`, as a connection does.
fn read(stream: &[u8], cuts: &[usize]) -> Vec<Read> {
    let (mut all, mut buf, mut from) = (Vec::new(), BytesMut::new(), 0);
    let mut scan = HeadScan::default();
    let mut open: Option<(Read, BodyScan)> = None;
    for &to in cuts {
        buf.extend_from_slice(&stream[from..to]);
        from = to;
        loop {
            if let Some((mut read, mut body)) = open.take() {
                let belongs = body.scan(&buf).unwrap();
                read.body.extend_from_slice(&buf[..belongs]);
                buf.advance(belongs);
                if !body.is_done() {
                    open = Some((read, body));
                    break;
                }
                all.push(read);
            }
            let Some(len) = scan.find(&buf).unwrap() else { break };
            scan = HeadScan::default();
            let request = Request::parse(buf.split_to(len).freeze()).unwrap();
            let read = Read {
                method: request.method.clone(),
                fields: request.fields.iter().count(),
                body: Vec::new(),
            };
            open = Some((read, BodyScan::new(request.framing)));
        }
    }
    assert!(buf.is_empty() && open.is_none(), "{} bytes left over", buf.len());
    all
}

fn request() -> impl Strategy<Value = Made> {
    let method = prop::sample::select(vec!["GET", "POST", "DELETE", "BREW"]);
    let fields = prop::collection::vec(("[A-Za-z]{1,8}", "[ -~]{0,20}"), 0..5);
    (method, fields, body()).prop_map(|(method, fields, (field, body))| {
        let mut head = format!("{method} http://edge1/ HTTP/1.1\r\nHost: edge1\r\n{field}");
        for (name, value) in &fields {
            // A prefix keeps the made-up names off those that mean something.
            head.push_str(&format!("X-{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let fields = fields.len() + 1 + usize::from(!field.is_empty());
        let bytes = [head.as_bytes(), &body].concat();
        Made {
            bytes,
            read: Read {
                method: method.to_owned(),
                fields,
                body,
            },
        }
    })
}

/// A field that announces a body, and the body as it stands on the wire.
fn body() -> impl Strategy<Value = (String, Vec<u8>)> {
    let content = || prop::collection::vec(any::<u8>(), 1..100);
    let sized = content().prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body));
    let chunked = prop::collection::vec(content(), 0..4).prop_map(|chunks| {
        let coded = chunks
            .iter()
            .flat_map(|c| [format!("{:X}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat());
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            coded.chain(*b"0\r\n\r\n").collect(),
        )
    });
    prop_oneof![Just((String::new(), Vec::new())), sized, chunked]
}
