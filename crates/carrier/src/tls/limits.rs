//! What a connection may take.

use std::time::Duration;

/// Limits of one connection. yamux's own defaults would let one hostile peer pin 128 MiB, and on a fast link 1 GiB.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many streams the peer may have open; at least [`Limits::FIRST_STREAMS`].
    pub max_streams: u32,
    /// How much the windows of all streams together may grow beyond their first 256 KiB each, in bytes. They grow where
    /// somebody reads as fast as data comes and the round trip is what holds it up.
    pub window_growth: u32,
    /// How long the peer may be silent.
    pub idle_timeout: Duration,
}

impl Limits {
    /// For a gateway, where each peer is one of many and any of them may be hostile: less than 1 MiB waits for readers of
    /// what a peer sends unasked.
    pub fn gateway() -> Self {
        Self {
            max_streams: 48,
            window_growth: 1024 * 1024,
            idle_timeout: Duration::from_secs(60),
        }
    }

    /// For an edge, which has one peer.
    pub fn edge() -> Self {
        Self {
            max_streams: 1024,
            window_growth: 4 * 1024 * 1024,
            idle_timeout: Duration::from_secs(60),
        }
    }

    /// Streams that a peer may have open before it has heard of more.
    pub const FIRST_STREAMS: u32 = 8;

    pub(super) fn yamux(&self) -> yamux::Config {
        let mut config = yamux::Config::default();
        // In this order: each step checks that windows and streams fit each other.
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(MAX_STREAMS)
            .set_max_connection_receive_window(Some(
                MAX_STREAMS * yamux::DEFAULT_CREDIT as usize + self.window_growth as usize,
            ))
            .set_split_send_size(MAX_BODY);
        config
    }
}

/// Streams that yamux has room for, of both sides together. It kills the connection beyond, so both sides are counted
/// before it comes to that.
const MAX_STREAMS: usize = 4096;
/// Streams that may be open from this side, whatever the peer allows.
pub(super) const MAX_OPENED: usize = 2048;
/// Data in one frame that is sent, in bytes: with its header it fills one record of TLS (RFC 8446 section 5.1).
pub(super) const MAX_BODY: usize = 16 * 1024 - super::meter::HEADER;
/// Data of a stream that may come before somebody wants it, in bytes: the header of an open and the first of what follows.
/// For all that a gateway allows, it makes 576 KiB.
pub(super) const UNASKED: u32 = 12 * 1024;
/// Whoever has read this much of a stream wants it, in bytes. Two reads of a header are below it.
pub(super) const SURELY_WANTED: usize = 8 * 1024;
