//! What the sender is paced to.

use std::time::Duration;

use super::{
    Rate, RateModel,
    phase::{PROBE_QUEUE, Phase},
};

/// Between probes, this part of the estimate is used: what stands in the queue by chance goes away.
const CRUISE: f64 = 0.98;
/// A probe is at least so much more than the estimate.
const PROBE_LEAST: f64 = 0.005;
/// The first probes grow by so much each time: what comes of one shows only while the next is on its way. Those after them grow
/// faster, for a link that is much faster is soon to be found out.
const PROBE_GROWTH: f64 = 1.25;
const PROBE_GROWTH_LATER: f64 = 1.5;
const PROBES_SMALL: u32 = 6;
/// The most that the first ones come to build: a quarter of the round trip, within these.
const PROBE_MOST: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(15)];
/// One more for each so much of a round trip.
const PROBES_MORE: Duration = Duration::from_millis(100);
/// The most that a drain takes off the rate.
const DRAIN_MOST: f64 = 0.5;

impl RateModel {
    /// What to pace to; `None` if nobody need be held back.
    pub fn pacing(&self) -> Option<Rate> {
        let estimate = self.thin_estimate()?;
        let round_trip = self.round_trip() + self.round_length();
        Some(match self.phase {
            Phase::Startup { .. } => return None,
            Phase::Drain { queue, .. } => {
                // All of it, also what may be chance.
                let whole = queue + self.jitter() / 2;
                let less = whole.div_duration_f64(round_trip).clamp(1.0 - CRUISE, DRAIN_MOST);
                estimate.scaled(1.0 - less)
            }
            Phase::Cruise { .. } => estimate.scaled(CRUISE),
            Phase::Probe { step, .. } => {
                let least = PROBE_QUEUE.div_duration_f64(round_trip).max(PROBE_LEAST);
                let small = step.min(self.probes_small());
                let later = PROBE_GROWTH_LATER.powi((step - small).min(16).cast_signed());
                let more = least * PROBE_GROWTH.powi(small.cast_signed()) * later;
                let most = (self.round_trip() / 4)
                    .clamp(PROBE_MOST[0], PROBE_MOST[1])
                    .div_duration_f64(round_trip);
                estimate.scaled(1.0 + more.min(most * later).min(1.0))
            }
            Phase::Compete { rate } => rate,
        })
    }

    /// How many probes stay small. Where round trips are long, each has been going on for long when its harm shows.
    fn probes_small(&self) -> u32 {
        let more = self.round_trip().div_duration_f64(PROBES_MORE);
        // A cast of a float saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let more = more as u32;
        PROBES_SMALL.saturating_add(more)
    }
}
