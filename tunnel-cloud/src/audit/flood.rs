//! Refusals are recorded one by one as long as they are few: whoever is refused all day long must not be able to fill
//! the disk, nor to push what matters out of the log.

use std::time::Instant;

/// How many may come at once.
const BURST: f64 = 1000.0;
/// How many are recorded each second if they go on.
const PER_SECOND: f64 = 100.0;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self {
            tokens: BURST,
            filled: None,
        }
    }

    /// Whether there is room for one more at this time.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = self
            .filled
            .map_or(0.0, |then| now.saturating_duration_since(then).as_secs_f64());
        self.filled = Some(now);
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        let has_room = self.tokens >= 1.0;
        if has_room {
            self.tokens -= 1.0;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let (mut bucket, start) = (Bucket::new(), Instant::now());
        assert_eq!((0..2000).filter(|_| bucket.take(start)).count(), 1000);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..2000).filter(|_| bucket.take(later)).count(), 100);
        // A clock that goes backwards gives nothing away.
        assert!(!bucket.take(start));
    }
}
