//! What a connection's link carries, as the connection's acknowledgements tell.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tunnel_proto::Rate;

use super::attachment::Attachment;

/// The send buffer of a connection whose link is thin, in windows: what is in flight, and as much again to follow it.
const BUFFERED_WINDOWS: u64 = 2;
/// A send buffer is never smaller than this, in bytes: what a relay reads at once.
const LEAST_BUFFER: u64 = 64 * 1024;

/// The link under a connection, as far as it has been found out. It is another one after the path has changed, so that
/// whoever holds this is to ask for it anew now and then.
#[derive(Debug, Clone)]
pub struct LinkRate(Arc<Published>);

/// What the controller says, and what is said to it. Read by whoever sends; figures that change one after the other do no
/// harm.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Whether somebody keeps to the pacing. Until then the link is left to the congestion controller.
    pub(super) paced: AtomicBool,
    /// Bytes per second each; zero is none.
    pub(super) pacing: AtomicU64,
    pub(super) estimate: AtomicU64,
    pub(super) given: AtomicU64,
    /// Bytes.
    pub(super) window: AtomicU64,
    pub(super) lost: AtomicU64,
}

impl LinkRate {
    /// The link under a connection, for somebody who keeps to its pacing; `None` for connections that were not made here.
    pub fn of(connection: &quinn::Connection) -> Option<Self> {
        let published = Attachment::of(connection)?.published();
        published.paced.store(true, Ordering::Relaxed);
        Some(Self(published))
    }

    /// What to keep to; `None` if the link is fast, or not known yet.
    pub fn pacing(&self) -> Option<Rate> {
        Rate::from_bytes_per_second(self.0.pacing.load(Ordering::Relaxed))
    }

    /// What the link carries.
    pub fn estimate(&self) -> Option<Rate> {
        Rate::from_bytes_per_second(self.0.estimate.load(Ordering::Relaxed))
    }

    /// Somebody says what the link carries. It is never taken to carry more, but less if it does.
    pub fn give(&self, rate: Option<Rate>) {
        let bytes = rate.map_or(0, Rate::bytes_per_second);
        self.0.given.store(bytes, Ordering::Relaxed);
        if self.0.estimate.load(Ordering::Relaxed) == 0 {
            self.0.pacing.store(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes that were lost so far, all of which are sent again.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// How much the connection should hold, in bytes, so that what it was given does not stand in line there.
    pub fn send_buffer(&self) -> u64 {
        let window = self.0.window.load(Ordering::Relaxed);
        window.saturating_mul(BUFFERED_WINDOWS).max(LEAST_BUFFER)
    }
}
