//! What the sender is paced to.

use std::time::Duration;

use super::{PROBE_QUEUE, Phase, Rate, RateModel};

/// Between probes, this part of the estimate is used: what stands in the queue by chance goes away.
const CRUISE: f64 = 0.98;
/// A probe is at least so much more than the estimate.
const PROBE_LEAST: f64 = 0.005;
/// The most that the first probes come to build: a quarter of the round trip, within these. If they did no harm, twice as much
/// each time: a link that is much faster is soon found out.
const PROBE_MOST: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(15)];
const PROBES_MOST: u32 = 4;
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
                let more = least * f64::from(1_u32 << step.min(16));
                let most = (self.round_trip() / 4)
                    .clamp(PROBE_MOST[0], PROBE_MOST[1])
                    .div_duration_f64(round_trip);
                let most = most * f64::from(1_u32 << step.saturating_sub(self.probes_most()).min(16));
                estimate.scaled(1.0 + more.min(most).min(1.0))
            }
            Phase::Compete { rate } => rate,
        })
    }

    /// How many probes stay small. Where round trips are long, each has been going on for long when its harm shows.
    fn probes_most(&self) -> u32 {
        let more = self.round_trip().div_duration_f64(PROBES_MORE);
        // A cast of a float saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let more = more as u32;
        PROBES_MOST.saturating_add(more)
    }
}
