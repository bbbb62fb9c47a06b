use super::*;
use proptest::prelude::*;

#[test]
fn every_message_reads_back_as_it_was_written() {
    for message in examples() {
        assert_eq!(Control::decode(content(&message.encode())), Ok(Some(message)));
    }
    for target in [
        "port:10250",
        "service:web",
        "tcp:10.0.0.1:80",
        "udp:53",
        "udp:db.lan:53",
    ] {
        for node in [None, Some(NodeName::cloud()), Some("edge2".parse().unwrap())] {
            let target: Target = target.parse().unwrap();
            let (id, open) = (
                StreamId(6),
                Open {
                    protocol: target.protocol().unwrap_or(Protocol::Udp),
                    target,
                    node,
                    ..an_open()
                },
            );
            for again in [false, true] {
                let header = Header::Open {
                    id,
                    open: open.clone(),
                    again,
                };
                assert_eq!(Header::decode(content(&header.encode())), Ok(header));
            }
        }
    }
    for reply in [Ok(()), Err(Refusal::new(Reason::TargetRefused, "nothing listens"))] {
        assert_eq!(decode_reply(content(&encode_reply(&reply))), Ok(reply));
    }
}

/// B2
#[test]
fn a_truncated_message_is_an_error_or_another_message_and_never_a_panic() {
    for message in examples() {
        let whole = message.encode();
        let whole = content(&whole);
        for end in 0..whole.len() {
            assert_ne!(
                Control::decode(&whole[..end]),
                Ok(Some(message.clone())),
                "cut at {end}"
            );
        }
    }
}

/// B3
#[test]
fn a_count_larger_than_the_message_is_refused() {
    // Control.offer (field 7, length-delimited) that claims 127 bytes and has none.
    assert!(matches!(Control::decode(&[0x3a, 0x7f]), Err(DecodeError::Malformed(_))));
}

/// B4
#[test]
fn a_kind_of_message_that_is_not_known_is_ignored() {
    // Field 100 with an empty message in it.
    assert_eq!(Control::decode(&[0xa2, 0x06, 0x00]), Ok(None));
}

#[test]
fn an_edge_cannot_declare_services_without_end() {
    let many = |services, subnets| Offer {
        services: vec![a_service("127.0.0.1:80"); services],
        subnets: vec!["10.42.3.0/24".parse().unwrap(); subnets],
    };
    let read = |offer| Control::decode(content(&Control::Offer(offer).encode()));
    let most = many(MAX_SERVICES, MAX_SUBNETS);
    assert_eq!(check_offer(&most), Ok(()));
    assert_eq!(read(most.clone()), Ok(Some(Control::Offer(most))));
    let services = many(MAX_SERVICES + 1, 0);
    assert_eq!(check_offer(&services), Err(OfferError::Services(MAX_SERVICES + 1)));
    assert_eq!(read(services), Err(DecodeError::TooMany("services")));
    let subnets = many(0, MAX_SUBNETS + 1);
    assert_eq!(check_offer(&subnets), Err(OfferError::Subnets(MAX_SUBNETS + 1)));
    assert_eq!(read(subnets), Err(DecodeError::TooMany("subnets")));
}

#[test]
fn an_offer_that_no_frame_holds_is_not_made() {
    let long = Offer {
        services: vec![a_service(&format!("{}:80", "a.".repeat(125))); MAX_SERVICES],
        subnets: Vec::new(),
    };
    assert!(matches!(check_offer(&long), Err(OfferError::Size(_))));
}

/// B4
#[test]
fn a_service_of_a_protocol_that_is_not_known_is_left_out() {
    let service = |name: &str, protocol| wire::Service {
        encoding: 0,
        ..a_wire_service(name, protocol)
    };
    let offer = read_offer(wire::Offer {
        services: vec![service("web", 0), service("later", 2), service("dns", 1)],
        subnets: Vec::new(),
    });
    let read: Vec<_> = offer
        .unwrap()
        .services
        .into_iter()
        .map(|s| (s.name.to_string(), s.protocol))
        .collect();
    assert_eq!(
        read,
        [("web".to_owned(), Protocol::Tcp), ("dns".to_owned(), Protocol::Udp)]
    );
}

/// B4
#[test]
fn an_encoding_that_is_not_known_is_none_in_an_offer_and_a_violation_in_a_header() {
    let offered = |protocol, encoding| {
        let service = wire::Service {
            encoding,
            ..a_wire_service("web", protocol)
        };
        let offer = wire::Offer {
            services: vec![service],
            subnets: Vec::new(),
        };
        read_offer(offer).unwrap().services[0].encoding()
    };
    assert_eq!(
        [0, 1, 2, 3].map(|encoding| offered(0, encoding)),
        [Encoding::Raw, Encoding::Compressed, Encoding::Scrapes, Encoding::Raw]
    );
    assert_eq!(offered(1, 2), Encoding::Raw);

    for encoding in [Encoding::Raw, Encoding::Compressed, Encoding::Scrapes] {
        let header = Header::Open {
            id: StreamId(6),
            open: Open { encoding, ..an_open() },
            again: false,
        };
        let mut frame = content(&header.encode()).to_vec();
        assert_eq!(Header::decode(&frame), Ok(header));
        if let Some(last) = frame.last_mut().filter(|_| encoding != Encoding::Raw) {
            *last = 9;
            assert_eq!(Header::decode(&frame), Err(DecodeError::Field("open.encoding")));
        }
    }
}

/// B4
#[test]
fn a_class_of_a_service_that_is_not_known_is_none() {
    let offered = |class| {
        let service = wire::Service {
            class,
            ..a_wire_service("web", 0)
        };
        let offer = wire::Offer {
            services: vec![service],
            subnets: Vec::new(),
        };
        read_offer(offer).unwrap().services[0].class.map(ChosenClass::get)
    };
    assert_eq!(
        [0, 1, 4, 5, u32::MAX].map(offered),
        [None, Some(Class::Interactive), Some(Class::Bulk), None, None]
    );
}

fn a_wire_service(name: &str, protocol: u32) -> wire::Service {
    wire::Service {
        name: name.to_owned(),
        target: "127.0.0.1:53".to_owned(),
        protocol,
        encoding: 0,
        class: 0,
    }
}

#[test]
fn an_offer_that_cannot_be_read_is_refused() {
    let subnets = |text: &str| {
        read_offer(wire::Offer {
            services: Vec::new(),
            subnets: vec![text.to_owned()],
        })
    };
    assert!(subnets("10.42.3.0/24").is_ok());
    for bad in ["", "10.42.3.0/33", "010.0.0.0/8", "edge1"] {
        assert_eq!(subnets(bad), Err(DecodeError::Field("offer.subnets")), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Control::decode(&bytes);
        let _ = Header::decode(&bytes);
        let _ = decode_reply(&bytes);
    }
}

fn content(framed: &[u8]) -> &[u8] {
    let length = prost::decode_length_delimiter(framed).unwrap();
    &framed[framed.len() - length..]
}

fn an_open() -> Open {
    Open {
        target: Target::Port(10250),
        protocol: Protocol::Tcp,
        encoding: Encoding::Raw,
        class: Class::Interactive,
        trace: TraceId::from_bytes([3; 16]),
        principal: "alice".to_owned(),
        node: None,
    }
}

fn a_service(target: &str) -> Service {
    Service::new("web".parse().unwrap(), target.parse().unwrap())
}

fn examples() -> Vec<Control> {
    vec![
        Control::Hello(Hello {
            min_version: 1,
            max_version: 2,
            features: vec!["later".to_owned()],
            session: SessionId::from_bytes([9; 16]),
            carrier: 3,
            continues: true,
            resume_for: Duration::from_secs(600),
            software: "tunnel-edge 0.1.0".to_owned(),
            name: "edge1".to_owned(),
            unix_millis: 1_800_000_000_000,
        }),
        Control::Ping(7),
        Control::Pong(7),
        Control::End {
            id: StreamId(2),
            offset: 1 << 40,
        },
        Control::Reset {
            id: StreamId(3),
            refusal: Refusal::new(Reason::Cancelled, "the caller went away"),
        },
        Control::GoAway {
            refusal: Refusal::new(Reason::Draining, "restart"),
            retry_after: Some(Duration::from_millis(1500)),
        },
        Control::Offer(Offer {
            services: vec![
                a_service("127.0.0.1:80"),
                Service {
                    protocol: Protocol::Udp,
                    ..a_service("127.0.0.1:53")
                },
                Service {
                    scrape: true,
                    ..a_service("127.0.0.1:9100")
                },
                Service {
                    compress: true,
                    ..a_service("127.0.0.1:3100")
                },
                Service {
                    class: "bulk".parse().ok(),
                    ..a_service("127.0.0.1:873")
                },
            ],
            subnets: vec!["10.42.3.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        }),
        Control::Acks(vec![a_position(2), a_position(5)]),
        Control::Resume {
            streams: vec![a_position(2), a_position(5)],
            last: true,
        },
    ]
}

fn a_position(stream: u64) -> Position {
    Position {
        id: StreamId(stream),
        received: 1 << 40,
    }
}
