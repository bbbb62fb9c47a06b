//! When a node asks for its next certificate.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::{UnixTime, Validity};

/// The first wait after a failure; later ones double.
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// No wait is longer, so that a certificate of days has many chances left.
const LAST_RETRY: Duration = Duration::from_secs(3600);

/// The schedule of renewals: at half of a certificate's life and a little later, so that a fleet which joined together
/// does not renew together; after a failure with growing, jittered waits.
///
/// Sleep until [`Self::poll_timeout`], by the corrected clock of [`crate::Clock`]; then call [`Self::handle_timeout`], and
/// when that says so send a request. Report its end with [`Self::handle_renewed`] or [`Self::handle_failed`]. A
/// certificate that has expired is due at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    due: UnixTime,
    failures: u32,
    asking: bool,
}

impl Renewal {
    /// The schedule for a certificate of this validity.
    pub fn new(validity: Validity, rng: &mut impl Rng) -> Self {
        let life = validity.not_after.since(validity.not_before);
        let jitter = rng.random_range(0..=life.as_secs() / 10);
        Self {
            due: validity.not_before.plus(life / 2 + Duration::from_secs(jitter)),
            failures: 0,
            asking: false,
        }
    }

    /// When to call [`Self::handle_timeout`]; `None` while a request is under way.
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        (!self.asking).then_some(self.due)
    }

    /// Says whether to ask for a certificate now. After true, one of the other two `handle_` calls must follow.
    pub fn handle_timeout(&mut self, now: UnixTime) -> bool {
        let ask = !self.asking && now >= self.due;
        self.asking |= ask;
        ask
    }

    /// The request was granted with a certificate of this validity, now stored.
    pub fn handle_renewed(&mut self, validity: Validity, rng: &mut impl Rng) {
        *self = Self::new(validity, rng);
    }

    /// The request failed or was refused, or the connection broke.
    pub fn handle_failed(&mut self, now: UnixTime, rng: &mut impl Rng) {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16));
        let wait = doubled.min(LAST_RETRY).as_secs();
        self.failures = self.failures.saturating_add(1);
        self.asking = false;
        self.due = now.plus(Duration::from_secs(rng.random_range(wait / 2..=wait)));
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::NODE_LIFETIME;

    const START: UnixTime = UnixTime::from_secs(1_790_000_000);

    #[test]
    fn renewal_is_due_from_half_life_and_well_before_the_end() {
        let mut due: Vec<u64> = (0..200)
            .map(|seed| schedule(seed).poll_timeout().unwrap().secs())
            .collect();
        due.sort_unstable();
        due.dedup();
        assert!(due.len() > 150, "a fleet would renew in step");
        let half = START.plus(NODE_LIFETIME / 2).secs();
        assert!(due[0] >= half && due[due.len() - 1] <= half + NODE_LIFETIME.as_secs() / 10);
    }

    #[test]
    fn one_request_is_made_at_a_time() {
        let mut renewal = schedule(1);
        let due = renewal.poll_timeout().unwrap();
        assert!(!renewal.handle_timeout(due.minus(Duration::from_secs(1))));
        assert!(renewal.handle_timeout(due));
        assert!(!renewal.handle_timeout(due.plus(NODE_LIFETIME)));
        assert_eq!(renewal.poll_timeout(), None);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_an_hour_and_success_forgets_them() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut renewal = schedule(1);
        let mut now = renewal.poll_timeout().unwrap();
        for failure in 0..100u32 {
            assert!(renewal.handle_timeout(now));
            renewal.handle_failed(now, &mut rng);
            let next = renewal.poll_timeout().unwrap();
            let bound = 60 * 2u64.pow(failure.min(6));
            let waited = next.since(now).as_secs();
            assert!(
                waited >= bound.min(3600) / 2 && waited <= bound.min(3600),
                "{failure}: {waited} s"
            );
            now = next;
        }
        renewal.handle_renewed(week(now), &mut rng);
        assert_eq!(renewal.failures, 0);
        assert!(renewal.poll_timeout().unwrap() >= now.plus(NODE_LIFETIME / 2));
    }

    #[test]
    fn an_expired_certificate_is_due_at_once() {
        let mut renewal = schedule(1);
        assert!(renewal.handle_timeout(START.plus(NODE_LIFETIME * 5)));
    }

    fn week(from: UnixTime) -> Validity {
        Validity {
            not_before: from,
            not_after: from.plus(NODE_LIFETIME),
        }
    }

    fn schedule(seed: u64) -> Renewal {
        Renewal::new(week(START), &mut StdRng::seed_from_u64(seed))
    }
}
