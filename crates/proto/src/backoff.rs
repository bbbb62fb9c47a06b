//! When to dial again: full jitter, so that a fleet that lost its gateway does not come back as one.

use std::time::Duration;

use rand::RngExt;

/// No gateway can send an edge away for longer than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Delays that double from `base` to `cap`, each drawn evenly from zero to its bound ("full jitter").
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays bounded by `base` after the first failure and never above `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The delay after one more failure. What the gateway asked for comes first, with the jitter on top.
    pub fn after_failure(&mut self, retry_after: Option<Duration>, rng: &mut impl rand::Rng) -> Duration {
        let bound = self.base.saturating_mul(1 << self.failures.min(16)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        retry_after.unwrap_or_default().min(MAX_RETRY_AFTER) + bound.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// Forgets the failures. To be called once the connection has proved itself, not when it merely came up.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    const BASE: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(60);

    #[test]
    fn delays_grow_to_the_cap_and_start_anew_after_success() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(BASE, CAP);
        for failure in 0..40 {
            let delay = backoff.after_failure(None, &mut rng);
            assert!(delay <= BASE.saturating_mul(1 << failure.min(20)).min(CAP));
        }
        backoff.reset();
        assert!(backoff.after_failure(None, &mut rng) <= BASE);
    }

    #[test]
    fn a_thousand_edges_do_not_come_back_together() {
        let mut rng = StdRng::seed_from_u64(2);
        let wait = Some(Duration::from_secs(10));
        let mut halves = [0; 2];
        for _ in 0..1000 {
            let mut backoff = Backoff::new(CAP, CAP);
            let delay = backoff.after_failure(wait, &mut rng);
            assert!(delay >= Duration::from_secs(10));
            halves[usize::from(delay > Duration::from_secs(10) + CAP / 2)] += 1;
        }
        assert!(halves.iter().all(|&n| (400..600).contains(&n)), "{halves:?}");
    }
}
