//! What carries a session, and the driver between the two.
//!
//! [`quic`] makes authenticated QUIC connections: [`quic::Server`] for a gateway, [`quic::Dialer`] for an edge.
//! [`Carrier::dial`] and [`Arriving`] greet the peer over such a connection, [`Tunnel::attach`] has a session go on over it;
//! [`Tunnel::open`] and [`Incoming`] give [`Stream`]s, and [`relay`] joins a stream with a socket. [`exchange`] is one question and one answer, for enrolment.
//!
//! A [`Stream`] reads like a socket, with two promises more: it outlives its carrier, as long as another comes in time; and an
//! end of file means that the peer said so. A stream whose session is over ends in an error, never in an end of file.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dial;
pub mod exchange;
mod link;
pub mod quic;
mod relay;
mod session;
pub mod tls;

pub use dial::{DialError, Dialer, Patience};
pub use link::{CarrierKind, Connection};
pub use relay::{Relayed, relay, relay_until};
pub use session::{
    Answer, Arriving, Carrier, Driver, Flow, FlowSender, Incoming, Meter, Notice, Opened, Rejected, Stream, Tunnel,
    TunnelStatus,
};
