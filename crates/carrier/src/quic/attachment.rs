//! What this crate attaches to a quinn connection, in the one place that quinn offers: its congestion controller.
//!
//! It does three things that quinn leaves undone.
//!
//! **The farewell gets through.** quinn holds back the packet that closes a connection while the congestion window is full,
//! and a closed connection hears no acknowledgements that would empty it. So a peer that was being sent much would never be
//! told, and find out by silence. From [`let_farewell_through`] on, nothing is held back.
//!
//! **Bad links are not full ones.** Cubic takes each loss for a full queue and sends less. Where nothing stands in line and
//! little is lost, that is chance, and sending less does not help ([`RateModel::losses_are_chance`]).
//!
//! **One stream cannot starve another.** Data that waits for its reader takes of the connection's window, and a few streams
//! whose readers are slow would take it all, the control stream's share too. So each open stream is granted a stream's
//! window on top of a base ([`Grant`]): all of them may stand still, and the base is left for everything else. What a peer
//! can pin is still bounded, by the streams that were opened or accepted here; and so is how many more it may open, for each
//! that nobody has accepted costs memory too.
//!
//! **A thin link is found out.** A [`RateModel`] learns from acknowledgements what the link carries, unless
//! [`LinkRate`](super::LinkRate) was told. Whoever sends holds to that, and the window is made of it: losses on a radio link then
//! do not close it, and it is never what packets wait for, unless a queue shows that the link carries less than was said. On
//! links that are not thin the window is Cubic's, and at least what the link has carried lately takes.

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

use super::{Limits, link_rate::Told};

/// What IP and UDP add to each packet, in bytes.
const HEADERS: u64 = 28;

/// Makes the attachment of each path of a connection.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) room: Room,
    pub(super) cubic: Arc<CubicConfig>,
}

/// How much may wait here, by how many streams somebody wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    window: u32,
    stream_window: u32,
    unaccepted: u32,
    max_streams: u32,
}

impl Room {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            window: limits.connection_window,
            stream_window: limits.stream_window,
            unaccepted: limits.unaccepted_streams,
            max_streams: limits.max_streams,
        }
    }

    /// The window of a connection with room for this many streams, in bytes.
    pub(super) fn window(self, streams: usize) -> VarInt {
        let streams = u64::try_from(streams).unwrap_or(u64::MAX);
        let window = u64::from(self.stream_window)
            .saturating_mul(streams)
            .saturating_add(self.window.into());
        VarInt::from_u64(window).unwrap_or(VarInt::MAX)
    }

    /// How many streams a peer may have open where this many were opened or accepted here: they double with each round
    /// trip in which all of them are accepted.
    pub(super) fn streams(self, streams: usize) -> VarInt {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        let allowed = streams.saturating_mul(2).saturating_add(self.unaccepted);
        VarInt::from_u32(allowed.min(self.max_streams))
    }
}

/// Lets the packet that closes the connection out, whatever is in flight. To be called right before closing.
pub(super) fn let_farewell_through(connection: &quinn::Connection) {
    if let Some(attachment) = Attachment::of(connection) {
        attachment.closing.store(true, Ordering::Relaxed);
    }
}

/// How many streams a connection has room for. Grows and shrinks in steps, for each is a frame to the peer; and never back
/// to none, so that streams that come one by one are spared them.
#[derive(Debug)]
pub(crate) struct Grant {
    room: Option<Room>,
    granted: usize,
}

impl Grant {
    pub(crate) fn new(connection: &quinn::Connection) -> Self {
        Self {
            room: Attachment::of(connection).map(|attachment| attachment.room),
            granted: 0,
        }
    }

    /// So many streams are open: those that were opened or accepted here.
    pub(crate) fn set_open(&mut self, open: usize, connection: &quinn::Connection) {
        if open > self.granted {
            self.set(connection, open.next_power_of_two());
        } else if open < self.granted / 4 {
            self.set(connection, self.granted / 2);
        }
    }

    fn set(&mut self, connection: &quinn::Connection, granted: usize) {
        self.granted = granted;
        if let Some(room) = self.room {
            connection.set_receive_window(room.window(granted));
            connection.set_max_concurrent_bi_streams(room.streams(granted));
        }
    }
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Attachment {
            cubic: Arc::clone(&self.cubic).build(now, current_mtu),
            closing: Arc::new(AtomicBool::new(false)),
            room: self.room,
            model: RateModel::new(Rate::THIN, RandomState::new().hash_one(now), now),
            told: Arc::default(),
        })
    }
}

/// A congestion controller, and what else belongs to a connection.
pub(super) struct Attachment {
    cubic: Box<dyn Controller>,
    closing: Arc<AtomicBool>,
    room: Room,
    model: RateModel,
    told: Arc<Told>,
}

impl Attachment {
    /// A copy that shares what can be changed; `None` for connections that were not made here.
    pub(super) fn of(connection: &quinn::Connection) -> Option<Box<Self>> {
        connection.congestion_state().into_any().downcast().ok()
    }

    pub(super) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    fn rate(&self) -> Option<Rate> {
        Rate::from_bytes_per_second(self.told.rate.load(Ordering::Relaxed))
    }

    /// Passes on what was told, and what was learned.
    fn follow(&mut self, now: Instant) {
        let rate = self.rate();
        if self.model.given() != rate {
            self.model.set_given(rate, now);
        }
        let buffer = self.model.buffer_beside(self.cubic.window());
        self.told.buffer.store(buffer, Ordering::Relaxed);
        let measured = self.model.pacing().map_or(0, Rate::bytes_per_second);
        self.told.measured.store(measured, Ordering::Relaxed);
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
        let other = self.cubic.window();
        if self.closing.load(Ordering::Relaxed) {
            return u64::MAX;
        }
        self.model.window_beside(other)
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
        if let Some(ways) = self.told.take_ways() {
            self.model.handle_transit(ways.there, ways.back, now);
        }
        self.model.handle_acks_end(now);
        self.follow(now);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.model.handle_loss(lost_bytes);
        // No byte is lost where a router has marked packets instead (ECN).
        let marked = lost_bytes == 0;
        if marked || is_persistent_congestion || !self.model.losses_are_chance() {
            self.cubic
                .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
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
            room: self.room,
            model: self.model.clone(),
            told: Arc::clone(&self.told),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
