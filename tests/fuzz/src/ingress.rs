//! What a caller sends to a proxy port, and what the target behind it answers.
//!
//! The parsers are private to their crate; their files are compiled here as they stand.
#![allow(dead_code, reason = "their crate uses more of these files than the targets do")]

use bytes::{Bytes, BytesMut};

#[path = "../../../crates/ingress/src/credential.rs"]
mod credential;

#[path = "../../../crates/ingress/src/http1"]
mod http1 {
    mod authority;
    pub(super) mod body;
    pub(super) mod head;
    pub(super) mod request;
    pub(super) mod response;
}

#[path = "../../../crates/ingress/src/socks5"]
mod socks5 {
    mod handshake;

    use bytes::BytesMut;
    use handshake::{Handshake, Step};

    /// Drives a handshake to its end; the first byte decides whether credentials are good. Tells where it connects to
    /// and how many bytes are left for the stream.
    pub(super) fn drive(data: &[u8], piece: usize, admitted: bool) -> Option<(String, u16, usize)> {
        let mut handshake = Handshake::default();
        let mut input = BytesMut::new();
        let mut pieces = data.chunks(piece);
        loop {
            match handshake.handle_input(&mut input) {
                Ok(Step::Read) => input.extend_from_slice(pieces.next()?),
                Ok(Step::Write(bytes)) => assert!(!bytes.is_empty()),
                Ok(Step::Authenticate(_)) => handshake.handle_verdict(admitted),
                Ok(Step::Connect { host, port }) => {
                    return Some((host, port, input.len() + pieces.map(<[u8]>::len).sum::<usize>()));
                }
                Err(error) => {
                    assert!(!error.reply().is_empty());
                    return None;
                }
            }
        }
    }
}

#[path = "../../../crates/ingress/src/sni"]
mod sni {
    pub(super) mod hello;
}

pub(crate) use credential::{Credential, Secret};
use http1::{
    body::BodyScan,
    head::{HeadError, HeadScan, MAX_HEAD},
    request::Request,
    response::Response,
};
use sni::hello::{HelloScan, MAX_HELLO};

/// A parser's name and what to feed.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this module.
pub const TARGETS: &[Target] = &[
    ("http1_request", http1_request),
    ("http1_response", http1_response),
    ("socks5", socks5),
    ("client_hello", client_hello),
];

/// A request and its body, whole and in pieces: both ways the same is understood.
pub fn http1_request(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let Some((head, rest)) = split_head(data, piece) else {
        return;
    };
    if let Ok(request) = Request::parse_by_host(head.clone()) {
        assert_ne!(request.method, "CONNECT");
        assert_eq!(request.fields.all("host").count(), 1);
        assert!(!request.asked.host_port().0.is_empty());
    }
    let Ok(request) = Request::parse(head) else { return };
    let (host, _) = request.asked.host_port();
    assert!(!host.is_empty());
    follow(|| BodyScan::new(request.framing), rest, piece);
}

/// A response to a GET and its body, whole and in pieces.
pub fn http1_response(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let get = Bytes::from_static(b"GET http://web.edge1/ HTTP/1.1\r\nHost: web.edge1\r\n\r\n");
    let Ok(request) = Request::parse(get) else {
        panic!("this is a request");
    };
    let Some((head, rest)) = split_head(data, piece) else {
        return;
    };
    if let Ok(response) = Response::parse(head, &request) {
        assert!((100..1000).contains(&response.status));
        follow(|| BodyScan::new(response.framing), rest, piece);
    }
}

/// A SOCKS5 handshake, whole and in pieces, with good and with bad credentials.
pub fn socks5(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let (piece, admitted) = (usize::from(choice >> 1).max(1), choice & 1 == 0);
    let whole = socks5::drive(data, data.len().max(1), admitted);
    assert_eq!(whole, socks5::drive(data, piece, admitted));
    assert!(admitted || whole.is_none(), "connected without a credential");
}

/// The beginning of a TLS connection, whole and in pieces: both ways the same server is named, before the limit.
pub fn client_hello(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let whole = HelloScan::default().find(data);
    let (mut scan, mut end) = (HelloScan::default(), 0);
    let mut in_pieces = scan.find(&[]);
    while end < data.len() && in_pieces == Ok(None) {
        end = data.len().min(end + usize::from(piece).max(1));
        in_pieces = scan.find(&data[..end]);
    }
    assert_eq!(whole, in_pieces);
    assert!(whole != Ok(None) || data.len() < MAX_HELLO);
    if let Ok(Some(name)) = whole {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// The head, and what came behind it.
fn split_head(data: &[u8], piece: u8) -> Option<(Bytes, &[u8])> {
    let whole = HeadScan::default().find(data);
    let mut scan = HeadScan::default();
    let mut read = BytesMut::new();
    let mut in_pieces: Result<Option<usize>, HeadError> = Ok(None);
    for chunk in data.chunks(usize::from(piece).max(1)) {
        read.extend_from_slice(chunk);
        in_pieces = scan.find(&read);
        if !matches!(in_pieces, Ok(None)) {
            break;
        }
    }
    assert_eq!(format!("{whole:?}"), format!("{in_pieces:?}"));
    let end = whole.ok()??;
    assert!(end <= data.len().min(MAX_HEAD));
    Some((Bytes::copy_from_slice(&data[..end]), &data[end..]))
}

/// Where a body ends does not depend on how it was cut.
fn follow(scan: impl Fn() -> BodyScan, body: &[u8], piece: u8) {
    let mut whole = scan();
    let outcome = whole.scan(body);
    let mut in_pieces = scan();
    let mut taken = 0;
    for chunk in body.chunks(usize::from(piece).max(1)) {
        match in_pieces.scan(chunk) {
            Ok(used) => {
                taken += used;
                if used < chunk.len() {
                    assert!(in_pieces.is_done());
                    break;
                }
            }
            Err(error) => {
                assert_eq!(outcome.err().map(|e| e.to_string()), Some(error.to_string()));
                return;
            }
        }
    }
    assert_eq!(outcome.ok(), Some(taken));
    assert_eq!(whole.is_done(), in_pieces.is_done());
    assert_eq!(whole.may_end(), in_pieces.may_end());
}
