//! One session and a peer that breaks the rules, or leans on them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel_model::{Class, LinkLoss, LossCause, Offer, Protocol, Reason, Refusal, Service, TraceId};
use tunnel_proto::{
    Config, Control, Event, Fate, Greeted, Greeting, Hello, Incoming, MAX_LOSSES, MAX_SERVICES, MAX_SUBNETS,
    Negotiated, Open, Position, Prelude, Rate, Session, Side, StreamId, Violation,
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
        let speaks = |min_version, max_version| Hello {
            min_version,
            max_version,
            ..hello(other(side))
        };
        let agree = |min, max| Negotiated::between(&hello(side), speaks(min, max)).map_err(|refusal| refusal.reason);
        assert_eq!(agree(2, 9).map(drop), Err(Reason::UnsupportedVersion));
        assert_eq!(agree(0, 0).map(drop), Err(Reason::UnsupportedVersion));
        assert_eq!(agree(1, 9).map(|agreed| agreed.version), Ok(1));
    }
}

/// B4
#[test]
fn what_only_a_newer_peer_knows_is_ignored() {
    let unknown_kind = [0x03, 0xa2, 0x06, 0x00];
    let no_kind = [0x00];
    let ping_with_unknown_field = [0x06, 0x12, 0x04, 0x08, 0x05, 0x78, 0x01];
    let mut greeting = Greeting::default();
    greeting.push(&unknown_kind);
    assert_eq!(greeting.poll(), Ok(None));
    greeting.push(&Control::Hello(hello(Side::Gateway)).encode());
    assert!(matches!(greeting.poll(), Ok(Some(Greeted::Hello { .. }))));
    let mut edge = Victim::new(Side::Edge);
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
    let service = Service::new("web".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
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
    assert_eq!(greet(&talkative), Err(Reason::Protocol));
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
        assert_eq!(greet(&message), Err(Reason::Protocol), "{message:?} before the hello");
    }
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear(&Control::Hello(hello(Side::Gateway))), Err(Reason::Protocol));
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear(&Control::Offer(Offer::default())), Err(Reason::Protocol));
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear(&Control::Journal(Vec::new())), Err(Reason::Protocol));
    let mut edge = Victim::new(Side::Edge);
    assert_eq!(edge.hear(&Control::Pace(None)), Err(Reason::Protocol));
    let mut gateway = Victim::new(Side::Gateway);
    assert_eq!(gateway.hear(&Control::Journaled(1)), Err(Reason::Protocol));
}

/// A gateway that turns an edge away says so without a hello.
#[test]
fn a_goaway_may_stand_in_for_the_hello() {
    let (refusal, retry_after) = (
        Refusal::new(Reason::Overloaded, "too many edges at once"),
        Some(Duration::from_secs(7)),
    );
    let goaway = Control::GoAway {
        refusal: refusal.clone(),
        retry_after,
    };
    assert_eq!(greet(&goaway), Ok(Some(Greeted::GoAway { refusal, retry_after })));
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
    // A peer says it again on the next carrier, but never something else.
    twice.hear(&end(5)).unwrap();
    assert_eq!(twice.hear(&end(6)), Err(Reason::Protocol));

    let mut short = Victim::new(Side::Edge);
    short.open(2, "port:22").unwrap();
    assert_eq!(short.receive_and_end(2, 6), Fate::Pending);
    assert_eq!(short.hear(&end(5)), Err(Reason::Protocol));

    // More bytes than were announced void the stream where the carrier stream is what ends last.
    let mut long = Victim::new(Side::Edge);
    long.open(2, "port:22").unwrap();
    long.hear(&end(5)).unwrap();
    assert!(matches!(long.receive_and_end(2, 6), Fate::Broken(_)));
    assert_eq!(long.session.open_streams(), 0);
}

/// A peer that takes for received what was never sent would have us throw away what it needs.
#[test]
fn a_peer_that_acknowledges_what_was_never_sent_is_a_violation() {
    let lies = |received| {
        Control::Acks(vec![Position {
            id: StreamId(2),
            received,
        }])
    };
    for (received, verdict) in [
        (4, Ok(())),
        (5, Ok(())),
        (6, Err(Reason::Protocol)),
        (u64::MAX, Err(Reason::Protocol)),
    ] {
        let mut edge = Victim::new(Side::Edge);
        edge.open(2, "port:22").unwrap();
        edge.session
            .sent(StreamId(2), 1, Bytes::from_static(b"hello"), Instant::now())
            .unwrap();
        assert_eq!(edge.hear(&lies(received)), verdict, "{received}");
        let mut ended = Victim::new(Side::Edge);
        ended.open(2, "port:22").unwrap();
        ended
            .session
            .sent(StreamId(2), 1, Bytes::from_static(b"hell"), Instant::now())
            .unwrap();
        ended.session.finish(StreamId(2));
        assert_eq!(ended.hear(&lies(received)), verdict, "{received}, its end counted");
    }
    // Of streams that are over, or never were, it says nothing.
    assert_eq!(Victim::new(Side::Edge).hear(&lies(7)), Ok(()));
}

#[test]
fn a_peer_that_lies_about_what_it_has_on_the_next_carrier_is_a_violation() {
    let resume = |streams: &[(u64, u64)]| Control::Resume {
        streams: streams
            .iter()
            .map(|&(id, received)| Position {
                id: StreamId(id),
                received,
            })
            .collect(),
        last: true,
    };
    let again = || {
        let mut edge = Victim::new(Side::Edge);
        edge.open(2, "port:22").unwrap();
        edge.session
            .sent(StreamId(2), 1, Bytes::from_static(b"hello"), Instant::now())
            .unwrap();
        edge.next_carrier();
        edge
    };
    assert_eq!(again().hear(&resume(&[(2, 5)])), Ok(()));
    assert_eq!(again().hear(&resume(&[(2, 6)])), Err(Reason::Protocol));
    assert_eq!(again().hear(&resume(&[(2, 5), (2, 5)])), Err(Reason::Protocol));
    let mut twice = again();
    twice.hear(&resume(&[(2, 5)])).unwrap();
    assert_eq!(twice.hear(&resume(&[(2, 5)])), Err(Reason::Protocol));
    // On a first carrier nothing is there to go on.
    assert_eq!(Victim::new(Side::Edge).hear(&resume(&[])), Err(Reason::Protocol));

    let header = |id: u8, received: u8| [0x12, 0x04, 0x08, id, 0x10, received];
    let goes_on = |id, received| {
        let handled = again().session.handle_open(&header(id, received), 2);
        handled.map_err(|violation| violation.0.reason)
    };
    assert!(matches!(goes_on(2, 5), Ok(Incoming::Resumed(_))));
    assert!(matches!(goes_on(2, 6), Err(Reason::Protocol)));
    assert!(matches!(goes_on(3, 0), Err(Reason::Protocol)), "an id of ours");
    assert!(matches!(goes_on(4, 0), Ok(Incoming::Refused(_))), "one that never was");
}

/// T2
#[test]
fn a_list_without_end_takes_bounded_memory() {
    let mut edge = Victim::new(Side::Edge);
    edge.next_carrier();
    let mut listed = 0;
    let verdict = loop {
        let streams = (0..2000).map(|i| Position {
            id: StreamId(listed + i),
            received: 0,
        });
        let streams = streams.collect();
        match edge.hear(&Control::Resume { streams, last: false }) {
            Ok(()) => listed += 2000,
            Err(reason) => break reason,
        }
        assert!(listed < 100_000);
    };
    assert_eq!(verdict, Reason::Protocol);
}

/// T2
#[test]
fn for_a_peer_that_acknowledges_nothing_bounded_memory_is_kept() {
    let mut gateway = Victim::new(Side::Gateway);
    let limits = Config::default().replay;
    let mut kept = 0;
    for i in 0..200 {
        let id = gateway.session.open(&an_open("port:22")).unwrap().0;
        let mut of_stream = 0;
        while let room @ 1.. = gateway.session.room(id, 1, 64 * 1024, gateway.now).unwrap() {
            let chunk = Bytes::from(vec![0; room]);
            of_stream += chunk.len();
            gateway.session.sent(id, 1, chunk, Instant::now()).unwrap();
        }
        assert!(
            (limits.reserve..=limits.stream).contains(&of_stream),
            "stream {i}: {of_stream}"
        );
        kept += of_stream;
    }
    assert!(kept <= limits.session + 200 * limits.reserve, "{kept}");
}

/// B2
#[test]
fn what_is_no_header_and_no_answer_is_a_violation() {
    let (_, header) = Victim::new(Side::Gateway).session.open(&an_open("port:22")).unwrap();
    let whole = content(&header);
    for cut in 0..whole.len() {
        let mut edge = Victim::new(Side::Edge);
        match edge.session.handle_open(&whole[..cut], 1) {
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

/// Each page is written to disk.
#[test]
fn a_flood_of_pages_of_the_journal_closes_the_session() {
    let mut gateway = Victim::new(Side::Gateway);
    let page = Control::Journal(Vec::new());
    for _ in 0..20 {
        assert_eq!(gateway.hear(&page), Ok(()));
    }
    assert_eq!(gateway.hear(&page), Err(Reason::Protocol));
    let loss = LinkLoss {
        number: 1,
        cause: LossCause::Dns,
        begun_millis: 0,
        lasted: Duration::ZERO,
        sent: 0,
        received: 0,
        message: String::new(),
    };
    let page = |losses| Control::Journal(vec![loss.clone(); losses]);
    assert_eq!(Victim::new(Side::Gateway).hear(&page(MAX_LOSSES)), Ok(()));
    assert_eq!(
        Victim::new(Side::Gateway).hear(&page(MAX_LOSSES + 1)),
        Err(Reason::Protocol)
    );
}

#[test]
fn a_flood_of_rates_closes_the_session() {
    let mut gateway = Victim::new(Side::Gateway);
    let rate = Control::Pace(Rate::from_bits_per_second(3_000_000));
    for _ in 0..20 {
        assert_eq!(gateway.hear(&rate), Ok(()));
    }
    assert_eq!(gateway.hear(&rate), Err(Reason::Protocol));
}

/// An edge that lies about its link gets no more than it says, and no less than a link carries at the least.
#[test]
fn a_rate_of_hardly_anything_and_one_of_anything_are_held_to_as_far_as_they_make_sense() {
    let mut gateway = Victim::new(Side::Gateway);
    for (told, held) in [
        (1, Some(Rate::LEAST)),
        (u64::MAX, Rate::from_bytes_per_second(u64::MAX)),
        (0, None),
    ] {
        let rate = Rate::from_bytes_per_second(told);
        assert_eq!(gateway.hear(&Control::Pace(rate)), Ok(()));
        assert_eq!(gateway.session.told_rate(), held);
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
        edge.session.accept(id).unwrap();
        edge.session.finish(id);
        assert_eq!(edge.receive_and_end(id.0, 0), Fate::Pending);
        edge.hear(&Control::End { id, offset: 0 }).unwrap();
        edge.hear(&Control::Acks(vec![Position { id, received: 1 }])).unwrap();
        assert_eq!(edge.events(), [Event::Received { id, end: Ok(()) }]);
        edge.said();
    }
    let due = edge.session.poll_timeout().unwrap();
    edge.session.handle_timeout(due);
    edge.said();
    assert_eq!(edge.session.poll_timeout(), None);
    // Why the last that were refused are over is still known.
    assert!(edge.weight() < before + 16 * 1024, "{before} grew to {}", edge.weight());
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
        services: vec![Service::new("ssh".parse().unwrap(), "127.0.0.1:22".parse().unwrap())],
        subnets: vec!["10.42.3.0/24".parse().unwrap()],
    };
    edge.session.offer(&offer).unwrap();
    for bytes in edge.said() {
        gateway.hear_bytes(&bytes).unwrap();
    }
    assert_eq!(gateway.events(), [Event::Offer(offer)]);
}

const RESUME_FOR: Duration = Duration::from_secs(600);

/// What a peer's first words lead to.
fn greet(message: &Control) -> Result<Option<Greeted>, Reason> {
    let mut greeting = Greeting::default();
    greeting.push(&message.encode());
    greeting.poll().map_err(|violation| violation.0.reason)
}

struct Victim {
    session: Session,
    now: Instant,
}

impl Victim {
    /// A session of this side on its first carrier.
    fn new(side: Side) -> Self {
        let now = Instant::now();
        let config = Config {
            max_streams: 10_000,
            ..Config::default()
        };
        let mut session = Session::new(side, config, now);
        session.handle_carrier_up(1, RESUME_FOR, now).unwrap();
        Self { session, now }
    }

    /// The carrier is lost, and the next one is there.
    fn next_carrier(&mut self) {
        let lost = Refusal::new(Reason::CarrierLost, "");
        self.session.handle_carrier_lost(&lost, self.now);
        let next = self.session.carrier() + 1;
        self.session.handle_carrier_up(next, RESUME_FOR, self.now).unwrap();
        self.said();
    }

    /// So many bytes arrive on a stream, and the carrier's stream ends.
    fn receive_and_end(&mut self, id: u64, bytes: usize) -> Fate {
        let (id, carrier) = (StreamId(id), self.session.carrier());
        self.session.received(id, carrier, bytes, self.now).unwrap();
        self.session.carrier_stream_ended(id, carrier, self.now).unwrap()
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
            .handle_open(&header(id, target), self.session.carrier())
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
        encoding: tunnel_model::Encoding::Raw,
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
