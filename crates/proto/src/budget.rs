//! A token bucket: how often a peer may do what costs us something.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(crate) struct Budget {
    tokens: u32,
    burst: u32,
    refill_every: Duration,
    refilled: Instant,
}

impl Budget {
    /// `burst` at once, and one more each `refill_every`.
    pub(crate) fn new(burst: u32, refill_every: Duration, now: Instant) -> Self {
        Self {
            tokens: burst,
            burst,
            refill_every,
            refilled: now,
        }
    }

    /// Takes one; `false` if there is none left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.refilled).as_nanos() / self.refill_every.as_nanos().max(1);
        if let Ok(earned) = u32::try_from(earned) {
            self.tokens = self.tokens.saturating_add(earned).min(self.burst);
            self.refilled += self.refill_every * earned;
        } else {
            self.tokens = self.burst;
            self.refilled = now;
        }
        if self.tokens == self.burst {
            self.refilled = self.refilled.max(now);
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_once_and_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(10, Duration::from_millis(100), start);
        assert!((0..10).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        assert!(!budget.take(start + Duration::from_millis(99)));
        assert!(budget.take(start + Duration::from_millis(100)));
        assert!(!budget.take(start + Duration::from_millis(150)));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 10);
    }
}
