//! B17: ends that lie to each other.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tunnel_codec::scrape::Encoder;
use tunnel_model::{Reason, Refusal};

use super::support::{GET, Pair, page};
use crate::{
    Moved,
    scrape::{
        Encoders, MAX_BODY, Room,
        bases::{Bases, Coder, Key},
        head::Head,
        serve,
        wire::{Answer, Ask},
    },
};

/// An edge's answer that is none ends the stream, as a violation and never as an end of file.
#[tokio::test]
async fn b17_a_gateway_takes_nothing_but_answers() {
    let zstd = |length: &[u8], frame: &[u8]| [&[1, 0, 0, 0, 0], length, frame].concat();
    let answer = |head: &str, message: &[u8]| {
        let (head_length, length) = (u8::try_from(head.len()).unwrap(), u8::try_from(message.len()).unwrap());
        [&[1, head_length], head.as_bytes(), &[length], message].concat()
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    let unasked_base = [3, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    for (what, said) in [
        ("no kind", vec![9]),
        ("no head", vec![0, 5, 0, 0, 0, 0, 0]),
        ("a date of no head", vec![2, 4]),
        (
            "a head without end",
            [&[1, 0x80, 0x80, 0x80, 0x01][..], &[b'x'; 100]].concat(),
        ),
        ("a length that never ends", [&[1, 4][..], b"HTTP", &[0xff; 6]].concat()),
        ("a head that is none", answer("nonsense\r\n", b"12345")),
        (
            "a head with a framing of its own",
            answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", b"12345"),
        ),
        ("a head with an end in it", answer("HTTP/1.1 200 OK\r\n\r\n", b"12345")),
        ("a message of no method", answer(ok, &[9, 0, 0, 0, 0, 1])),
        ("a message that is too short", answer(ok, &[0])),
        ("another body than its name says", answer(ok, b"\0\0\0\0\0body")),
        ("a base that nobody has", answer(ok, &unasked_base)),
        (
            "a bomb",
            answer(ok, &zstd(&[0xff, 0xff, 0xff, 0xff, 0x0f], b"(\xb5/\xfd")),
        ),
        (
            "a message that is too long",
            [&[1, 17][..], ok.as_bytes(), &[0xff, 0xff, 0xff, 0x7f]].concat(),
        ),
        (
            "a message that breaks off",
            [&[1, 17][..], ok.as_bytes(), &[100, 0, 0]].concat(),
        ),
    ] {
        let pair = Pair::new();
        let (near, mut far) = duplex(1 << 20);
        let mut caller = pair.scraped(near, "edge1", "service:node");
        let edge = tokio::spawn(async move {
            let _ = far.read(&mut [0; 1000]).await;
            far.write_all(&said).await.unwrap();
            far.shutdown().await.unwrap();
            let _ = far.read(&mut [0; 1000]).await;
        });
        caller.write_all(GET.as_bytes()).await.unwrap();
        let error = caller.read_to_end(&mut Vec::new()).await.expect_err(what);
        let refusal = error.into_inner().unwrap().downcast::<Refusal>().unwrap();
        assert_eq!(refusal.reason, Reason::Protocol, "{what}: {refusal}");
        assert_eq!(pair.resets().len(), 1, "{what}");
        edge.abort();
    }
}

#[tokio::test]
async fn b17_what_nobody_asked_for_is_no_answer() {
    let pair = Pair::new();
    let (near, mut far) = duplex(1 << 20);
    let mut caller = pair.scraped(near, "edge1", "service:node");
    assert!(caller.stream().is_some());
    far.write_all(b"\x01").await.unwrap();
    let error = caller.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("nobody asked"), "{error}");
}

#[tokio::test]
async fn b17_an_edge_takes_nothing_but_asks() {
    let long = [&[1, 0xff, 0xff, 0x7f][..], &[b'x'; 100]].concat();
    for (what, asked) in [
        ("no kind", vec![9]),
        ("no head", vec![0]),
        ("a head without end", long),
        ("an ask that breaks off", vec![1, 50, b'x']),
    ] {
        let (mut near, mut far) = duplex(1 << 20);
        let (mut socket, _server) = duplex(1 << 20);
        near.write_all(&asked).await.unwrap();
        near.shutdown().await.unwrap();
        let encoders = Encoders::new(Room { of_one: 0, in_all: 0 });
        let served = serve(&mut socket, &mut far, &encoders, "x", &mut Moved::default()).await;
        assert_eq!(served.unwrap_err().reason, Reason::Protocol, "{what}");
    }
}

/// T5
#[tokio::test]
async fn b17_what_is_kept_is_bounded_for_each_owner_and_in_all() {
    let bases = Bases::<Encoder>::new(Room {
        of_one: 1000,
        in_all: 3000,
    });
    let key = |owner: usize, n: usize| Key::new(&format!("edge{owner}"), "service:x", n.to_string().as_bytes());
    for owner in 0..10 {
        for n in 0..500 {
            let _ = bases.get(&key(owner, n));
            bases.note(&key(owner, n), 100);
        }
    }
    let held = |owner: usize| (0..500).filter(|n| bases.has(&key(owner, *n))).collect::<Vec<_>>();
    assert_eq!(held(9), (490..500).collect::<Vec<_>>());
    assert_eq!((0..10).map(|owner| held(owner).len()).sum::<usize>(), 30);
    // One that is larger than all the room is not kept.
    bases.note(&key(9, 499), MAX_BODY);
    assert!(!bases.has(&key(9, 499)));
}

#[tokio::test]
async fn b17_targets_of_an_edge_that_are_only_named_are_bounded() {
    let bases = Bases::<Encoder>::new(Room {
        of_one: 1000,
        in_all: 3000,
    });
    for n in 0..1000usize {
        let _ = bases.get(&Key::new("edge1", "x", &n.to_be_bytes()));
    }
    assert_eq!(bases.len(), 64);
    assert!(Encoder::fresh().encode(&page(1).body, None).is_ok());
}

proptest! {
    /// What can be read of any bytes can be written, and reads as the same; of less of them it is not read yet.
    #[test]
    fn b17_whatever_is_read_as_a_message_is_one(kind in 0u8..6, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
        let bytes = [&[kind][..], &rest].concat();
        let mut from = BytesMut::from(&bytes[..]);
        let last = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
        if let Ok(Some(Ask::Scrape { head, base })) = Ask::read(&mut from, &mut Some(last.clone())) {
            let read = bytes.len() - from.len();
            let mut again = BytesMut::from(&Ask::write(&head, base, &mut Some(last.clone()))[..]);
            let said = Ask::read(&mut again, &mut Some(last.clone()));
            prop_assert_eq!(said, Ok(Some(Ask::Scrape { head, base })));
            for end in 0..read {
                let mut part = BytesMut::from(&bytes[..end]);
                prop_assert_eq!(Ask::read(&mut part, &mut Some(last.clone())), Ok(None));
            }
        }
        let mut from = BytesMut::from(&bytes[..]);
        let last = Head::from_text(b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 15:01:22 GMT\r\n").unwrap();
        if let Ok(Some(Answer::Scrape { head, message })) = Answer::read(&mut from, &mut Some(last.clone())) {
            let read = bytes.len() - from.len();
            let written = Answer::write(&head, &vec![0; message], &mut Some(last.clone()));
            let mut again = BytesMut::from(&written[..]);
            let said = Answer::read(&mut again, &mut Some(last.clone()));
            prop_assert_eq!(said, Ok(Some(Answer::Scrape { head, message })));
            for end in 0..read {
                let mut part = BytesMut::from(&bytes[..end]);
                prop_assert_eq!(Answer::read(&mut part, &mut Some(last.clone())), Ok(None));
            }
        }
    }
}
