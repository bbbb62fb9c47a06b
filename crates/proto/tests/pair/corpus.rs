//! The fuzz targets as ordinary tests: the committed corpus, and every truncation of every entry.
//!
//! `tests/fuzz/corpus/TARGET/` holds one file per entry. An input that once broke a decoder is added there by hand; the
//! entries that [`entries`] makes are written anew with `TUNNEL_WRITE_CORPUS=1 cargo test -p tunnel-proto corpus`.

#[path = "../../../../tests/fuzz/src/proto.rs"]
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
mod fuzz_targets;
#[path = "../../../../tests/fuzz/src/replay.rs"]
#[allow(unreachable_pub, reason = "the same for every crate")]
mod replay;

use std::{fs, time::Duration};

use tunnel_model::{Class, LinkLoss, LossCause, Offer, Protocol, Reason, Refusal, Service, TraceId};
use tunnel_proto::{
    Control, Hello, Open, Position, Prelude, Rate, Session, Side, StreamId, encode_datagram, encode_packet,
};

use crate::pair::hello;
use fuzz_targets::TARGETS;
use replay::{folder, replay};

/// B2
#[test]
fn no_target_falls_over_its_corpus_or_any_truncation_of_it() {
    replay(TARGETS, 3);
}

#[test]
fn the_corpus_holds_every_kind_of_message() {
    let write = std::env::var_os("TUNNEL_WRITE_CORPUS").is_some();
    for (target, name, bytes) in entries() {
        let file = folder(target).join(name);
        if write {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(fs::read(&file).ok(), Some(bytes), "{}", file.display());
    }
}

/// B2
#[test]
fn no_truncation_of_a_frame_is_that_frame() {
    for (_, message) in messages() {
        let whole = message.encode();
        for end in 0..whole.len() {
            let mut prelude = Prelude::default();
            prelude.push(&whole[..end]);
            assert!(prelude.split().unwrap().is_err(), "{message:?} is whole at {end}");
        }
    }
}

/// Target, file name, content.
fn entries() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut stream = Vec::new();
    for (name, message) in messages() {
        let framed = message.encode();
        entries.push(("control_message", name.to_owned(), content(&framed)));
        stream.extend_from_slice(&framed);
        // What chooses the pieces comes first.
        entries.push(("frame", name.to_owned(), [&[3], &framed[..]].concat()));
    }
    entries.push(("greeting", "hello".to_owned(), stream.clone()));
    let behind_the_hello = stream[messages()[0].1.encode().len()..].to_vec();
    entries.push(("greeting", "no-hello".to_owned(), behind_the_hello.clone()));
    let goaway = messages().pop().unwrap().1.encode();
    entries.push(("greeting", "goaway".to_owned(), goaway.to_vec()));
    for (name, choice) in [("gateway", 0), ("edge", 1), ("resumed-gateway", 2), ("resumed-edge", 3)] {
        entries.push((
            "session",
            name.to_owned(),
            [&[choice, 7], &behind_the_hello[..]].concat(),
        ));
    }
    for (name, target) in [
        ("service", "service:web"),
        ("port", "port:22"),
        ("tcp", "tcp:[2001:db8::1]:443"),
        ("udp-port", "udp:53"),
        ("udp", "udp:[2001:db8::1]:53"),
    ] {
        entries.push(("stream_header", name.to_owned(), content(&header(target))));
    }
    let of_edge = Open {
        node: Some("edge2".parse().unwrap()),
        ..an_open("service:web")
    };
    let framed = ready(Side::Edge).open(&of_edge).unwrap().1;
    entries.push(("stream_header", "node".to_owned(), content(&framed)));
    // A position, in the field of a stream that goes on.
    entries.push((
        "stream_header",
        "resume".to_owned(),
        vec![0x12, 0x04, 0x08, 0x02, 0x10, 0x05],
    ));
    for (name, id) in [
        ("one-byte", 2),
        ("two-bytes", 0x40),
        ("four-bytes", 0x4000),
        ("eight-bytes", 1 << 40),
    ] {
        entries.push((
            "flow",
            name.to_owned(),
            encode_datagram(StreamId(id), b"packet").to_vec(),
        ));
    }
    let mut packets = bytes::BytesMut::new();
    for packet in [&b"ask"[..], b"", &[7; 300]] {
        assert!(encode_packet(packet, &mut packets));
    }
    entries.push(("flow", "stream".to_owned(), packets.to_vec()));
    let refusal = Refusal::new(Reason::TargetRefused, "nothing listens at port 22");
    let (accepted, refused) = replies(&refusal);
    entries.push(("open_reply", "accepted".to_owned(), content(&accepted)));
    entries.push(("open_reply", "refused".to_owned(), content(&refused)));
    entries.push(("open_reply", "unknown-reason".to_owned(), vec![0x0a, 0x02, 0x08, 0x7f]));
    entries
}

fn messages() -> Vec<(&'static str, Control)> {
    let id = StreamId(2);
    vec![
        (
            "hello",
            Control::Hello(Hello {
                features: vec!["resume".to_owned()],
                ..hello(Side::Gateway)
            }),
        ),
        ("ping", Control::Ping(7)),
        (
            "held-ping",
            Control::HeldPing {
                number: 8,
                hold: Duration::from_secs(50),
            },
        ),
        ("pong", Control::Pong(7)),
        (
            "offer",
            Control::Offer(Offer {
                services: vec![Service {
                    protocol: Protocol::Udp,
                    ..Service::new("dns".parse().unwrap(), "127.0.0.1:53".parse().unwrap())
                }],
                subnets: vec!["10.42.3.0/24".parse().unwrap()],
            }),
        ),
        ("end", Control::End { id, offset: 1 << 40 }),
        ("acks", Control::Acks(vec![Position { id, received: 5 }])),
        (
            "resume",
            Control::Resume {
                streams: vec![Position { id, received: 5 }],
                last: true,
            },
        ),
        (
            "journal",
            Control::Journal(vec![LinkLoss {
                number: 3,
                cause: LossCause::Timeout,
                begun_millis: 1_800_000_000_000,
                lasted: Duration::from_millis(61_500),
                sent: 4096,
                received: 8192,
                message: "the gateway fell silent".to_owned(),
            }]),
        ),
        ("journaled", Control::Journaled(3)),
        ("pace", Control::Pace(Rate::from_bits_per_second(3_000_000))),
        (
            "reset",
            Control::Reset {
                id,
                refusal: Refusal::new(Reason::Cancelled, "the caller went away"),
            },
        ),
        (
            "goaway",
            Control::GoAway {
                refusal: Refusal::new(Reason::Draining, "a restart"),
                retry_after: Some(Duration::from_millis(1500)),
            },
        ),
    ]
}

fn content(framed: &[u8]) -> Vec<u8> {
    let mut prelude = Prelude::default();
    prelude.push(framed);
    prelude.split().unwrap().unwrap().0.to_vec()
}

fn header(target: &str) -> Vec<u8> {
    ready(Side::Gateway).open(&an_open(target)).unwrap().1.to_vec()
}

fn an_open(target: &str) -> Open {
    Open {
        target: target.parse().unwrap(),
        protocol: Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
        class: Class::Interactive,
        trace: TraceId::from_bytes([7; 16]),
        principal: "alice".to_owned(),
        node: None,
    }
}

/// The frames of a good and a bad answer.
fn replies(refusal: &Refusal) -> (Vec<u8>, Vec<u8>) {
    let mut edge = ready(Side::Edge);
    edge.handle_open(&content(&header("port:22")), 1).unwrap();
    let accepted = edge.accept(StreamId(2)).unwrap().to_vec();
    (accepted, edge.refuse(StreamId(2), refusal).to_vec())
}

fn ready(side: Side) -> Session {
    let now = std::time::Instant::now();
    let config = tunnel_proto::Config::default();
    let resume_for = config.resume_for;
    let mut session = Session::new(side, config, now);
    session.handle_carrier_up(1, resume_for, now).unwrap();
    session
}
