//! What the peers say: protobuf on the wire, checked types inside.
//!
//! Unknown fields and unknown kinds are ignored, so that a fleet upgrades over weeks. Field numbers are never reused.

mod header;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tunnel_model::{
    ChosenClass, Class, Encoding, HostPort, LinkLoss, LossCause, NodeName, Offer, Protocol, Reason, Refusal, Service,
    SessionId, Target, TraceId,
};

use crate::{MAX_CONTROL_FRAME, Rate, frame, hello::Hello, stream::StreamId};

/// How many services an edge may offer.
pub const MAX_SERVICES: usize = 256;
/// How many subnets an edge may offer.
pub const MAX_SUBNETS: usize = 256;
/// How many losses of the link an edge may tell at once.
pub const MAX_LOSSES: usize = 64;
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
    /// Answer with a pong of this number, but only after so long: a packet that comes in after a silence proves that the way
    /// in is still open.
    HeldPing {
        /// The number.
        number: u64,
        /// How long to wait, in whole milliseconds.
        hold: Duration,
    },
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
    /// So much has arrived and is my business now: you need not keep it.
    Acks(Vec<Position>),
    /// On a carrier that continues a session: these are the streams that I still have.
    Resume {
        /// The streams, or some of them.
        streams: Vec<Position>,
        /// There are no others.
        last: bool,
    },
    /// From the edge: these losses of the link are over, and you have not said that you know them.
    Journal(Vec<LinkLoss>),
    /// From the gateway: I keep what your journal says up to this number.
    Journaled(u64),
    /// From the edge: no more than this comes through the link to me; if there is none, I do not know.
    Pace(Option<Rate>),
}

/// How far a direction has come, as its receiver sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The stream.
    pub id: StreamId,
    /// Bytes of data that have arrived, and one more once the direction has ended cleanly.
    pub received: u64,
}

/// The first frame of an opener's direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// A stream.
    Open {
        /// Its number.
        id: StreamId,
        /// What it is for.
        open: Open,
        /// It was asked for on an earlier carrier, and whether that was heard is not known.
        again: bool,
    },
    /// The stream goes on, and so much of the acceptor's direction has arrived.
    Resume(Position),
}

/// The header of a stream: what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What to connect it to.
    pub target: Target,
    /// What its opener will speak: bytes, or the packets of a flow. A target by the other protocol is refused.
    pub protocol: Protocol,
    /// How its bytes travel. Nobody asks for what the other side did not offer for this target.
    pub encoding: Encoding,
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
                carrier: hello.carrier,
                continues: hello.continues,
                resume_millis: millis(hello.resume_for),
            }),
            Self::Ping(number) => wire::Kind::Ping(ping(*number, Duration::ZERO)),
            Self::HeldPing { number, hold } => wire::Kind::Ping(ping(*number, *hold)),
            Self::Pong(number) => wire::Kind::Pong(ping(*number, Duration::ZERO)),
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
                retry_after_millis: retry_after.map(millis),
            }),
            Self::Offer(offer) => wire::Kind::Offer(write_offer(offer)),
            Self::Acks(streams) => wire::Kind::Acks(wire::Acks {
                streams: streams.iter().map(wire::Position::from).collect(),
            }),
            Self::Resume { streams, last } => wire::Kind::Resume(wire::Resume {
                streams: streams.iter().map(wire::Position::from).collect(),
                last: *last,
            }),
            Self::Journal(losses) => wire::Kind::Journal(wire::Journal {
                losses: losses.iter().map(write_loss).collect(),
            }),
            Self::Journaled(number) => wire::Kind::Journaled(wire::Journaled { number: *number }),
            Self::Pace(rate) => wire::Kind::Pace(wire::Pace {
                bytes_per_second: rate.map_or(0, Rate::bytes_per_second),
            }),
        }
    }

    fn from_wire(kind: wire::Kind) -> Result<Self, DecodeError> {
        Ok(match kind {
            wire::Kind::Hello(hello) => Self::Hello(hello.try_into()?),
            wire::Kind::Ping(ping) if ping.hold_millis > 0 => Self::HeldPing {
                number: ping.number,
                hold: Duration::from_millis(ping.hold_millis),
            },
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
            wire::Kind::Acks(acks) => Self::Acks(read_positions(acks.streams)),
            wire::Kind::Resume(resume) => Self::Resume {
                streams: read_positions(resume.streams),
                last: resume.last,
            },
            wire::Kind::Journal(journal) => Self::Journal(read_journal(journal)?),
            wire::Kind::Journaled(journaled) => Self::Journaled(journaled.number),
            wire::Kind::Pace(pace) => Self::Pace(Rate::from_bytes_per_second(pace.bytes_per_second)),
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
            carrier: hello.carrier,
            continues: hello.continues,
            resume_for: Duration::from_millis(hello.resume_millis),
        })
    }
}

fn ping(number: u64, hold: Duration) -> wire::Ping {
    wire::Ping {
        number,
        hold_millis: millis(hold),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read_positions(streams: Vec<wire::Position>) -> Vec<Position> {
    streams.into_iter().map(Position::from).collect()
}

impl From<&Position> for wire::Position {
    fn from(position: &Position) -> Self {
        Self {
            stream: position.id.0,
            received: position.received,
        }
    }
}

impl From<wire::Position> for Position {
    fn from(position: wire::Position) -> Self {
        Self {
            id: StreamId(position.stream),
            received: position.received,
        }
    }
}

fn write_loss(loss: &LinkLoss) -> wire::Loss {
    wire::Loss {
        number: loss.number,
        cause: loss.cause as u32,
        begun_unix_millis: loss.begun_millis,
        lasted_millis: millis(loss.lasted),
        sent: loss.sent,
        received: loss.received,
        message: LinkLoss::clip(&loss.message),
    }
}

fn read_journal(journal: wire::Journal) -> Result<Vec<LinkLoss>, DecodeError> {
    if journal.losses.len() > MAX_LOSSES {
        return Err(DecodeError::TooMany("journal.losses"));
    }
    let loss = |loss: wire::Loss| LinkLoss {
        number: loss.number,
        cause: LossCause::from_wire(loss.cause),
        begun_millis: loss.begun_unix_millis,
        lasted: Duration::from_millis(loss.lasted_millis),
        sent: loss.sent,
        received: loss.received,
        message: LinkLoss::clip(&loss.message),
    };
    Ok(journal.losses.into_iter().map(loss).collect())
}

fn write_offer(offer: &Offer) -> wire::Offer {
    let service = |service: &Service| wire::Service {
        name: service.name.to_string(),
        target: service.target.to_string(),
        protocol: write_protocol(service.protocol),
        encoding: write_encoding(service.encoding()),
        class: service.class.map_or(0, |class| class.get() as u32),
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

fn write_encoding(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::Raw => 0,
        Encoding::Compressed => 1,
        Encoding::Scrapes => 2,
    }
}

fn read_encoding(encoding: u32) -> Option<Encoding> {
    match encoding {
        0 => Some(Encoding::Raw),
        1 => Some(Encoding::Compressed),
        2 => Some(Encoding::Scrapes),
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
    // What this side does not know it does not ask for.
    let encoding = read_encoding(service.encoding).filter(|_| protocol == Protocol::Tcp);
    let encoding = encoding.unwrap_or_default();
    Some(Service {
        protocol,
        scrape: encoding == Encoding::Scrapes,
        compress: encoding == Encoding::Compressed,
        class: ChosenClass::from_wire(service.class),
        ..Service::new(service.name.parse().ok()?, service.target.parse::<HostPort>().ok()?)
    })
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

#[cfg(test)]
mod tests;
