//! The ways in for callers: a proxy port that speaks HTTP CONNECT, plain HTTP proxying and SOCKS5; ports for HTTP and
//! TLS whose host decides; ports that always lead to the same target.
//!
//! [`serve`] accepts connections at a [`Door`], the proxy port's plain or within TLS, finds out who asks and what for, and
//! hands both to a [`Dial`]: everything behind it (users, policy, the node's session) is somebody else's. The streams
//! that come back are relayed, with both directions ending on their own. Callers that want to know whether a target is
//! there (CONNECT, SOCKS5) are told when it is; a plain request goes out with the dial itself, which saves a round trip.
//!
//! | module | what |
//! |---|---|
//! | `server` | accept loop, limits, drain |
//! | `http1` | CONNECT and plain proxying: strict parsing, body framing, keep-alive, Upgrade |
//! | `socks5` | RFC 1928 and 1929 |
//! | `sni` | TLS passed on untouched, by its server name |
//! | [`forward`] | ports that always lead to the same target |
//! | `relay` | two byte streams joined, once a protocol has nothing more to say |
//! | `client` | the caller's socket, which breaks unless it is ended on purpose |
//! | `halves` | its two directions |
//! | `tls` | the same within TLS |
//!
//! # A cut never looks like an end
//! A stream that is dropped without `shutdown` is reset, in both senses: the caller's socket has lingering off from
//! the start, so that every way out of the code but the deliberate one (and the death of the process too) resets it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod credential;
mod door;
pub mod forward;
mod halves;
mod http1;
mod metrics;
mod relay;
mod server;
mod session;
mod sni;
mod socks5;
mod tls;
mod trace;

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tunnel_model::{Class, Destination, Host, ParseHostError, Principal, Reason, Refusal, TraceId, UserName, Zone};

pub use credential::{Credential, Secret};
pub use door::Door;
pub use metrics::{IngressMetrics, Way};
pub use server::{CONNECTIONS, Limits, serve};
pub use session::NotDialled;
pub use tls::Tls;
pub use tunnel_daemon::listen::listen;

/// What lies behind the ways in: who may come, and how to get there.
pub trait Dial: Send + Sync + 'static {
    /// A byte stream to a target.
    type Stream: Dialled;

    /// Finds out who asks. `None` is a caller who showed nothing; it is a refusal unless its address alone is enough.
    fn authenticate(
        &self,
        credential: Option<Credential>,
        client: SocketAddr,
    ) -> impl Future<Output = Result<Principal, Refusal>> + Send;

    /// What callers that speak TLS are served with; `None` where they are not.
    fn tls(&self) -> Option<Arc<Tls>> {
        None
    }

    /// The user of this name, for a way in that was configured to act on its behalf.
    fn user(&self, name: &UserName) -> Result<Principal, Refusal> {
        let message = format!("there is no user {name} here, on whose behalf this way in was configured");
        Err(Refusal::new(Reason::Unauthenticated, message))
    }

    /// The zone under which nodes have names.
    fn zone(&self) -> &Zone;

    /// Where a host leads that a caller asks for, as far as this caller may know of it. With it comes the port that the
    /// caller wrote, which of a service is the caller's own affair.
    fn destination(&self, principal: &Principal, host: Host, port: u16) -> Result<Destination, Refusal>;

    /// How urgent a stream there is, where nobody has chosen a class for it.
    fn class(&self, destination: &Destination) -> Class {
        destination.target.class()
    }

    /// What is said to a caller whose host is none. It is not looked up anywhere.
    fn no_host(&self, error: &ParseHostError) -> Refusal {
        let reason = match error {
            ParseHostError::NotAName { .. } | ParseHostError::CloudHasServices(_) => Reason::Denied,
            ParseHostError::NoPort(_) | ParseHostError::BadPort(_) => Reason::BadRequest,
        };
        Refusal::new(reason, error.to_string())
    }

    /// Opens a stream, or says why not, as far as that is known here: the target itself may still be on its way. Its
    /// deadline is its own; dropping the future gives up.
    fn dial(&self, request: DialRequest) -> impl Future<Output = Result<Self::Stream, Refusal>> + Send;
}

/// A byte stream to a target, which takes what is written to it before the target is there.
///
/// `shutdown` ends the caller's direction and leaves the other open. Dropping the stream without it resets both. A read
/// that returns no bytes is the target's own end; a cut is an error.
pub trait Dialled: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Waits until the target is there, or says why it is not. Reading waits for it too, and fails with the [`Refusal`] as
    /// the error's source. Cancelling loses nothing.
    fn established(&mut self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Resolves when the stream is taken away from its caller, which reads and writes find out too; this is for those who
    /// do neither. One task may wait for it.
    fn cut(&self) -> impl Future<Output = ()> + Send + use<Self> {
        std::future::pending()
    }
}

/// What lies behind the ways in that take packets.
pub trait DialFlow: Dial {
    /// Packets to and from a target.
    type Flow: DialledFlow;

    /// Opens a flow of packets; otherwise as [`Dial::dial`].
    fn dial_flow(&self, request: DialRequest) -> impl Future<Output = Result<Self::Flow, Refusal>> + Send;
}

/// Packets to and from a target, which may be sent before the target is there. Dropping it makes it void.
pub trait DialledFlow: Send + 'static {
    /// Sends a packet, or drops it where there is no room: never waits. Says whether it is on its way.
    fn send(&mut self, packet: &[u8]) -> bool;

    /// Waits for packets and adds them to `packets`, a bounded number at once; to be called all the time. Cancelling
    /// loses nothing. Fails once the flow is over, also because its target is not there.
    fn recv_many(&mut self, packets: &mut Vec<Bytes>) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Ends it, and tells the far end why.
    fn end(self, why: &Refusal);
}

/// One wish to reach something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialRequest {
    /// Who asks.
    pub principal: Principal,
    /// What for.
    pub destination: Destination,
    /// How urgent the stream is.
    pub class: Class,
    /// How it is asked for.
    pub way: Way,
    /// The caller's trace, or one made here.
    pub trace: TraceId,
    /// Where the caller connected from.
    pub client: SocketAddr,
}
