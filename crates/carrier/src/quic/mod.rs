//! QUIC connections, with limits fit for peers that are not to be trusted with memory.

mod attachment;
mod client;
mod close;
mod limits;
mod link_rate;
mod peer;
mod server;
mod socket;

pub(crate) use attachment::Grant;
pub(crate) use client::join;
pub use client::{DialError, Dialer, resolve};
pub use close::{close, refusal_of};
pub(crate) use close::{code, reason};
pub use limits::Limits;
pub use link_rate::LinkRate;
pub use peer::{channel_binding, peer_chain};
pub use server::{Accepted, Purpose, Server};
