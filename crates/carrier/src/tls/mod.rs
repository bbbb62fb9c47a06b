//! TLS connections over TCP, for networks that carry no QUIC: directly, or through a proxy.
//!
//! yamux makes streams of one connection. What QUIC has and yamux has not is added beside it, in messages on a stream of
//! their own (`message`) and by watching the frames (`meter`): resets with a reason, a farewell, room for streams that
//! is given as others end, and little room for what nobody has asked for.

mod actor;
mod client;
mod connection;
mod doors;
mod error;
mod handshake;
mod lane;
mod limits;
mod message;
mod meter;
mod proxy;
mod ready;
mod server;
mod shared;
mod socket;
mod stream;
mod sys;
mod wire;

pub use client::{DialError, Dialer, Failure};
pub use connection::{Connection, Stats};
pub use limits::Limits;
pub use proxy::{Exceptions, ParseProxyError, Proxies, ProxiesError, Proxy, ProxyError, ProxyFailure};
pub use server::{Accepted, Server};
pub use stream::{ReadError, RecvStream, SendStream, WriteError, Written};
