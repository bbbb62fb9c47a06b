//! What carries a session, and the driver between the two.
//!
//! [`quic`] makes authenticated QUIC connections: [`quic::Server`] for a gateway, [`quic::Dialer`] for an edge.
//! [`Tunnel::establish`] greets the peer over such a connection; from then on [`Tunnel::open`] and [`Incoming`] give
//! [`Stream`]s, and [`relay`] joins a stream with a socket. [`exchange`] is one question and one answer, for enrolment.
//!
//! A [`Stream`] reads like a socket, with one promise more: an end of file means that the peer said so. A stream whose
//! carrier broke ends in an error, never in an end of file.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod exchange;
pub mod quic;
mod relay;
mod session;
pub mod tls;

pub use relay::{Relayed, relay};
pub use session::{
    Answer, Driver, Established, Flow, FlowSender, Incoming, Notice, Rejected, Stream, Tunnel, TunnelStatus,
};
