//! The tunnel protocol's decoders, fed with bytes that a peer may send.

use std::time::{Duration, Instant};

use tunnel_model::{Class, Refusal, TraceId};
use tunnel_proto::{
    Config, Control, Event, FrameReader, Greeted, Greeting, Header, Incoming, MAX_CONTROL_FRAME, Open, PacketReader,
    Prelude, Session, Side, StreamId, TRANSIT, Timing, Transit, decode_datagram, encode_datagram,
};

/// A decoder's name and what to feed.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this module.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("control_message", control_message),
    ("greeting", greeting),
    ("stream_header", stream_header),
    ("open_reply", open_reply),
    ("session", session),
    ("flow", flow),
];

/// Frames come out the same however the bytes were cut, and none is longer than allowed.
pub fn frame(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let whole = frames_in(data.chunks(data.len().max(1)));
    assert_eq!(whole, frames_in(data.chunks(usize::from(piece).max(1))));
    let mut prelude = Prelude::default();
    prelude.push(data);
    if let Ok(Ok((first, rest))) = prelude.split() {
        assert!(first.len() + rest.len() < data.len());
    }
}

fn frames_in<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let mut reader = FrameReader::new(MAX_CONTROL_FRAME);
    let mut frames = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= MAX_CONTROL_FRAME);
                    frames.push(frame.to_vec());
                }
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// What was understood reads back as itself.
pub fn control_message(data: &[u8]) {
    let Ok(Some(message)) = Control::decode(data) else {
        return;
    };
    let again = Control::decode(&content(&message.encode()));
    assert_eq!(again, Ok(Some(message)));
}

/// What was understood can be said again, and says the same.
pub fn stream_header(data: &[u8]) {
    let Ok(header) = Header::decode(data) else { return };
    let Header::Open { id, open, .. } = header else {
        // One that nobody knows goes on nowhere.
        let refused = up(Side::Edge).handle_open(data, 1);
        assert!(!matches!(refused, Ok(Incoming::Stream { .. } | Incoming::Resumed(_))));
        return;
    };
    assert!(id <= StreamId::MAX);
    let Ok((again, header)) = up(Side::Gateway).open(&open) else {
        panic!("the session is up");
    };
    let read = Header::decode(&content(&header));
    assert_eq!(
        read,
        Ok(Header::Open {
            id: again,
            open,
            again: false
        })
    );
}

/// A hello is taken, or is none, however it was cut; what comes behind it is passed on.
pub fn greeting(data: &[u8]) {
    let heard = |piece: usize| {
        let mut greeting = Greeting::default();
        let mut pieces = data.chunks(piece.max(1));
        for chunk in pieces.by_ref() {
            greeting.push(chunk);
            match greeting.poll() {
                Ok(None) => {}
                Ok(Some(Greeted::Hello { hello, rest })) => {
                    let behind = rest.len() + pieces.map(<[u8]>::len).sum::<usize>();
                    return Some(Ok((hello, behind)));
                }
                Ok(Some(Greeted::GoAway { refusal, .. })) => return Some(Err(refusal)),
                Err(violation) => return Some(Err(violation.0)),
            }
        }
        None
    };
    assert_eq!(heard(data.len()), heard(3));
}

/// An answer opens the stream, ends it, or is a violation.
pub fn open_reply(data: &[u8]) {
    let mut gateway = up(Side::Gateway);
    let Ok((id, _)) = gateway.open(&an_open()) else {
        panic!("the session is up");
    };
    match gateway.handle_reply(id, data) {
        Ok(Ok(())) => assert_eq!(gateway.open_streams(), 1),
        Ok(Err(refusal)) => {
            assert_one_line(&refusal);
            assert_eq!(gateway.open_streams(), 0);
        }
        Err(violation) => assert_one_line(&violation.0),
    }
}

/// A datagram reads back as itself, one that is about the link is taken or left, and a stream's packets come out the same however it was cut.
pub fn flow(data: &[u8]) {
    if let Some((id, packet)) = decode_datagram(data.to_vec().into()) {
        assert!(id <= StreamId::MAX);
        assert_eq!(
            decode_datagram(encode_datagram(id, &packet)),
            Some((id, packet.clone()))
        );
        if id == TRANSIT {
            let now = Instant::now();
            let mut transit = Transit::new(now);
            transit.stamp(now);
            if let Some(Timing::Answer(answer)) = transit.handle(&packet, now) {
                assert_eq!(decode_datagram(answer).map(|(flow, _)| flow), Some(TRANSIT));
            }
        }
    }
    let packets = |piece: usize| {
        let mut reader = PacketReader::default();
        let mut packets = Vec::new();
        for chunk in data.chunks(piece.max(1)) {
            reader.push(chunk);
            packets.extend(std::iter::from_fn(|| reader.next_packet()));
        }
        packets
    };
    assert_eq!(packets(data.len()), packets(3));
}

/// A session that hears anything at all, in any pieces, with streams of both kinds open and time going by. The first byte
/// chooses the side and whether an earlier carrier was lost, the second the size of the pieces.
pub fn session(data: &[u8]) {
    let [choice, piece, data @ ..] = data else { return };
    let side = if choice & 1 == 0 { Side::Gateway } else { Side::Edge };
    let mut session = up(side);
    let start = Instant::now();
    let lost = Refusal::new(tunnel_model::Reason::CarrierLost, "the end");
    let mut opened = session.open(&an_open()).ok().map(|(id, _)| id);
    for id in 1..5 {
        if let Ok(Incoming::Stream { id, .. }) = session.handle_open(&header(id), 1) {
            let _ = session.accept(id);
        }
    }
    if let Some(id) = opened {
        let _ = session.sent(id, 1, bytes::Bytes::from_static(b"what is kept"), start);
    }
    if choice & 2 != 0 {
        session.handle_carrier_lost(&lost, start);
        assert_eq!(session.handle_carrier_up(2, WAIT, start), Ok(()));
    }
    for (i, chunk) in (0..).zip(data.chunks(usize::from(*piece).max(1))) {
        let now = start + Duration::from_millis(10 * i);
        if let Err(violation) = session.handle_control(chunk, now) {
            assert_one_line(&violation.0);
            break;
        }
        if i == 3
            && let Some(id) = opened.take()
        {
            let _ = session.carrier_stream_ended(id, session.carrier(), now);
            session.finish(id);
        }
        if session.poll_timeout().is_some_and(|at| at <= now) {
            session.handle_timeout(now);
        }
        while session.poll_transmit().is_some() {}
        while let Some(event) = session.poll_event() {
            match event {
                Event::Broken { refusal, .. } | Event::GoAway { refusal, .. } => assert_one_line(&refusal),
                Event::Reattach(id) => drop(session.reattach(id)),
                _ => {}
            }
        }
    }
    session.close(&lost);
    assert_eq!(session.open_streams(), 0);
    assert_eq!(session.poll_timeout(), None);
}

/// A peer's words must not break a line of a log or a header.
fn assert_one_line(refusal: &Refusal) {
    assert!(refusal.message.len() <= Refusal::MAX_MESSAGE);
    assert!(!refusal.message.contains(char::is_control));
}

const WAIT: Duration = Duration::from_secs(600);

/// A session on its first carrier.
fn up(side: Side) -> Session {
    let now = Instant::now();
    let mut session = Session::new(side, Config::default(), now);
    assert_eq!(session.handle_carrier_up(1, WAIT, now), Ok(()));
    session
}

fn an_open() -> Open {
    let Ok(target) = "service:web".parse() else {
        panic!("a service may have this name");
    };
    Open {
        target,
        protocol: tunnel_model::Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
        class: Class::Api,
        trace: TraceId::from_bytes([7; 16]),
        principal: String::new(),
        node: None,
    }
}

/// The header of [`an_open`] with this id, which must be below 128.
fn header(id: u8) -> Vec<u8> {
    let mut open = vec![0x08, id, 0x12, 11];
    open.extend_from_slice(b"service:web");
    open.extend([0x22, 16]);
    open.extend([7; 16]);
    [&[0x0a, u8::try_from(open.len()).unwrap_or_default()][..], &open].concat()
}

/// A frame without its length.
fn content(framed: &[u8]) -> Vec<u8> {
    let mut reader = FrameReader::new(MAX_CONTROL_FRAME);
    reader.push(framed);
    match reader.next_frame() {
        Ok(Some(frame)) => frame.to_vec(),
        other => panic!("what we wrote is no frame: {other:?}"),
    }
}
