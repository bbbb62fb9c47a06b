//! What this crate attaches to a quinn connection, in the one place that quinn offers: its congestion controller.
//!
//! It does three things that quinn leaves undone.
//!
//! **The farewell gets through.** quinn holds back the packet that closes a connection while the congestion window is full,
//! and a closed connection hears no acknowledgements that would empty it. So a peer that was being sent much would never be
//! told, and find out by silence. From [`let_farewell_through`] on, nothing is held back.
//!
//! **One stream cannot starve another.** Data that waits for its reader takes of the connection's window, and a few streams
//! whose readers are slow would take it all, the control stream's share too. So each open stream is granted a stream's
//! window on top of a base ([`Grant`]): all of them may stand still, and the base is left for everything else. What a peer
//! can pin is still bounded, by the streams that were opened or accepted here.
//!
//! **A thin link is known for what it is.** A [`RateModel`] learns from the acknowledgements what the link carries, and
//! [`LinkRate`](super::LinkRate) tells whoever sends. Once somebody keeps to that, the window follows the model where the link
//! is thin: losses on a radio link then no longer close it, and it is never what packets wait for. On other links the window is
//! Cubic's.

use std::{
    any::Any,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn::{
    VarInt,
    congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig},
};
use quinn_proto::RttEstimator;
use tunnel_proto::{Rate, RateModel};

use super::{Limits, link_rate::Published};

/// What IP and UDP add to each packet, in bytes.
const HEADERS: u64 = 28;

/// Makes the attachment of each path of a connection.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) windows: Windows,
    pub(super) cubic: Arc<CubicConfig>,
}

/// How much may wait for readers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    base: u32,
    stream: u32,
}

impl Windows {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            base: limits.connection_window,
            stream: limits.stream_window,
        }
    }

    /// The window of a connection with room for this many streams.
    pub(super) fn with_streams(self, streams: usize) -> VarInt {
        let streams = u64::try_from(streams).unwrap_or(u64::MAX);
        let window = u64::from(self.stream)
            .saturating_mul(streams)
            .saturating_add(self.base.into());
        VarInt::from_u64(window).unwrap_or(VarInt::MAX)
    }
}

/// Lets the packet that closes the connection out, whatever is in flight. To be called right before closing.
pub(super) fn let_farewell_through(connection: &quinn::Connection) {
    if let Some(attachment) = Attachment::of(connection) {
        attachment.closing.store(true, Ordering::Relaxed);
    }
}

/// How many streams a connection's window has room for. Grows and shrinks in steps, for each is a frame to the peer.
#[derive(Debug)]
pub(crate) struct Grant {
    windows: Option<Windows>,
    open: usize,
    granted: usize,
}

impl Grant {
    /// What every connection has from the start.
    pub(super) const FIRST: usize = 1;

    pub(crate) fn new(connection: &quinn::Connection) -> Self {
        Self {
            windows: Attachment::of(connection).map(|attachment| attachment.windows),
            open: 0,
            granted: Self::FIRST,
        }
    }

    /// A stream was opened or accepted.
    pub(crate) fn opened(&mut self, connection: &quinn::Connection) {
        self.open += 1;
        if self.open > self.granted {
            self.set(connection, self.open.next_power_of_two());
        }
    }

    /// A stream is no more.
    pub(crate) fn closed(&mut self, connection: &quinn::Connection) {
        self.open -= 1;
        if self.granted > Self::FIRST && self.open < self.granted / 4 {
            self.set(connection, self.granted / 2);
        }
    }

    fn set(&mut self, connection: &quinn::Connection, granted: usize) {
        self.granted = granted;
        if let Some(windows) = self.windows {
            connection.set_receive_window(windows.with_streams(granted));
        }
    }
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let seed = RandomState::new().hash_one(current_mtu);
        Box::new(Attachment {
            cubic: Arc::clone(&self.cubic).build(now, current_mtu),
            closing: Arc::new(AtomicBool::new(false)),
            windows: self.windows,
            model: RateModel::new(Rate::THIN, seed, now),
            given: 0,
            published: Arc::default(),
        })
    }
}

/// A congestion controller, and what else belongs to a connection.
pub(super) struct Attachment {
    cubic: Box<dyn Controller>,
    closing: Arc<AtomicBool>,
    windows: Windows,
    model: RateModel,
    /// What the model was told that the link carries, in bytes per second.
    given: u64,
    published: Arc<Published>,
}

impl Attachment {
    /// A copy that shares what can be changed; `None` for connections that were not made here.
    pub(super) fn of(connection: &quinn::Connection) -> Option<Box<Self>> {
        connection.congestion_state().into_any().downcast().ok()
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    fn publish(&mut self, now: Instant) {
        let published = &self.published;
        let given = published.given.load(Ordering::Relaxed);
        if given != self.given {
            self.given = given;
            self.model.set_given(Rate::from_bytes_per_second(given), now);
        }
        let bytes = |rate: Option<Rate>| rate.map_or(0, Rate::bytes_per_second);
        published.pacing.store(bytes(self.model.pacing()), Ordering::Relaxed);
        published
            .estimate
            .store(bytes(self.model.estimate()), Ordering::Relaxed);
        published.window.store(self.window(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Controller for Attachment {
    fn window(&self) -> u64 {
        if self.closing.load(Ordering::Relaxed) {
            u64::MAX
        } else if self.published.paced.load(Ordering::Relaxed) {
            self.model.window_beside(self.cubic.window())
        } else {
            self.cubic.window()
        }
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.model.handle_ack(sent, bytes + HEADERS, app_limited);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
        self.model.handle_acks_end(now);
        self.publish(now);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.model.handle_loss(lost_bytes);
        self.published.lost.fetch_add(lost_bytes, Ordering::Relaxed);
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            closing: Arc::clone(&self.closing),
            windows: self.windows,
            model: self.model.clone(),
            given: self.given,
            published: Arc::clone(&self.published),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
