//! How much room the link leaves: in flight, and in a carrier that is to hold little beyond that.

use std::time::Duration;

use super::{
    ACK_DELAY, RateModel,
    phase::{NO_QUEUES, Phase},
};

/// A link of which nothing is known is tried with so much more than it has carried; a little more where packets stand in line,
/// for that would make them more.
const GROWTH: f64 = 1.25;
const GROWTH_IN_QUEUES: f64 = 1.1;
/// What a carrier may hold beyond what is in flight.
const BUFFERED: Duration = Duration::from_millis(25);
/// While packets are lost it holds what was sent behind a gap until that is filled: beside the round trip in which a loss shows,
/// one more until what was sent again has arrived, and half of one because that may be lost too.
const BEHIND_GAPS: f64 = 1.5;

impl RateModel {
    /// How many bytes may be in flight, where a loss-based controller says `other`. On a link that is thin the window is never
    /// to be what holds packets back. On others it is what the controller says, and at least what was carried lately takes,
    /// as far as a thin link could carry it: losses that are chance do not close it.
    pub fn window_beside(&self, other: u64) -> u64 {
        let Some(estimate) = self.estimate.map(|estimate| estimate.min(self.thin)) else {
            return other;
        };
        let slack = self.slack();
        let whole = |round_trip: Duration| estimate.bytes_in(round_trip + ACK_DELAY);
        match self.phase {
            Phase::Startup { carried, .. } => {
                let more = if carried == NO_QUEUES { GROWTH } else { GROWTH_IN_QUEUES };
                (estimate.scaled(more).bytes_in(self.round_trip() + ACK_DELAY) + slack).max(other)
            }
            // What the carrier holds already may not stand in the link's queue; nor may it hold up who types for long.
            Phase::Drain { .. } => whole(self.delays.round_trip_without_us()) + slack,
            Phase::Cruise { .. } | Phase::Probe { .. } => 2 * whole(self.round_trip()) + slack,
            Phase::Compete { .. } => {
                2 * whole(
                    self.delays
                        .round_trip_of_now()
                        .unwrap_or_default()
                        .max(self.round_trip()),
                ) + slack
            }
        }
    }

    /// How much a carrier should hold, in flight and not sent yet, where a loss-based controller says `other`. What waits
    /// in a carrier keeps to no pacing, and is no longer sorted.
    pub fn buffer_beside(&self, other: u64) -> u64 {
        let window = self.window_beside(other);
        let gaps = self.round_trip().mul_f64(if self.gaps > 0 { BEHIND_GAPS } else { 0.0 });
        match (self.thin_estimate(), self.phase) {
            // On a link that is fast nothing stands there for long.
            (None, _) if self.estimate.is_some() => u64::MAX,
            (None, _) => window.saturating_mul(2),
            (Some(estimate), Phase::Startup { .. } | Phase::Compete { .. }) => {
                window.saturating_mul(2) + estimate.bytes_in(gaps)
            }
            (Some(estimate), _) => {
                let round_trip = self.delays.round_trip_without_us();
                estimate.bytes_in(round_trip + gaps + ACK_DELAY + BUFFERED) + self.slack()
            }
        }
    }
}
