//! What a connection may take.

use std::{sync::Arc, time::Duration};

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt, congestion::CubicConfig};

use super::attachment::{Factory, Room};

/// Limits of one connection. quinn's own defaults would let one hostile peer pin 250 MB.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many streams the peer may have open.
    pub max_streams: u32,
    /// How many it may open before one was accepted, its first stream among them.
    pub unaccepted_streams: u32,
    /// How much data of one stream may wait here for its reader, in bytes.
    pub stream_window: u32,
    /// How much data may wait here for readers beyond what the streams that were opened or accepted here may have, in
    /// bytes: of the session itself, and of streams that the peer opened and nobody has accepted.
    pub connection_window: u32,
    /// How much data may wait here for the peer to acknowledge it, in bytes.
    pub send_window: u32,
    /// How long the peer may be silent.
    pub idle_timeout: Duration,
}

impl Limits {
    /// For a gateway, where each peer is one of many and any of them may be hostile: what it sends unasked makes the gateway
    /// hold less than 1 MiB, however it is cut into packets.
    pub fn gateway() -> Self {
        Self {
            max_streams: 64,
            // quinn sets memory aside for each of them, on each connection. And where a peer sends its data in crumbs, each
            // stream takes 32 KiB more than what it holds.
            unaccepted_streams: 8,
            // What 3 Mbit/s carry in two round trips of 800 ms: what was lost and comes again does not stop the rest.
            stream_window: 640 * 1024,
            connection_window: 128 * 1024,
            send_window: 2 * 1024 * 1024,
            idle_timeout: IDLE_TIMEOUT,
        }
    }

    /// For an edge, which has one peer.
    pub fn edge() -> Self {
        Self {
            max_streams: 1024,
            unaccepted_streams: 1024,
            stream_window: 1024 * 1024,
            connection_window: 1024 * 1024,
            send_window: 2 * 1024 * 1024,
            idle_timeout: IDLE_TIMEOUT,
        }
    }

    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MTU_CEILING);
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or_else(|_| VarInt::MAX.into());
        let room = Room::of(self);
        let cubic = Arc::new(CubicConfig::default());
        // Acknowledgements cost the peer a packet and both ends a wakeup each; one for ten packets is enough for loss
        // recovery, and the delay that is allowed is the same as without (draft-ietf-quic-ack-frequency).
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(ACK_EVERY);
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(room.streams(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(self.stream_window.into())
            .receive_window(room.window(0))
            .congestion_controller_factory(Arc::new(Factory { room, cubic }))
            .send_window(self.send_window.into())
            .max_idle_timeout(Some(idle))
            // The session pings, so that the interval can be learned per network.
            .keep_alive_interval(None)
            .min_mtu(MTU_FLOOR)
            .initial_mtu(MTU_FLOOR)
            .mtu_discovery_config(Some(mtu))
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            .ack_frequency_config(Some(acks))
            .allow_spin(false);
        Arc::new(config)
    }
}

/// Longer than the longest silence of an idle edge and the time in which it finds out why nobody answers. With open streams
/// both ends ping, and do not wait for this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// Every IPv6 link carries this (RFC 9000 section 14); nothing a path says makes packets smaller.
const MTU_FLOOR: u16 = 1200;
/// GSO sends ten segments at once and a UDP datagram holds 65,535 bytes; above this, batches fail without a word.
pub(super) const MTU_CEILING: u16 = 6500;
/// Packets that one acknowledgement may stand for, less one.
const ACK_EVERY: VarInt = VarInt::from_u32(10);
/// Datagrams of a connection that wait, each way, in bytes; the oldest give way to new ones. At 100 Mbit/s that is 20 ms.
const DATAGRAM_BUFFER: usize = 256 * 1024;
