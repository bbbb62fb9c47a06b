//! The tunnel protocol as a pure state machine: no runtime, no socket, no clock, no randomness of its own.
//!
//! A [`Session`] is the relation of one edge and the gateway. It is carried by one *carrier* at a time: an authenticated
//! connection that offers reliable byte streams, such as QUIC. The session says what to write and learns what was read;
//! whoever owns the sockets calls it in this order:
//!
//! 1. [`Session::handle_carrier_up`] once the carrier is authenticated; the edge then opens the control stream.
//! 2. [`Session::handle_control`] with what arrives on the control stream, [`Session::handle_timeout`] when
//!    [`Session::poll_timeout`] is due, and the stream calls below, in any order.
//! 3. After each of these: [`Session::poll_transmit`] until `None`, writing to the control stream, and
//!    [`Session::poll_event`] until `None`.
//! 4. [`Session::handle_carrier_lost`] when the carrier is gone. Another may come up later.
//!
//! # Streams
//!
//! Each stream takes one bidirectional carrier stream: a header frame once in each direction, then raw bytes. Offsets
//! are counted, not sent. [`Session::open`] makes the header that the opener writes first, data may follow at once; the
//! acceptor reads it with [`Prelude`], calls [`Session::handle_open`], and answers with the bytes of
//! [`Session::accept`] or [`Session::refuse`].
//!
//! A carrier stream that ends proves nothing: it may have been cut. A direction ends when the sender says so on the
//! control stream, with the offset where it ends ([`SendHalf::finish`]). The reader asks [`RecvHalf::carrier_ended`]
//! what an end means and may have to wait for [`Event::Received`].
//!
//! # Flows
//!
//! A stream that was opened for datagrams ([`Open::protocol`]) is a flow. Its packets are datagrams of the carrier
//! ([`encode_datagram`]); on its stream travel those that are larger than a datagram or early ([`PacketReader`]).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod budget;
mod flow;
mod frame;
mod hello;
mod keepalive;
mod message;
mod rate;
mod schedule;
mod seen;
mod session;
mod stream;

pub use backoff::Backoff;
pub use flow::{MAX_PACKET, PacketReader, decode_datagram, encode_datagram, encode_packet};
pub use frame::{FrameError, FrameReader, MAX_CONTROL_FRAME, MAX_HEADER_FRAME, Prelude};
pub use hello::{Hello, Negotiated, VERSIONS};
pub use message::{Control, DecodeError, MAX_SERVICES, MAX_SUBNETS, OfferError, Open, OpenReply, check_offer};
pub use rate::{Rate, RateModel};
pub use schedule::{Caps, Packets, ScheduleConfig, Scheduler, Shares, Turn};
pub use session::{Config, Event, Incoming, OpenError, Session, Side, Violation};
pub use stream::{Fate, RecvHalf, SendHalf, StreamId};
