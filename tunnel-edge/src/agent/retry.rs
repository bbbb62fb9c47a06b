//! When to connect again, by what ended the last attempt.

use std::time::Duration;

use rand::RngExt as _;
use tunnel_model::{Reason, Refusal};
use tunnel_proto::Backoff;

/// Backoff after what passes by itself: the bound of the first delay and of all.
const BASE: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(60);
/// The least delay after what a person has to mend; jitter may double it.
const LASTING: Duration = Duration::from_secs(120);
/// No gateway sends an edge away for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Delays between attempts.
#[derive(Debug)]
pub(super) struct Retry(Backoff);

impl Retry {
    pub(super) fn new() -> Self {
        Self(Backoff::new(BASE, CAP))
    }

    /// The delay after an attempt or a session that ended so.
    pub(super) fn after(
        &mut self,
        refusal: &Refusal,
        retry_after: Option<Duration>,
        rng: &mut impl rand::Rng,
    ) -> Duration {
        let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        let floor = if is_lasting(refusal.reason) {
            LASTING.mul_f64(rng.random_range(1.0..=2.0))
        } else {
            Duration::ZERO
        };
        self.0.after_failure(Some(asked.max(floor)), rng)
    }

    /// The session proved itself: the next failure is the first.
    pub(super) fn reset(&mut self) {
        self.0.reset();
    }
}

/// Whether trying again soon would only fail again, at the gateway's expense. That a newer connection took over is among
/// them: two machines with one identity would otherwise throw each other out for ever.
pub(super) fn is_lasting(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UnsupportedVersion | Reason::Revoked | Reason::Denied | Reason::Unauthenticated | Reason::Superseded
    )
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn a_lost_link_is_tried_again_soon_and_ever_less_often() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut retry = Retry::new();
        assert!(retry.after(&refusal(Reason::CarrierLost), None, &mut rng) <= BASE);
        let delays: Vec<_> = (0..50)
            .map(|_| retry.after(&refusal(Reason::CarrierLost), None, &mut rng))
            .collect();
        assert!(delays.iter().all(|delay| *delay <= CAP));
        assert!(delays.iter().any(|delay| *delay > CAP / 2));
        retry.reset();
        assert!(retry.after(&refusal(Reason::CarrierLost), None, &mut rng) <= BASE);
    }

    /// B4: unsupported is no reconnect loop.
    #[test]
    fn what_a_person_must_mend_is_tried_again_after_minutes() {
        let mut rng = StdRng::seed_from_u64(2);
        for &reason in Reason::ALL.iter().filter(|reason| is_lasting(**reason)) {
            let delay = Retry::new().after(&refusal(reason), None, &mut rng);
            assert!(delay >= LASTING && delay <= 3 * LASTING, "{reason}: {delay:?}");
        }
    }

    #[test]
    fn the_gateways_wish_is_a_lower_bound_and_has_an_upper_one() {
        let mut rng = StdRng::seed_from_u64(3);
        let draining = refusal(Reason::Draining);
        let delay = Retry::new().after(&draining, Some(Duration::from_secs(30)), &mut rng);
        assert!((30..31).contains(&delay.as_secs()), "{delay:?}");
        let delay = Retry::new().after(&draining, Some(Duration::MAX), &mut rng);
        assert!(delay <= MAX_RETRY_AFTER + BASE);
    }

    fn refusal(reason: Reason) -> Refusal {
        Refusal::new(reason, "")
    }
}
