//! Time on an edge whose own clock may be wrong by years, in either direction.
//!
//! An edge without a battery-backed clock starts in 1970; one with a dying battery may start in 2036. Neither may keep it
//! from its gateway, and neither may be used against it.
//!
//! **What is surely past.** [`TimeFloor`] is the later of the time of the build and the last time that an authenticated
//! gateway told. The system clock never moves it, so no clock can.
//!
//! **Before the handshake** the edge judges the gateway's chain by the floor alone: a chain that ended before the floor is
//! refused, and so the floor retires old gateway keys. Beginnings are not judged, and the system clock has no say: from the
//! inside, a clock that is ahead and a certificate that has expired look the same, and the signatures, the pinned root
//! and the gateway's name carry the trust. What is left open: an edge that has heard no time since before a gateway key
//! expired would accept that key from a thief. An edge that is online hears the time at each connection, so only one that
//! was in the dark all that while is concerned, and the next honest gateway ends it.
//!
//! **After the handshake** the gateway says what time it is. [`Clock::learn`] believes it if it lies within the validity
//! of the chain that the gateway just showed: a gateway whose own clock is wrong by more than that is not believed, and
//! cannot push the floor beyond the certificates that its root gave it. From then on [`Clock::now`] is the gateway's
//! time, carried on by the monotonic clock; steps of the system clock no longer matter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{UnixTime, Validity};

/// A time that has surely passed. Clones share it; it only rises.
#[derive(Debug, Clone)]
pub struct TimeFloor(Arc<AtomicU64>);

impl TimeFloor {
    /// The later of the time of the build and the last time that was learned and kept, if any.
    pub fn new(build: UnixTime, last_good: Option<UnixTime>) -> Self {
        let floor = last_good.map_or(build, |time| time.max(build));
        Self(Arc::new(AtomicU64::new(floor.secs())))
    }

    /// The floor; to be kept for the next start.
    pub fn get(&self) -> UnixTime {
        UnixTime::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn raise(&self, time: UnixTime) {
        self.0.fetch_max(time.secs(), Ordering::Relaxed);
    }
}

/// What a gateway claimed about the time was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// It lies outside the validity of the gateway's own certificates.
    #[error("the gateway says it is {claimed}, but its certificate is valid from {} to {}; check the gateway's clock", validity.not_before, validity.not_after)]
    Implausible {
        /// What the gateway said.
        claimed: UnixTime,
        /// When its chain is valid.
        validity: Validity,
    },
    /// It is before a time that has surely passed.
    #[error("the gateway says it is {claimed}, but {floor} has passed already; check the gateway's clock")]
    BeforeFloor {
        /// What the gateway said.
        claimed: UnixTime,
        /// What has passed.
        floor: UnixTime,
    },
}

/// The corrected time of an edge.
#[derive(Debug)]
pub struct Clock {
    floor: TimeFloor,
    learned: Option<(UnixTime, Instant)>,
}

/// Two gateways, or one after a correction, may differ a little without being wrong.
const TOLERANCE: Duration = Duration::from_secs(300);

impl Clock {
    /// A clock that has learned nothing yet.
    pub fn new(floor: TimeFloor) -> Self {
        Self { floor, learned: None }
    }

    /// The floor, as verifiers use it.
    pub fn floor(&self) -> &TimeFloor {
        &self.floor
    }

    /// The time: what the gateway said and the time since; before that the later of the system clock and the floor.
    pub fn now(&self, system: UnixTime, monotonic: Instant) -> UnixTime {
        match self.learned {
            Some((time, at)) => time.plus(monotonic.saturating_duration_since(at)),
            None => system.max(self.floor.get()),
        }
    }

    /// Takes the time that a gateway told after a handshake in which it showed a chain of this validity. Raises the floor.
    pub fn learn(&mut self, claimed: UnixTime, monotonic: Instant, validity: Validity) -> Result<(), ClockError> {
        if claimed < validity.not_before || claimed > validity.not_after {
            return Err(ClockError::Implausible { claimed, validity });
        }
        let floor = self.floor.get();
        if claimed.plus(TOLERANCE) < floor {
            return Err(ClockError::BeforeFloor { claimed, floor });
        }
        self.learned = Some((claimed, monotonic));
        self.floor.raise(claimed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: UnixTime = UnixTime::from_secs(1_780_000_000);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// R5
    #[test]
    fn a_clock_in_1970_reads_as_the_last_good_time() {
        let start = Instant::now();
        let last = BUILD.plus(DAY);
        assert_eq!(clock(None).now(UnixTime::from_secs(0), start), BUILD);
        assert_eq!(clock(Some(last)).now(UnixTime::from_secs(0), start), last);
        assert_eq!(
            clock(Some(UnixTime::from_secs(7))).now(UnixTime::from_secs(0), start),
            BUILD
        );
    }

    /// R5
    #[test]
    fn a_clock_ten_years_ahead_yields_to_the_gateway_and_later_steps_do_nothing() {
        let start = Instant::now();
        let mut clock = clock(None);
        let real = BUILD.plus(YEAR);
        let ahead = real.plus(YEAR * 10);
        assert_eq!(clock.now(ahead, start), ahead);
        clock.learn(real, start, around(real)).unwrap();
        for system in [ahead, UnixTime::from_secs(0), real] {
            assert_eq!(clock.now(system, start + DAY), real.plus(DAY));
        }
        assert_eq!(clock.floor().get(), real, "the system clock moved the floor");
    }

    #[test]
    fn a_gateway_that_contradicts_its_own_certificate_is_not_believed() {
        let start = Instant::now();
        let mut clock = clock(None);
        let validity = around(BUILD.plus(YEAR));
        for claimed in [BUILD, BUILD.plus(YEAR * 10)] {
            let refused = clock.learn(claimed, start, validity);
            assert_eq!(refused, Err(ClockError::Implausible { claimed, validity }));
        }
        assert_eq!(clock.floor().get(), BUILD);
    }

    #[test]
    fn the_floor_never_sinks() {
        let start = Instant::now();
        let mut clock = clock(None);
        let later = BUILD.plus(DAY * 2);
        clock.learn(later, start, around(later)).unwrap();
        clock.learn(later.minus(TOLERANCE), start, around(later)).unwrap();
        assert_eq!(clock.floor().get(), later);
        assert!(clock.learn(later.minus(DAY), start, around(later)).is_err());
    }

    fn clock(last_good: Option<UnixTime>) -> Clock {
        Clock::new(TimeFloor::new(BUILD, last_good))
    }

    fn around(time: UnixTime) -> Validity {
        Validity {
            not_before: time.minus(DAY * 3),
            not_after: time.plus(DAY * 3),
        }
    }
}
