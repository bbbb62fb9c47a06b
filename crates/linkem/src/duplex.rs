//! Both directions of a link, driven together.

use std::time::Instant;

use crate::config::LinkPair;
use crate::link::{Link, Packet};
use crate::stats::PairStats;

/// Two links under one roof, for the IO around them.
#[derive(Debug)]
pub(crate) struct Duplex<P> {
    pub(crate) up: Link<P>,
    pub(crate) down: Link<P>,
}

impl<P: Packet> Duplex<P> {
    /// The directions draw from different streams of the one seed.
    pub(crate) fn new(pair: LinkPair, seed: u64) -> Self {
        Self {
            up: Link::new(pair.up, seed),
            down: Link::new(pair.down, !seed),
        }
    }

    pub(crate) fn set(&mut self, pair: LinkPair) {
        self.up.set(pair.up);
        self.down.set(pair.down);
    }

    pub(crate) fn config(&self) -> LinkPair {
        LinkPair {
            up: *self.up.config(),
            down: *self.down.config(),
        }
    }

    pub(crate) fn stats(&self) -> PairStats {
        PairStats {
            up: self.up.stats(),
            down: self.down.stats(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let wakeups = [self.up.poll_timeout(), self.down.poll_timeout()];
        wakeups.into_iter().flatten().min()
    }
}
