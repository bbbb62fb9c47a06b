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

/// Frames sent that the peer acknowledges (RFC 9000 section 13.2).
pub(crate) fn asked(stats: &quinn::ConnectionStats) -> u64 {
    let sent = &stats.frame_tx;
    [
        sent.crypto,
        sent.data_blocked,
        sent.datagram,
        sent.max_data,
        sent.max_stream_data,
        sent.max_streams_bidi,
        sent.max_streams_uni,
        sent.new_connection_id,
        sent.path_challenge,
        sent.path_response,
        sent.ping,
        sent.reset_stream,
        sent.retire_connection_id,
        sent.stop_sending,
        sent.stream,
        sent.stream_data_blocked,
    ]
    .iter()
    .sum()
}
