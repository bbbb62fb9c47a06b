//! What the peers say: protobuf on the wire, checked types inside.
//!
//! Unknown fields and unknown kinds are ignored, so that a fleet upgrades over weeks. Field numbers are never reused.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tunnel_model::{Class, HostPort, NodeName, Offer, Protocol, Reason, Refusal, Service, SessionId, Target, TraceId};

use crate::{MAX_CONTROL_FRAME, frame, hello::Hello, stream::StreamId};

/// How many services an edge may offer.
pub const MAX_SERVICES: usize = 1024;
/// How many subnets an edge may offer.
pub const MAX_SUBNETS: usize = 256;
/// The longest piece of text in a message that has no limit of its own, in bytes.
const MAX_TEXT: usize = 256;

/// A message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not protobuf.
    #[error("not a protobuf message: {0}")]
    Malformed(String),
    /// A field that must be there is not, or is not of its form.
    #[error("field {0} is missing or malformed")]
    Field(&'static str),
    /// It holds more than it may.
    #[error("field {0} holds too much")]
    TooMany(&'static str),
}

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Who I am and what I speak; the first message in each direction.
    Hello(Hello),
    /// Answer with a pong of the same number.
    Ping(u64),
    /// The answer to the ping of this number.
    Pong(u64),
    /// My direction of the stream ends at this offset.
    End {
        /// The stream.
        id: StreamId,
        /// How many bytes of data I sent on it in all.
        offset: u64,
    },
    /// Both directions of the stream are void.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// Open no more streams here.
    GoAway {
        /// Why.
        refusal: Refusal,
        /// When to come back at the earliest.
        retry_after: Option<Duration>,
    },
    /// This is all that I offer.
    Offer(Offer),
}

/// The header of a stream: what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What to connect it to.
    pub target: Target,
    /// What its opener will speak: bytes, or the packets of a flow. A target by the other protocol is refused.
    pub protocol: Protocol,
    /// Its rank.
    pub class: Class,
    /// The request it belongs to.
    pub trace: TraceId,
    /// Who asked, for the far end's log. The near end has checked the rights.
    pub principal: String,
    /// For a stream that an edge opens: the node whose service is meant, or the cloud side under its reserved name, which
    /// is also meant if there is none. It says nothing in a stream that the gateway opens.
    pub node: Option<NodeName>,
}

/// An edge offers more than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Too many services.
    #[error("{0} services are more than {MAX_SERVICES}, the most that an edge may offer")]
    Services(usize),
    /// Too many subnets.
    #[error("{0} subnets are more than {MAX_SUBNETS}, the most that an edge may advertise")]
    Subnets(usize),
    /// The message would be too long.
    #[error(
        "names and targets of the services take {0} bytes in all, more than fit in a message of {MAX_CONTROL_FRAME}"
    )]
    Size(usize),
}

/// Whether a gateway takes such an offer.
pub fn check_offer(offer: &Offer) -> Result<(), OfferError> {
    encode_offer(offer).map(|_| ())
}

/// The message that makes the offer, as a frame.
pub(crate) fn encode_offer(offer: &Offer) -> Result<Bytes, OfferError> {
    if offer.services.len() > MAX_SERVICES {
        return Err(OfferError::Services(offer.services.len()));
    }
    if offer.subnets.len() > MAX_SUBNETS {
        return Err(OfferError::Subnets(offer.subnets.len()));
    }
    let message = wire::Control {
        kind: Some(wire::Kind::Offer(write_offer(offer))),
    };
    match message.encoded_len() {
        length if length > MAX_CONTROL_FRAME => Err(OfferError::Size(length)),
        _ => Ok(frame::encode(&message)),
    }
}

/// The first frame of the other direction.
pub type OpenReply = Result<(), Refusal>;

impl Control {
    /// The message as a frame.
    pub fn encode(&self) -> Bytes {
        frame::encode(&wire::Control {
            kind: Some(self.to_wire()),
        })
    }

    /// Reads a frame's content. `None` is a kind that a newer peer knows and we do not: to be ignored.
    pub fn decode(frame: &[u8]) -> Result<Option<Self>, DecodeError> {
        let message = wire::Control::decode(frame).map_err(malformed)?;
        message.kind.map(Self::from_wire).transpose()
    }

    fn to_wire(&self) -> wire::Kind {
        match self {
            Self::Hello(hello) => wire::Kind::Hello(wire::Hello {
                min_version: hello.min_version,
                max_version: hello.max_version,
                features: hello.features.clone(),
                session: hello.session.as_bytes().to_vec(),
                software: hello.software.clone(),
                name: hello.name.clone(),
                unix_millis: hello.unix_millis,
            }),
            Self::Ping(number) => wire::Kind::Ping(wire::Ping { number: *number }),
            Self::Pong(number) => wire::Kind::Pong(wire::Ping { number: *number }),
            Self::End { id, offset } => wire::Kind::End(wire::End {
                stream: id.0,
                offset: *offset,
            }),
            Self::Reset { id, refusal } => wire::Kind::Reset(wire::Reset {
                stream: id.0,
                refusal: Some(refusal.into()),
            }),
            Self::GoAway { refusal, retry_after } => wire::Kind::GoAway(wire::GoAway {
                refusal: Some(refusal.into()),
                retry_after_millis: retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            }),
            Self::Offer(offer) => wire::Kind::Offer(write_offer(offer)),
        }
    }

    fn from_wire(kind: wire::Kind) -> Result<Self, DecodeError> {
        Ok(match kind {
            wire::Kind::Hello(hello) => Self::Hello(hello.try_into()?),
            wire::Kind::Ping(ping) => Self::Ping(ping.number),
            wire::Kind::Pong(pong) => Self::Pong(pong.number),
            wire::Kind::End(end) => Self::End {
                id: StreamId(end.stream),
                offset: end.offset,
            },
            wire::Kind::Reset(reset) => Self::Reset {
                id: StreamId(reset.stream),
                refusal: read_refusal(reset.refusal)?,
            },
            wire::Kind::GoAway(go_away) => Self::GoAway {
                refusal: read_refusal(go_away.refusal)?,
                retry_after: go_away.retry_after_millis.map(Duration::from_millis),
            },
            wire::Kind::Offer(offer) => Self::Offer(read_offer(offer)?),
        })
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = DecodeError;

    fn try_from(hello: wire::Hello) -> Result<Self, DecodeError> {
        let session =
            <[u8; 16]>::try_from(hello.session.as_slice()).map_err(|_| DecodeError::Field("hello.session"))?;
        if hello.features.len() > 64 || hello.features.iter().any(|f| f.len() > MAX_TEXT) {
            return Err(DecodeError::TooMany("hello.features"));
        }
        Ok(Self {
            min_version: hello.min_version,
            max_version: hello.max_version,
            features: hello.features,
            session: SessionId::from_bytes(session),
            software: clip(hello.software),
            name: clip(hello.name),
            unix_millis: hello.unix_millis,
        })
    }
}

fn write_offer(offer: &Offer) -> wire::Offer {
    let service = |service: &Service| wire::Service {
        name: service.name.to_string(),
        target: service.target.to_string(),
        protocol: write_protocol(service.protocol),
    };
    wire::Offer {
        services: offer.services.iter().map(service).collect(),
        subnets: offer.subnets.iter().map(ToString::to_string).collect(),
    }
}

fn write_protocol(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    }
}

fn read_protocol(protocol: u32) -> Option<Protocol> {
    match protocol {
        0 => Some(Protocol::Tcp),
        1 => Some(Protocol::Udp),
        _ => None,
    }
}

fn read_offer(offer: wire::Offer) -> Result<Offer, DecodeError> {
    if offer.services.len() > MAX_SERVICES {
        return Err(DecodeError::TooMany("services"));
    }
    if offer.subnets.len() > MAX_SUBNETS {
        return Err(DecodeError::TooMany("subnets"));
    }
    let service = |service: wire::Service| {
        // Another is of a newer edge, and nothing that this gateway could ask for.
        let protocol = read_protocol(service.protocol)?;
        Some(read_service(&service, protocol).ok_or(DecodeError::Field("offer.services")))
    };
    let subnet = |text: String| text.parse().map_err(|_| DecodeError::Field("offer.subnets"));
    Ok(Offer {
        services: offer
            .services
            .into_iter()
            .filter_map(service)
            .collect::<Result<_, _>>()?,
        subnets: offer.subnets.into_iter().map(subnet).collect::<Result<_, _>>()?,
    })
}

fn read_service(service: &wire::Service, protocol: Protocol) -> Option<Service> {
    Some(Service {
        name: service.name.parse().ok()?,
        target: service.target.parse::<HostPort>().ok()?,
        protocol,
    })
}

impl Open {
    /// The header of a stream with this id, as a frame.
    pub(crate) fn encode(&self, id: StreamId) -> Bytes {
        frame::encode(&wire::Header {
            open: Some(wire::Open {
                stream: id.0,
                target: self.target.to_string(),
                protocol: write_protocol(self.protocol),
                class: self.class as u32,
                trace: self.trace.as_bytes().to_vec(),
                principal: self.principal.clone(),
                node: self.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            }),
        })
    }

    /// Reads the content of a stream's first frame.
    pub fn decode(frame: &[u8]) -> Result<(StreamId, Self), DecodeError> {
        let header = wire::Header::decode(frame).map_err(malformed)?;
        let open = header.open.ok_or(DecodeError::Field("header.open"))?;
        let id = StreamId(open.stream);
        if id > StreamId::MAX {
            return Err(DecodeError::Field("open.stream"));
        }
        let trace = <[u8; 16]>::try_from(open.trace.as_slice()).map_err(|_| DecodeError::Field("open.trace"))?;
        let read = Self {
            target: open.target.parse().map_err(|_| DecodeError::Field("open.target"))?,
            protocol: read_protocol(open.protocol).ok_or(DecodeError::Field("open.protocol"))?,
            class: usize::try_from(open.class)
                .ok()
                .and_then(|i| Class::ALL.get(i).copied())
                .unwrap_or_default(),
            trace: TraceId::from_bytes(trace),
            principal: clip(open.principal),
            node: match open.node.as_str() {
                "" => None,
                name => Some(name.parse().map_err(|_| DecodeError::Field("open.node"))?),
            },
        };
        Ok((id, read))
    }
}

/// The answer to an open, as a frame.
pub(crate) fn encode_reply(reply: &OpenReply) -> Bytes {
    frame::encode(&wire::Reply {
        refusal: reply.as_ref().err().map(wire::Refusal::from),
    })
}

/// Reads the first frame of the acceptor's direction.
pub(crate) fn decode_reply(frame: &[u8]) -> Result<OpenReply, DecodeError> {
    let reply = wire::Reply::decode(frame).map_err(malformed)?;
    Ok(reply.refusal.map_or(Ok(()), |refusal| Err(refusal.into())))
}

fn read_refusal(refusal: Option<wire::Refusal>) -> Result<Refusal, DecodeError> {
    refusal.map(Refusal::from).ok_or(DecodeError::Field("refusal"))
}

impl From<&Refusal> for wire::Refusal {
    fn from(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.reason as u32,
            message: refusal.message.clone(),
        }
    }
}

impl From<wire::Refusal> for Refusal {
    fn from(refusal: wire::Refusal) -> Self {
        Self::new(Reason::from_wire(refusal.reason), refusal.message)
    }
}

fn malformed(error: prost::DecodeError) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

/// A peer's free text: short, and of one line.
fn clip(text: String) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT / 4).collect()
}

/// The messages as they stand on the wire. `docs/protocol.md` has them as a .proto file.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Control {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Hello(Hello),
        #[prost(message, tag = "2")]
        Ping(Ping),
        #[prost(message, tag = "3")]
        Pong(Ping),
        #[prost(message, tag = "4")]
        End(End),
        #[prost(message, tag = "5")]
        Reset(Reset),
        #[prost(message, tag = "6")]
        GoAway(GoAway),
        #[prost(message, tag = "7")]
        Offer(Offer),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Hello {
        #[prost(uint32, tag = "1")]
        pub(super) min_version: u32,
        #[prost(uint32, tag = "2")]
        pub(super) max_version: u32,
        #[prost(string, repeated, tag = "3")]
        pub(super) features: Vec<String>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) session: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) software: String,
        #[prost(string, tag = "6")]
        pub(super) name: String,
        #[prost(uint64, tag = "7")]
        pub(super) unix_millis: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Ping {
        #[prost(uint64, tag = "1")]
        pub(super) number: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct End {
        #[prost(uint64, tag = "1")]
        pub(super) stream: u64,
        #[prost(uint64, tag = "2")]
        pub(super) offset: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Reset {
        #[prost(uint64, tag = "1")]
        pub(super) stream: u64,
        #[prost(message, optional, tag = "2")]
        pub(super) refusal: Option<Refusal>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct GoAway {
        #[prost(message, optional, tag = "1")]
        pub(super) refusal: Option<Refusal>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) retry_after_millis: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Offer {
        #[prost(message, repeated, tag = "1")]
        pub(super) services: Vec<Service>,
        #[prost(string, repeated, tag = "2")]
        pub(super) subnets: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Service {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) target: String,
        /// 0 is TCP, 1 is UDP.
        #[prost(uint32, tag = "3")]
        pub(super) protocol: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Refusal {
        #[prost(uint32, tag = "1")]
        pub(super) reason: u32,
        #[prost(string, tag = "2")]
        pub(super) message: String,
    }

    /// Field 2 is kept for a stream that resumes.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Header {
        #[prost(message, optional, tag = "1")]
        pub(super) open: Option<Open>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Open {
        #[prost(uint64, tag = "1")]
        pub(super) stream: u64,
        #[prost(string, tag = "2")]
        pub(super) target: String,
        #[prost(uint32, tag = "3")]
        pub(super) class: u32,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) trace: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) principal: String,
        #[prost(string, tag = "6")]
        pub(super) node: String,
        /// As of a service.
        #[prost(uint32, tag = "7")]
        pub(super) protocol: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Reply {
        #[prost(message, optional, tag = "1")]
        pub(super) refusal: Option<Refusal>,
    }
}

#[cfg(test)]
mod tests {
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
                assert_eq!(Open::decode(content(&open.encode(id))), Ok((id, open)));
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
            services: vec![a_service(&format!("{}:80", "a.".repeat(100))); MAX_SERVICES],
            subnets: Vec::new(),
        };
        assert!(matches!(check_offer(&long), Err(OfferError::Size(_))));
    }

    /// B4
    #[test]
    fn a_service_of_a_protocol_that_is_not_known_is_left_out() {
        let service = |name: &str, protocol| wire::Service {
            name: name.to_owned(),
            target: "127.0.0.1:53".to_owned(),
            protocol,
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
            let _ = Open::decode(&bytes);
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
            class: Class::Interactive,
            trace: TraceId::from_bytes([3; 16]),
            principal: "alice".to_owned(),
            node: None,
        }
    }

    fn a_service(target: &str) -> Service {
        Service {
            name: "web".parse().unwrap(),
            target: target.parse().unwrap(),
            protocol: Protocol::Tcp,
        }
    }

    fn examples() -> Vec<Control> {
        vec![
            Control::Hello(Hello {
                min_version: 1,
                max_version: 2,
                features: vec!["resume".to_owned()],
                session: SessionId::from_bytes([9; 16]),
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
                ],
                subnets: vec!["10.42.3.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            }),
        ]
    }
}
