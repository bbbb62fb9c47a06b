//! One session and a peer that breaks the rules, or leans on them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel_model::{Class, Offer, Protocol, Reason, Refusal, Service, TraceId};
use tunnel_proto::{
    Config, Control, Event, Fate, Hello, Incoming, MAX_SERVICES, MAX_SUBNETS, Open, Prelude, Session, Side, StreamId,
    Violation,
};

use crate::{network::other, pair::hello};

/// T2
#[test]
fn an_edge_that_names_a_destination_is_refused() {
    let mut gateway = Victim::new(Side::Gateway);
    for (id, target) in (1..).step_by(2).zip([
        "port:22",
        "tcp:169.254.169.254:80",
        "tcp:db.internal:5432",
        "udp:53",
        "udp:169.254.169.254:53",
    ]) {
        let Incoming::Refused(reply) = gateway.open(id, target).unwrap() else {
            panic!("{target} was let in");
        };
        assert_eq!(read_reply(&reply).unwrap_err().reason, Reason::Denied);
    }
    assert!(matches!(
        gateway.open(11, "service:registry"),
        Ok(Incoming::Stream { .. })
    ));
    assert_eq!(gateway.session.open_streams(), 1);
}

/// T2
#[test]
fn a_thousand_forged_ids_are_violations() {
    for forged in 0..500 {
        let mut gateway = Victim::new(Side::Gateway);
        gateway.open(1001, "service:web").unwrap();
        let own = gateway.session.open(&an_open("port:22")).unwrap().0;
        assert_eq!(own.opener(), Side::Gateway);
        let outcome = match forged {
            0 => gateway.open(1001, "service:web"),
            1 => gateway.open(u64::MAX, "service:web"),
            _ => gateway.open(own.0 + 2 * forged, "service:web"),
        };
        assert_eq!(outcome.map(drop), Err(Reason::Protocol), "gateway, {forged}");

        let mut edge = Victim::new(Side::Edge);
        edge.open(1000, "port:22").unwrap();
        let outcome = match forged {
            0 => edge.open(0, "port:22"),
            1 => edge.open(1000, "port:22"),
            _ => edge.open(2 * forged + 1, "port:22"),
        };
        assert_eq!(outcome.map(drop), Err(Reason::Protocol), "edge, {forged}");
    }
}

#[test]
fn the_highest_ids_wrap_around_nothing() {
    let mut edge = Victim::new(Side::Edge);
    let highest = StreamId::MAX.0 - StreamId::MAX.0 % 2;
    for id in (highest - 2 * 5000..=highest).step_by(2) {
        edge.open(id, "port:22").unwrap();
    }
    assert_eq!(edge.open(highest, "port:22").map(drop), Err(Reason::Protocol));
    assert_eq!(edge.open(highest + 2, "port:22").map(drop), Err(Reason::Protocol));
}

/// B4
#[test]
fn a_peer_of_another_time_is_told_so_and_one_that_also_speaks_ours_is_not() {
    for side in [Side::Edge, Side::Gateway] {
        let speaks = |min_version, max_version| {
            Control::Hello(Hello {
                min_version,
                max_version,
                ..hello(other(side))
            })
        };
        let mut newer = Victim::greeted_by(side, None);
        assert_eq!(newer.hear(&speaks(2, 9)), Err(Reason::UnsupportedVersion));
        let mut older = Victim::greeted_by(side, None);
        assert_eq!(older.hear(&speaks(0, 0)), Err(Reason::UnsupportedVersion));
        let mut both = Victim::greeted_by(side, None);
        assert_eq!(both.hear(&speaks(1, 9)), Ok(()));
        assert!(matches!(both.session.poll_event(), Some(Event::Ready(agreed)) if agreed.version == 1));
    }
}

/// B4
#[test]
fn what_only_a_newer_peer_knows_is_ignored() {
    let unknown_kind = [0x03, 0xa2, 0x06, 0x00];
    let no_kind = [0x00];
    let ping_with_unknown_field = [0x06, 0x12, 0x04, 0x08, 0x05, 0x78, 0x01];
    let mut edge = Victim::greeted_by(Side::Edge, None);
    edge.hear_bytes(&unknown_kind).unwrap();
    edge.hear(&Control::Hello(hello(Side::Gateway))).unwrap();
    edge.hear_bytes(&unknown_kind).unwrap();
    edge.hear_bytes(&no_kind).unwrap();
    edge.hear_bytes(&ping_with_unknown_field).unwrap();
    assert_eq!(edge.said().last(), Some(&Control::Pong(5).encode()));

    let id = edge.session.open(&an_open("service:web")).unwrap().0;
    let reset_with_unknown_reason = [0x08, 0x2a, 0x06, 0x08, 0x01, 0x12, 0x02, 0x08, 0x63];
    edge.hear_bytes(&reset_with_unknown_reason).unwrap();
    let refusal = Refusal::new(Reason::Internal, "");
    assert_eq!(edge.events().pop(), Some(Event::Broken { id, refusal }));
}

/// B1
#[test]
fn a_frame_of_four_gigabytes_is_a_violation_at_once() {
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear_bytes(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Reason::Protocol));
    let mut prelude = Prelude::default();
    prelude.push(&[0x81, 0x20]);
    assert!(prelude.split().is_err());
}

/// B2, B3
#[test]
fn what_is_no_message_is_a_violation() {
    let refusal = |reason| [0x08, reason];
    let frames: [(&str, Vec<u8>); 10] = [
        ("an endless length", vec![0x80; 5]),
        ("a frame that is too long", vec![0x81, 0x80, 0x04]),
        ("a field cut off", vec![0x02, 0x12, 0x05]),
        ("a tag of no type", vec![0x01, 0x0f]),
        ("a hello without a session", vec![0x02, 0x0a, 0x00]),
        ("a reset without a refusal", vec![0x04, 0x2a, 0x02, 0x08, 0x02]),
        ("a goaway without a refusal", vec![0x02, 0x32, 0x00]),
        ("a service without a name", vec![0x04, 0x3a, 0x02, 0x0a, 0x00]),
        ("text that is no UTF-8", {
            let inner = [&refusal(1)[..], &[0x12, 0x01, 0xff]].concat();
            [&[0x09, 0x2a, 0x07, 0x12, 0x05][..], &inner].concat()
        }),
        ("a count larger than the message", vec![0x02, 0x3a, 0x7f]),
    ];
    for (what, bytes) in frames {
        let mut gateway = Victim::new(Side::Gateway);
        assert_eq!(gateway.hear_bytes(&bytes), Err(Reason::Protocol), "{what}");
    }
    let mut gateway = Victim::new(Side::Gateway);
    let service = Service {
        name: "web".parse().unwrap(),
        target: "127.0.0.1:80".parse().unwrap(),
        protocol: Protocol::Tcp,
    };
    let offer = |services, subnets| {
        Control::Offer(Offer {
            services: vec![service.clone(); services],
            subnets: vec!["10.42.3.0/24".parse().unwrap(); subnets],
        })
    };
    assert_eq!(gateway.hear(&offer(MAX_SERVICES, MAX_SUBNETS)), Ok(()));
    assert_eq!(gateway.hear(&offer(MAX_SERVICES + 1, 0)), Err(Reason::Protocol));
    assert_eq!(
        Victim::new(Side::Gateway).hear(&offer(0, MAX_SUBNETS + 1)),
        Err(Reason::Protocol)
    );
    let talkative = Control::Hello(Hello {
        features: vec![String::new(); 65],
        ..hello(Side::Edge)
    });
    assert_eq!(
        Victim::greeted_by(Side::Gateway, None).hear(&talkative),
        Err(Reason::Protocol)
    );
}

#[test]
fn what_comes_out_of_turn_is_a_violation() {
    let refusal = Refusal::new(Reason::Cancelled, "");
    for message in [
        Control::Ping(1),
        Control::Pong(1),
        Control::End {
            id: StreamId(2),
            offset: 0,
        },
        Control::Reset {
            id: StreamId(2),
            refusal: refusal.clone(),
        },
        Control::Offer(Offer::default()),
    ] {
        let mut edge = Victim::greeted_by(Side::Edge, None);
        assert_eq!(
            edge.hear(&message),
            Err(Reason::Protocol),
            "{message:?} before the hello"
        );
    }
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear(&Control::Hello(hello(Side::Gateway))), Err(Reason::Protocol));
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear(&Control::Offer(Offer::default())), Err(Reason::Protocol));
}

/// A gateway that turns an edge away says so without a hello.
#[test]
fn a_goaway_may_stand_in_for_the_hello() {
    let mut edge = Victim::greeted_by(Side::Edge, None);
    let goaway = Control::GoAway {
        refusal: Refusal::new(Reason::Overloaded, "too many edges at once"),
        retry_after: Some(Duration::from_secs(7)),
    };
    edge.hear(&goaway).unwrap();
    assert!(
        matches!(edge.session.poll_event(), Some(Event::GoAway { retry_after: Some(wait), .. }) if wait.as_secs() == 7)
    );
}

#[test]
fn an_end_that_contradicts_what_came_is_a_violation() {
    let end = |offset| Control::End {
        id: StreamId(2),
        offset,
    };
    let mut twice = Victim::new(Side::Edge);
    twice.open(2, "port:22").unwrap();
    twice.hear(&end(5)).unwrap();
    assert_eq!(twice.hear(&end(5)), Err(Reason::Protocol));

    let mut short = Victim::new(Side::Edge);
    short.open(2, "port:22").unwrap();
    let (_, mut receiving) = Session::halves(StreamId(2));
    receiving.record(6);
    assert_eq!(receiving.carrier_ended(&mut short.session, short.now), Fate::Pending);
    assert_eq!(short.hear(&end(5)), Err(Reason::Protocol));

    // More bytes than were announced void the stream where the carrier stream is what ends last.
    let mut long = Victim::new(Side::Edge);
    long.open(2, "port:22").unwrap();
    long.hear(&end(5)).unwrap();
    let (_, mut receiving) = Session::halves(StreamId(2));
    receiving.record(6);
    assert!(matches!(
        receiving.carrier_ended(&mut long.session, long.now),
        Fate::Broken(_)
    ));
    assert_eq!(long.session.open_streams(), 0);
}

/// B2
#[test]
fn what_is_no_header_and_no_answer_is_a_violation() {
    let (_, header) = Victim::new(Side::Gateway).session.open(&an_open("port:22")).unwrap();
    let whole = content(&header);
    for cut in 0..whole.len() {
        let mut edge = Victim::new(Side::Edge);
        match edge.session.handle_open(&whole[..cut]) {
            Err(Violation(refusal)) => assert_eq!(refusal.reason, Reason::Protocol),
            Ok(_) => panic!("cut at {cut} it is a header still"),
        }
    }
    let mut gateway = Victim::new(Side::Gateway);
    let id = gateway.session.open(&an_open("port:22")).unwrap().0;
    for answer in [&[0x0a][..], &[0x0a, 0x05, 0x08], &[0xff; 20]] {
        assert!(gateway.session.handle_reply(id, answer).is_err(), "{answer:?}");
    }
    assert_eq!(gateway.session.handle_reply(id, &[]), Ok(Ok(())));
}

/// B6
#[test]
fn a_hundred_thousand_gaps_in_the_ids_take_bounded_memory() {
    let mut edge = Victim::new(Side::Edge);
    for i in 0..100_000 {
        if let Ok(Incoming::Stream { id, .. }) = edge.open(2 + 4 * i, "port:22") {
            edge.session.refuse(id, &Refusal::new(Reason::NotAllowed, ""));
        }
    }
    assert!(edge.weight() < 64 * 1024, "{}", edge.weight());
}

/// B7
#[test]
fn a_hundred_thousand_streams_opened_and_reset_in_a_second_close_the_session() {
    let mut edge = Victim::new(Side::Edge);
    let reset = |id| Control::Reset {
        id: StreamId(id),
        refusal: Refusal::new(Reason::Cancelled, ""),
    };
    let mut closed = None;
    for i in 0..100_000 {
        let id = 2 + 2 * i;
        edge.open(id, "port:22").unwrap();
        edge.now += Duration::from_micros(10);
        if let Err(reason) = edge.hear(&reset(id)) {
            closed = Some((i, reason));
            break;
        }
        edge.events();
    }
    assert!(matches!(closed, Some((20_000..30_000, Reason::Protocol))), "{closed:?}");
}

#[test]
fn streams_that_are_reset_now_and_then_close_nothing() {
    let mut edge = Victim::new(Side::Edge);
    for i in 0..50_000 {
        let id = StreamId(2 + 2 * i);
        edge.open(id.0, "port:22").unwrap();
        edge.now += Duration::from_millis(2);
        let refusal = Refusal::new(Reason::Cancelled, "");
        edge.hear(&Control::Reset { id, refusal }).unwrap();
        edge.events();
    }
}

/// An offer is costly to read and to pass on.
#[test]
fn a_flood_of_offers_closes_the_session() {
    let mut gateway = Victim::new(Side::Gateway);
    let offer = Control::Offer(Offer::default());
    for _ in 0..20 {
        assert_eq!(gateway.hear(&offer), Ok(()));
    }
    assert_eq!(gateway.hear(&offer), Err(Reason::Protocol));
    let mut gateway = Victim::new(Side::Gateway);
    for _ in 0..200 {
        assert_eq!(gateway.hear(&offer), Ok(()));
        gateway.now += Duration::from_secs(1);
    }
}

#[test]
fn a_flood_of_pings_closes_the_session() {
    let mut gateway = Victim::new(Side::Gateway);
    let answered = (0..1000)
        .take_while(|&i| gateway.hear(&Control::Ping(i)).is_ok())
        .count();
    assert!((10..=100).contains(&answered), "{answered}");
}

/// T2
#[test]
fn news_of_streams_that_never_come_take_bounded_memory() {
    let mut edge = Victim::new(Side::Edge);
    for i in 0..100_000 {
        let id = StreamId(2 + 2 * i);
        edge.hear(&Control::End { id, offset: 1 }).unwrap();
    }
    assert!(edge.weight() < 256 * 1024, "{}", edge.weight());
    for i in 0..9_000 {
        let id = StreamId(1_000_000 + 2 * i);
        let refusal = Refusal::new(Reason::Cancelled, "x".repeat(2_000));
        edge.hear(&Control::Reset { id, refusal }).unwrap();
    }
    assert!(edge.weight() < 1024 * 1024, "{}", edge.weight());
}

/// T2
#[test]
fn a_hundred_thousand_short_streams_leave_nothing_behind() {
    let mut edge = Victim::new(Side::Edge);
    let before = edge.weight();
    for i in 0..100_000 {
        let (id, refused) = (StreamId(2 + 4 * i), StreamId(4 + 4 * i));
        edge.open(refused.0, "port:22").unwrap();
        edge.session.refuse(refused, &Refusal::new(Reason::NotAllowed, ""));
        edge.hear(&Control::End { id: refused, offset: 0 }).unwrap();
        edge.open(id.0, "port:22").unwrap();
        let (sending, receiving) = Session::halves(id);
        edge.session.accept(id).unwrap();
        sending.finish(&mut edge.session);
        assert_eq!(receiving.carrier_ended(&mut edge.session, edge.now), Fate::Pending);
        edge.hear(&Control::End { id, offset: 0 }).unwrap();
        assert_eq!(edge.events(), [Event::Received { id, end: Ok(()) }]);
        edge.said();
    }
    assert_eq!(edge.session.poll_timeout(), None);
    assert!(edge.weight() < before + 256, "{before} grew to {}", edge.weight());
}

/// T2
#[test]
fn a_peer_that_never_reads_its_control_stream_is_given_up() {
    let mut gateway = Victim::new(Side::Gateway);
    let mut failed = None;
    for i in 0..1_000_000 {
        gateway.session.ping(gateway.now);
        if let Some(event) = gateway.session.poll_event() {
            failed = Some((i, event));
            break;
        }
    }
    let Some((_, Event::Failed(refusal))) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(refusal.reason, Reason::Protocol);
    assert!(gateway.weight() < 16 * 1024, "{}", gateway.weight());
    // What still arrives before the carrier is closed changes nothing.
    assert_eq!(gateway.hear(&Control::Ping(1)), Ok(()));
    assert_eq!(gateway.session.poll_event(), None);
}

#[test]
fn what_an_edge_offers_reaches_the_gateway() {
    let mut gateway = Victim::new(Side::Gateway);
    let mut edge = Victim::new(Side::Edge);
    let offer = Offer {
        services: vec![Service {
            name: "ssh".parse().unwrap(),
            target: "127.0.0.1:22".parse().unwrap(),
            protocol: Protocol::Tcp,
        }],
        subnets: vec!["10.42.3.0/24".parse().unwrap()],
    };
    edge.session.offer(&offer).unwrap();
    for bytes in edge.said() {
        gateway.hear_bytes(&bytes).unwrap();
    }
    assert_eq!(gateway.events(), [Event::Offer(offer)]);
}

struct Victim {
    session: Session,
    now: Instant,
}

impl Victim {
    /// A session of this side that has agreed with its peer.
    fn new(side: Side) -> Self {
        let mut victim = Self::greeted_by(side, Some(hello(other(side))));
        victim.events();
        victim
    }

    fn greeted_by(side: Side, peer: Option<Hello>) -> Self {
        let now = Instant::now();
        let config = Config {
            max_streams: 10_000,
            ..Config::default()
        };
        let mut victim = Self {
            session: Session::new(side, config, hello(side), now),
            now,
        };
        victim.session.handle_carrier_up(now);
        victim.said();
        if let Some(peer) = peer {
            victim.hear(&Control::Hello(peer)).unwrap();
        }
        victim
    }

    fn hear(&mut self, message: &Control) -> Result<(), Reason> {
        self.hear_bytes(&message.encode())
    }

    fn hear_bytes(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        self.session
            .handle_control(bytes, self.now)
            .map_err(|violation| violation.0.reason)
    }

    /// The peer opens a stream of this id, rightly or not.
    fn open(&mut self, id: u64, target: &str) -> Result<Incoming, Reason> {
        self.session
            .handle_open(&header(id, target))
            .map_err(|violation| violation.0.reason)
    }

    fn said(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.session.poll_transmit()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// What the session holds, written out: a measure of its memory.
    fn weight(&self) -> usize {
        format!("{:?}", self.session).len()
    }
}

fn an_open(target: &str) -> Open {
    Open {
        target: target.parse().unwrap(),
        protocol: Protocol::Tcp,
        class: Class::Api,
        trace: TraceId::from_bytes([7; 16]),
        principal: "alice".to_owned(),
        node: None,
    }
}

/// A header's content with an id of the attacker's choice.
fn header(id: u64, target: &str) -> Vec<u8> {
    let mut open = vec![0x08];
    let mut rest = id;
    while rest >= 0x80 {
        open.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    open.push(u8::try_from(rest).unwrap());
    open.extend([0x12, u8::try_from(target.len()).unwrap()]);
    open.extend_from_slice(target.as_bytes());
    open.extend([0x22, 16]);
    open.extend([7; 16]);
    [&[0x0a, u8::try_from(open.len()).unwrap()][..], &open].concat()
}

/// The frame without its length.
fn content(framed: &[u8]) -> Bytes {
    let mut prelude = Prelude::default();
    prelude.push(framed);
    prelude.split().unwrap().unwrap().0
}

fn read_reply(framed: &[u8]) -> Result<(), Refusal> {
    let mut gateway = Victim::new(Side::Gateway);
    let id = gateway.session.open(&an_open("port:22")).unwrap().0;
    gateway.session.handle_reply(id, &content(framed)).unwrap()
}
