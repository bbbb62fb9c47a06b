//! The tunnel protocol as a pure state machine: no runtime, no socket, no clock, no randomness of its own.
//!
//! A [`Session`] is the relation of one edge and the gateway. It is carried by one *carrier* at a time: an authenticated
//! connection that offers reliable byte streams, such as QUIC. The session says what to write and learns what was read;
//! whoever owns the sockets calls it in this order:
//!
//! 1. Once a carrier is authenticated, hellos are exchanged on the control stream, which the edge opens, with the help of
//!    [`Greeting`] and [`Negotiated`]. They tell which session goes on.
//! 2. [`Session::handle_carrier_up`], and [`Session::handle_control`] with what came behind the hello.
//! 3. [`Session::handle_control`] with what arrives on the control stream, [`Session::handle_timeout`] when
//!    [`Session::poll_timeout`] is due, and the stream calls below, in any order.
//! 4. After each of these: [`Session::poll_transmit`] until `None`, writing to the control stream, and
//!    [`Session::poll_event`] until `None`.
//! 5. When the carrier is gone: [`Session::handle_carrier_lost`] if the session [`outlives`] that, else
//!    [`Session::close`]. Another carrier may come up later, or take the place of one that is still there.
//!
//! # Streams
//!
//! Each stream takes one bidirectional carrier stream: a header frame once in each direction, then raw bytes. Offsets
//! are counted, not sent. [`Session::open`] makes the header that the opener writes first, data may follow at once; the
//! acceptor reads it with [`Prelude`], calls [`Session::handle_open`], and answers with the bytes of
//! [`Session::accept`] or [`Session::refuse`].
//!
//! What is written is kept until the peer has it: ask for [`Session::room`], give the data to the carrier, and note it with
//! [`Session::sent`], in one step that no change of carriers can come between. Where somebody has said what the link carries
//! ([`Session::set_rates`]), or has measured it ([`Session::set_measured`]), room comes in turn: the [`Scheduler`] decides whose
//! it is. Likewise what is read is noted with [`Session::received`] before anybody else sees it.
//!
//! A carrier stream that ends proves nothing: it may have been cut. A direction ends when the sender says so on the
//! control stream, with the offset where it ends ([`Session::finish`]). The reader asks [`Session::carrier_stream_ended`]
//! what an end means and may have to wait for [`Event::Received`].
//!
//! On the next carrier a stream goes on with [`Event::Reattach`] at the end that opened it, and [`Incoming::Resumed`] at the
//! other: both get an [`Attach`], which says what to write first.
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
mod greeting;
mod hello;
mod keepalive;
mod message;
mod rate;
mod replay;
mod schedule;
mod seen;
mod session;
mod silence;
mod stream;
mod transit;

pub use backoff::Backoff;
pub use flow::{MAX_PACKET, PacketReader, decode_datagram, encode_datagram, encode_packet};
pub use frame::{FrameError, FrameReader, MAX_CONTROL_FRAME, MAX_HEADER_FRAME, Prelude};
pub use greeting::{Greeted, Greeting};
pub use hello::{Hello, Negotiated, VERSIONS};
pub use message::{
    Control, DecodeError, Header, MAX_LOSSES, MAX_SERVICES, MAX_SUBNETS, OfferError, Open, OpenReply, Position,
    check_offer,
};
pub use rate::{Rate, RateModel};
pub use schedule::{Caps, Packets, ScheduleConfig, Scheduler, Shares, Turn};
pub use session::{
    Attach, Config, Event, Incoming, MAX_HOLD, OpenError, ReplayLimits, Session, Side, Stale, Violation, outlives,
};
pub use silence::{Counted, Silence, Suspicion};
pub use stream::{Fate, StreamId};
pub use transit::{TRANSIT, Timing, Transit};
