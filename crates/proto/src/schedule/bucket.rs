//! A rate that is kept to: what is taken moves the time at which the next may be.

use std::time::{Duration, Instant};

use crate::rate::Rate;

/// Opens whenever all that was taken has passed at the rate. Who is let in may take more than has been saved up and
/// thereby closes it for as long: no packet waits for its last byte's worth.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    rate: Rate,
    /// What an idle bucket saves up, as time.
    depth: Duration,
    /// When it opens, or has opened.
    opens: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, depth: Duration, now: Instant) -> Self {
        Self {
            rate,
            depth,
            opens: now,
        }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn opens(&self) -> Instant {
        self.opens
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.opens <= now
    }

    /// Bytes that have been saved up.
    pub(super) fn saved(&self, now: Instant) -> u64 {
        let idle = now.saturating_duration_since(self.opens);
        self.rate.bytes_in(idle.min(self.depth))
    }

    pub(super) fn take(&mut self, bytes: u64, now: Instant) {
        let earliest = now.checked_sub(self.depth).unwrap_or(now);
        self.opens = later(self.opens.max(earliest), self.rate.time_for(bytes));
    }

    /// What was taken was not used.
    pub(super) fn give_back(&mut self, bytes: u64) {
        let earlier = self.opens.checked_sub(self.rate.time_for(bytes));
        self.opens = earlier.unwrap_or(self.opens);
    }

    /// What was taken and has not passed yet, passes at the new rate.
    pub(super) fn set_rate(&mut self, rate: Rate, now: Instant) {
        let owed = self.opens.saturating_duration_since(now);
        if owed > Duration::ZERO {
            self.opens = later(now, rate.time_for(self.rate.bytes_in(owed)));
        }
        self.rate = rate;
    }
}

/// A day is as good as never, and representable.
fn later(at: Instant, wait: Duration) -> Instant {
    at + wait.min(Duration::from_secs(24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn bucket(now: Instant) -> Bucket {
        Bucket::new(Rate::from_bytes_per_second(1_000_000).unwrap(), 4 * MS, now)
    }

    #[test]
    fn an_idle_bucket_saves_up_its_depth_and_no_more() {
        let start = Instant::now();
        let bucket = bucket(start);
        assert_eq!(bucket.saved(start), 0);
        assert_eq!(bucket.saved(start + 3 * MS), 3_000);
        assert_eq!(bucket.saved(start + 100 * MS), 4_000);
    }

    #[test]
    fn what_is_taken_beyond_what_was_saved_closes_it_for_as_long() {
        let start = Instant::now();
        let mut bucket = bucket(start);
        bucket.take(2_000, start);
        assert_eq!(bucket.opens(), start + 2 * MS);
        bucket.give_back(1_000);
        assert_eq!(bucket.opens(), start + MS);
        let later = start + 100 * MS;
        bucket.take(4_000, later);
        assert!(bucket.is_open(later));
        bucket.take(1, later);
        assert!(!bucket.is_open(later));
    }

    #[test]
    fn a_debt_is_paid_at_the_new_rate() {
        let start = Instant::now();
        let mut bucket = bucket(start);
        bucket.take(8_000, start);
        bucket.set_rate(Rate::from_bytes_per_second(4_000_000).unwrap(), start);
        assert_eq!(bucket.opens(), start + 2 * MS);
    }
}
