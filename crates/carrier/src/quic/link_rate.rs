//! What somebody says of a connection's link, and what the connection makes of it and measures.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tunnel_proto::Rate;

use super::attachment::Attachment;

/// A send buffer is never smaller than this, in bytes.
const LEAST_BUFFER: u64 = 32 * 1024;

/// The link under a connection. It is another one after the path has changed, so that whoever holds this is to ask for it
/// anew now and then.
#[derive(Debug, Clone)]
pub struct LinkRate(Arc<Told>);

/// What is said to the controller, and what it says. Figures that change one after the other do no harm.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Bytes per second; zero is none.
    pub(super) rate: AtomicU64,
    /// Bytes.
    pub(super) buffer: AtomicU64,
    /// What may be sent where nothing was told, in bytes per second; zero is anything.
    pub(super) measured: AtomicU64,
    ways: Mutex<Option<Ways>>,
}

/// How long the ways there and back are, each on top of a time that is the same for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// The least since it was looked at.
    pub(super) there: Duration,
    /// The last.
    pub(super) back: Duration,
}

impl Told {
    /// What was seen since this was asked last.
    pub(super) fn take_ways(&self) -> Option<Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl LinkRate {
    /// The link under a connection; `None` for connections that were not made here.
    pub fn of(connection: &quinn::Connection) -> Option<Self> {
        Some(Self(Attachment::of(connection)?.told()))
    }

    /// The link is said to carry so much, and whoever sends holds to that: from the next acknowledgement on the window follows
    /// it. Without, the connection measures.
    pub fn give(&self, rate: Option<Rate>) {
        let rate = rate.map_or(0, Rate::bytes_per_second);
        self.0.rate.store(rate, Ordering::Relaxed);
    }

    /// What may be sent, where no rate was given and the link turned out to be thin.
    pub fn measured(&self) -> Option<Rate> {
        Rate::from_bytes_per_second(self.0.measured.load(Ordering::Relaxed))
    }

    /// Packets took so long to the peer, and what answered them to come back, each on top of a time that is the same for all.
    pub(crate) fn saw(&self, there: Duration, back: Duration) {
        let mut ways = self.0.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let there = ways.map_or(there, |seen| seen.there.min(there));
        *ways = Some(Ways { there, back });
    }

    /// Whether the link carries so much that nothing stands in line there for long.
    pub(crate) fn is_fast(&self) -> bool {
        self.0.buffer.load(Ordering::Relaxed) == u64::MAX
    }

    /// How much the connection should hold, in bytes, so that what it was given does not stand in line there.
    pub fn send_buffer(&self) -> u64 {
        self.0.buffer.load(Ordering::Relaxed).max(LEAST_BUFFER)
    }
}
