//! `docs/protocol.md` says what the code does: its tables are compared with the constants, and its messages and its
//! worked example with what sessions really write.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, time::Duration};

use tunnel_model::{Class, Fault, LinkLoss, LossCause, Offer, Protocol, Reason, Refusal, Service, SessionId, TraceId};
use tunnel_proto::{
    Control, Event, Hello, Incoming, MAX_CONTROL_FRAME, MAX_HEADER_FRAME, MAX_HOLD, MAX_LOSSES, MAX_PACKET,
    MAX_SERVICES, MAX_SUBNETS, Open, Position, Prelude, Rate, Session, Side, StreamId, encode_datagram,
};

#[test]
fn the_table_of_reasons_is_complete() {
    let document = document();
    let rows: Vec<_> = table(&document, "## Reasons").collect();
    let reasons: Vec<_> = Reason::ALL
        .iter()
        .map(|&reason| {
            let fault = match reason.fault() {
                Fault::Caller => "caller",
                Fault::Node => "node",
                Fault::Gateway => "gateway",
            };
            ((reason as u32).to_string(), format!("`{reason}`"), fault.to_owned())
        })
        .collect();
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[3].clone()))
        .collect();
    assert_eq!(rows, reasons);
}

#[test]
fn the_table_of_causes_is_complete() {
    let document = document();
    let rows: Vec<_> = table(&document, "### Journal")
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let causes: Vec<_> = LossCause::ALL
        .iter()
        .map(|&cause| ((cause as u32).to_string(), format!("`{cause}`")))
        .collect();
    assert_eq!(rows, causes);
}

#[test]
fn the_table_of_classes_is_complete() {
    let document = document();
    let rows: Vec<_> = table(&document, "ranks the\nstream in the order of sending")
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let classes: Vec<_> = Class::ALL
        .iter()
        .map(|&class| ((class as u32).to_string(), format!("`{class}`")))
        .collect();
    assert_eq!(rows, classes);
}

#[test]
fn the_limits_are_those_of_the_code() {
    let document = document();
    let limits: BTreeMap<_, _> = table(&document, "## Limits")
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let of = |what: &str| {
        limits
            .get(what)
            .unwrap_or_else(|| panic!("no row for {what:?}"))
            .as_str()
    };
    assert_eq!(
        of("frame on the control stream"),
        format!("{} bytes", grouped(MAX_CONTROL_FRAME as u64))
    );
    assert_eq!(
        of("header or reply"),
        format!("{} bytes", grouped(MAX_HEADER_FRAME as u64))
    );
    assert_eq!(of("pong that is held back"), format!("{} s", MAX_HOLD.as_secs()));
    assert_eq!(of("message of a refusal"), format!("{} bytes", Refusal::MAX_MESSAGE));
    assert_eq!(of("services of an edge"), grouped(MAX_SERVICES as u64));
    assert_eq!(of("subnets of an edge"), MAX_SUBNETS.to_string());
    assert_eq!(of("losses in a journal message"), MAX_LOSSES.to_string());
    assert_eq!(of("message of a loss"), format!("{} bytes", LinkLoss::MAX_MESSAGE));
    assert_eq!(of("packet of a flow"), format!("{} bytes", grouped(MAX_PACKET as u64)));
    assert_eq!(of("stream id"), grouped(StreamId::MAX.0));
    let config = tunnel_proto::Config::default();
    assert_eq!(
        of("announcement of an end after the end of the carrier stream"),
        format!("{} s", config.end_grace.as_secs())
    );
    assert_eq!(
        of("hello, pong, header"),
        format!("{} s each", config.patience.as_secs())
    );
}

/// The example is decoded by the schema of the page itself, so both are proved at once. On a difference, the text that
/// should stand there is printed.
#[test]
fn the_worked_example_is_what_sessions_write() {
    let document = document();
    let example = worked_example(&Schema::read(&document));
    assert!(
        document.ends_with(&example),
        "docs/protocol.md should end with:\n\n{example}"
    );
}

#[test]
fn the_packet_of_the_page_is_written_as_the_page_says() {
    let datagram = encode_datagram(StreamId(2), b"hi");
    let hex: Vec<_> = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(document().contains(&format!("packet `68 69` of flow 2 is the datagram `{}`", hex.join(" "))));
}

#[test]
fn every_field_of_the_schema_is_really_written() {
    let schema = Schema::read(&document());
    let mut seen = Vec::new();
    for (root, bytes) in everything() {
        schema.explain(root, &content(&bytes), "", &mut String::new(), &mut seen);
    }
    for (message, fields) in &schema.0 {
        for field in fields.values() {
            let name = (message.clone(), field.name.clone());
            assert!(seen.contains(&name), "{name:?} is never written");
        }
    }
}

fn worked_example(schema: &Schema) -> String {
    let mut text = String::from("```text\n");
    let mut show = |what: &str, root: &str, framed: &[u8], data: &str| {
        writeln!(text, "{what}").unwrap();
        for line in framed.chunks(20) {
            let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "    {}", hex.join(" ")).unwrap();
        }
        let mut fields = String::new();
        schema.explain(root, &content(framed), "", &mut fields, &mut Vec::new());
        for field in fields.lines() {
            writeln!(text, "        {field}").unwrap();
        }
        if !data.is_empty() {
            let hex: Vec<_> = data.bytes().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "    {}\n        data {data:?}", hex.join(" ")).unwrap();
        }
        writeln!(text).unwrap();
    };
    let (mut gateway, mut edge) = (session(Side::Gateway), session(Side::Edge));
    let now = std::time::Instant::now();
    for (side, what) in [
        (Side::Edge, "edge, control stream"),
        (Side::Gateway, "gateway, control stream"),
    ] {
        show(what, "Control", &Control::Hello(hello(side)).encode(), "");
    }

    let (id, header) = gateway.open(&an_open()).unwrap();
    show("gateway, a new carrier stream", "Header", &header, "hello");
    let Incoming::Stream { .. } = edge.handle_open(&content(&header), 1).unwrap() else {
        panic!("it was refused");
    };
    let accepted = edge.accept(id).unwrap();
    show("edge, the same carrier stream", "Reply", &accepted, "abc");
    gateway.sent(id, 1, b"hello"[..].into(), now).unwrap();
    edge.sent(id, 1, b"abc"[..].into(), now).unwrap();

    // The link breaks when "hello" has arrived, and before "abc" has.
    let lost = Refusal::new(Reason::CarrierLost, "the link broke");
    edge.received(id, 1, 5, now).unwrap();
    for (side, session) in [(Side::Edge, &mut edge), (Side::Gateway, &mut gateway)] {
        session.handle_carrier_lost(&lost, now);
        session.handle_carrier_up(2, RESUME_FOR, now).unwrap();
        let again = Hello {
            carrier: 2,
            continues: side == Side::Gateway,
            ..hello(side)
        };
        let what = format!(
            "{}, control stream of the next carrier",
            if side == Side::Edge { "edge" } else { "gateway" }
        );
        show(&what, "Control", &Control::Hello(again).encode(), "");
    }
    let (of_edge, of_gateway) = (edge.poll_transmit().unwrap(), gateway.poll_transmit().unwrap());
    show("edge, control stream", "Control", &of_edge, "");
    show("gateway, control stream", "Control", &of_gateway, "");
    gateway.handle_control(&of_edge, now).unwrap();
    edge.handle_control(&of_gateway, now).unwrap();
    assert_eq!(gateway.poll_event(), Some(Event::Reattach(id)));
    let attach = gateway.reattach(id).unwrap();
    assert_eq!(attach.data.concat(), b"");
    show("gateway, a new carrier stream", "Header", &attach.head, "");
    let Incoming::Resumed(attach) = edge.handle_open(&content(&attach.head), 2).unwrap() else {
        panic!("it does not go on");
    };
    assert_eq!(attach.data.concat(), b"abc");
    show("edge, the same carrier stream", "Reply", &attach.head, "abc");
    gateway.handle_reply(id, &content(&attach.head)).unwrap().unwrap();
    gateway.received(id, 2, 3, now).unwrap();

    for (what, session) in [
        (
            "gateway, control stream; it also finishes the carrier stream",
            &mut gateway,
        ),
        ("edge, control stream; it also finishes the carrier stream", &mut edge),
    ] {
        session.finish(id);
        show(what, "Control", &session.poll_transmit().unwrap(), "");
    }
    gateway.handle_timeout(gateway.poll_timeout().unwrap());
    show(
        "gateway, control stream, 200 ms later",
        "Control",
        &gateway.poll_transmit().unwrap(),
        "",
    );

    let (id, _) = gateway.open(&an_open()).unwrap();
    gateway.reset(id, &Refusal::new(Reason::Cancelled, "the caller went away"));
    show(
        "gateway, control stream, once the caller of stream 4 is gone",
        "Control",
        &gateway.poll_transmit().unwrap(),
        "",
    );
    gateway.drain(
        Refusal::new(Reason::Draining, "the gateway restarts"),
        Some(Duration::from_millis(1500)),
    );
    show(
        "gateway, control stream, about to restart",
        "Control",
        &gateway.poll_transmit().unwrap(),
        "",
    );
    format!("{}\n```\n", text.trim_end())
}

/// One message of each kind with all its fields.
fn everything() -> Vec<(&'static str, Vec<u8>)> {
    let refusal = Refusal::new(Reason::Cancelled, "why");
    let id = StreamId(2);
    let service = Service {
        protocol: Protocol::Udp,
        ..Service::new("web".parse().unwrap(), "127.0.0.1:80".parse().unwrap())
    };
    let scraped = Service {
        scrape: true,
        class: "bulk".parse().ok(),
        ..Service::new("metrics".parse().unwrap(), "127.0.0.1:9100".parse().unwrap())
    };
    let offer = Offer {
        services: vec![service, scraped],
        subnets: vec!["10.42.3.0/24".parse().unwrap()],
    };
    let retry_after = Some(Duration::from_secs(1));
    let controls = [
        Control::Hello(hello(Side::Edge)),
        Control::Ping(1),
        Control::HeldPing {
            number: 2,
            hold: Duration::from_secs(50),
        },
        Control::Pong(1),
        Control::End { id, offset: 3 },
        Control::Reset {
            id,
            refusal: refusal.clone(),
        },
        Control::GoAway {
            refusal: refusal.clone(),
            retry_after,
        },
        Control::Offer(offer),
        Control::Acks(vec![Position { id, received: 3 }]),
        Control::Resume {
            streams: vec![Position { id, received: 3 }],
            last: true,
        },
        Control::Journal(vec![LinkLoss {
            number: 1,
            cause: LossCause::Timeout,
            begun_millis: 1_800_000_000_000,
            lasted: Duration::from_secs(3),
            sent: 1,
            received: 1,
            message: "why".to_owned(),
        }]),
        Control::Journaled(1),
        Control::Pace(Rate::from_bytes_per_second(1)),
    ];
    let mut all: Vec<_> = controls.iter().map(|c| ("Control", c.encode().to_vec())).collect();
    all.push((
        "Control",
        Control::Hello(Hello {
            continues: true,
            ..hello(Side::Gateway)
        })
        .encode()
        .to_vec(),
    ));
    let (mut gateway, mut edge) = (session(Side::Gateway), session(Side::Edge));
    let of_edge = Open {
        protocol: Protocol::Udp,
        encoding: tunnel_model::Encoding::Scrapes,
        node: Some("edge2".parse().unwrap()),
        ..an_open()
    };
    let (_, header) = gateway.open(&of_edge).unwrap();
    edge.handle_open(&content(&header), 1).unwrap();
    all.push(("Header", header.to_vec()));
    // Nobody answered it on a first carrier, and on the next the peer does not know it.
    let now = std::time::Instant::now();
    gateway.handle_carrier_up(2, RESUME_FOR, now).unwrap();
    all.push(("Header", gateway.reattach(id).unwrap().head.to_vec()));
    gateway.handle_reply(id, &[]).unwrap().unwrap();
    all.push(("Header", gateway.reattach(id).unwrap().head.to_vec()));
    all.push(("Reply", edge.refuse(id, &refusal).to_vec()));
    all
}

const RESUME_FOR: Duration = Duration::from_secs(600);

/// A session on its first carrier.
fn session(side: Side) -> Session {
    let now = std::time::Instant::now();
    let mut session = Session::new(side, tunnel_proto::Config::default(), now);
    session.handle_carrier_up(1, RESUME_FOR, now).unwrap();
    session
}

fn hello(side: Side) -> Hello {
    Hello {
        min_version: 1,
        max_version: 1,
        features: match side {
            Side::Edge => vec!["example".to_owned()],
            Side::Gateway => vec![],
        },
        session: SessionId::from_bytes(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"),
        carrier: 1,
        continues: false,
        resume_for: RESUME_FOR,
        software: match side {
            Side::Edge => "tunnel-edge 0.1.0".to_owned(),
            Side::Gateway => "tunnel-cloud 0.1.0".to_owned(),
        },
        name: "edge1".to_owned(),
        unix_millis: 1_800_000_000_000,
    }
}

fn an_open() -> Open {
    Open {
        target: "port:22".parse().unwrap(),
        protocol: Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
        class: Class::Interactive,
        trace: TraceId::from_bytes([7; 16]),
        principal: "alice".to_owned(),
        node: None,
    }
}

fn content(framed: &[u8]) -> Vec<u8> {
    let mut prelude = Prelude::default();
    prelude.push(framed);
    let (frame, rest) = prelude.split().unwrap().unwrap();
    assert!(rest.is_empty());
    frame.to_vec()
}

/// The messages of the page, by name; their fields, by number.
struct Schema(BTreeMap<String, BTreeMap<u64, Field>>);

struct Field {
    name: String,
    kind: String,
}

impl Schema {
    fn read(document: &str) -> Self {
        let (_, rest) = document.split_once("```proto\n").unwrap();
        let (proto, _) = rest.split_once("```").unwrap();
        let mut messages = BTreeMap::<String, BTreeMap<u64, Field>>::new();
        let mut current = String::new();
        for line in proto.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("message ") {
                current = name.trim_end_matches([' ', '{']).to_owned();
            } else if let Some((left, number)) = line.strip_suffix(';').and_then(|l| l.split_once(" = "))
                && let Some((kind, name)) = left.rsplit_once(' ')
            {
                let kind = kind.trim_start_matches("repeated ").trim_start_matches("optional ");
                let field = Field {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                };
                messages
                    .entry(current.clone())
                    .or_default()
                    .insert(number.parse().unwrap(), field);
            }
        }
        Self(messages)
    }

    /// Writes what a message says, one line per field, and notes the fields met.
    fn explain(&self, message: &str, mut bytes: &[u8], path: &str, out: &mut String, seen: &mut Vec<(String, String)>) {
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let field = &self.0[message][&(tag >> 3)];
            seen.push((message.to_owned(), field.name.clone()));
            let path = format!("{path}{}", field.name);
            match (tag & 7, field.kind.as_str()) {
                (0, "bool") => writeln!(out, "{path} = {}", varint(&mut bytes) == 1).unwrap(),
                (0, "uint32" | "uint64") => writeln!(out, "{path} = {}", varint(&mut bytes)).unwrap(),
                (2, kind) => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    match kind {
                        "string" => writeln!(out, "{path} = {:?}", str::from_utf8(value).unwrap()).unwrap(),
                        "bytes" => {
                            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                            writeln!(out, "{path} = {hex}").unwrap();
                        }
                        inner => self.explain(inner, value, &format!("{path}."), out, seen),
                    }
                }
                (wire, kind) => panic!("{path} is a {kind} and has wire type {wire}"),
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn document() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    fs::read_to_string(path).unwrap()
}

/// The rows of the first table behind these words, without its head.
fn table<'a>(document: &'a str, behind: &str) -> impl Iterator<Item = Vec<String>> + use<'a> {
    let (_, rest) = document.split_once(behind).unwrap();
    rest.lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let inner = line.trim_start_matches('|').trim_end_matches('|');
            inner.split('|').map(|cell| cell.trim().to_owned()).collect()
        })
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
