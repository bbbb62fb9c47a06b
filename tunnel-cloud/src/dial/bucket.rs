//! A token bucket without a lock, as the generic cell rate algorithm (ITU-T I.371, annex A, "virtual scheduling").

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const SECOND: u64 = 1_000_000_000;

/// What a bucket gives: so much in a second, and what it saves up in one second at once.
pub(super) type PerSecond = NonZeroU64;

/// Holds what one second gives, and is full at first. Time is given in nanoseconds since any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When it will be full again.
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes this much.
    ///
    /// # Errors
    /// It does not hold as much; it will after this time.
    pub(super) fn take(&self, amount: u64, rate: PerSecond, now: u64) -> Result<(), Duration> {
        let mut lacking = 0;
        self.change(now, |full_at| {
            let after = full_at.saturating_add(cost(amount, rate));
            lacking = after.saturating_sub(now).saturating_sub(SECOND.max(cost(1, rate)));
            (lacking == 0).then_some(after)
        })
        .then_some(())
        .ok_or(Duration::from_nanos(lacking))
    }

    /// Takes this much, whether or not it is there, and says how long to wait until the debt is paid.
    pub(super) fn borrow(&self, amount: u64, rate: PerSecond, now: u64) -> Duration {
        let mut owed = 0;
        self.change(now, |full_at| {
            let after = full_at.saturating_add(cost(amount, rate));
            owed = after.saturating_sub(now).saturating_sub(SECOND);
            Some(after)
        });
        Duration::from_nanos(owed)
    }

    /// Whether nothing of it is missing, so that a new one is as good.
    pub(super) fn is_full(&self, now: u64) -> bool {
        self.full_at.load(Ordering::Relaxed) <= now
    }

    fn change(&self, now: u64, mut change: impl FnMut(u64) -> Option<u64>) -> bool {
        let changed = |full_at: u64| change(full_at.max(now));
        self.full_at
            .try_update(Ordering::Relaxed, Ordering::Relaxed, changed)
            .is_ok()
    }
}

/// How long it takes to give this much, in nanoseconds.
fn cost(amount: u64, rate: PerSecond) -> u64 {
    let nanos = (u128::from(amount) * u128::from(SECOND)).div_ceil(u128::from(rate.get()));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_one_second_gives_may_be_taken_at_once_and_then_one_at_a_time() {
        let (bucket, rate) = (Bucket::default(), rate(4));
        for _ in 0..4 {
            assert_eq!(bucket.take(1, rate, 0), Ok(()));
        }
        assert_eq!(bucket.take(1, rate, 0), Err(Duration::from_millis(250)));
        assert_eq!(bucket.take(1, rate, SECOND / 4), Ok(()));
        assert_eq!(bucket.take(1, rate, SECOND / 4), Err(Duration::from_millis(250)));
        assert!(!bucket.is_full(SECOND));
        assert!(bucket.is_full(2 * SECOND));
    }

    #[test]
    fn a_debt_is_paid_before_anything_else() {
        let (bucket, rate) = (Bucket::default(), rate(1000));
        assert_eq!(bucket.borrow(1000, rate, 0), Duration::ZERO);
        assert_eq!(bucket.borrow(500, rate, 0), Duration::from_millis(500));
        assert_eq!(bucket.borrow(500, rate, 0), Duration::from_secs(1));
        assert_eq!(bucket.borrow(0, rate, SECOND), Duration::ZERO);
    }

    #[test]
    fn no_amount_and_no_rate_overflows() {
        let bucket = Bucket::default();
        assert!(bucket.borrow(u64::MAX, rate(1), u64::MAX - 1) <= Duration::from_secs(1));
        assert!(Bucket::default().take(u64::MAX, rate(1), 0).is_err());
        assert!(Bucket::default().take(1, rate(u64::MAX), 0).is_ok());
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_rate_and_one_second_ahead(
            per_second in 1u64..50,
            steps in prop::collection::vec(0u64..SECOND / 2, 1..200),
        ) {
            let (bucket, rate) = (Bucket::default(), rate(per_second));
            let (mut now, mut taken) = (0, 0u64);
            for step in steps {
                now += step;
                taken += u64::from(bucket.take(1, rate, now).is_ok());
            }
            prop_assert!(taken <= per_second + per_second * now / SECOND + 1);
        }
    }

    fn rate(per_second: u64) -> PerSecond {
        PerSecond::new(per_second).unwrap()
    }
}
