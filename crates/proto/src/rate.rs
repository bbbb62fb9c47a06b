//! How fast a link is: [`Rate`], and the model that measures one ([`RateModel`]).

mod delays;
mod doubts;
mod losses;
mod model;
mod round;
mod train;
mod window;

use std::{fmt, num::NonZeroU64, time::Duration};

pub use model::RateModel;

const NANOS: u128 = 1_000_000_000;

/// Bytes in a second, of whole packets: all that takes room on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// 100 Mbit/s: a link that carries more is not thin, for no stream there waits for another long enough to notice.
    pub const THIN: Self = Self(NonZeroU64::new(100_000_000 / 8).expect("it is more than none"));

    /// 8 kbit/s: a link that carries less is none.
    pub const LEAST: Self = Self(NonZeroU64::new(1000).expect("it is more than none"));

    /// `None` for no rate at all.
    pub fn from_bytes_per_second(bytes: u64) -> Option<Self> {
        NonZeroU64::new(bytes).map(Self)
    }

    /// `None` for less than a byte in a second.
    pub fn from_bits_per_second(bits: u64) -> Option<Self> {
        Self::from_bytes_per_second(bits / 8)
    }

    /// What passed in some time; `None` for nothing, or in no time.
    pub(crate) fn of(bytes: u64, time: Duration) -> Option<Self> {
        let per_second = (u128::from(bytes) * NANOS).checked_div(time.as_nanos())?;
        Self::from_bytes_per_second(u64::try_from(per_second).unwrap_or(u64::MAX))
    }

    /// Bytes in a second.
    pub fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// Bits in a second.
    pub fn bits_per_second(self) -> u64 {
        self.0.get().saturating_mul(8)
    }

    /// How long so many bytes take.
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * NANOS / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many bytes pass in this time.
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0.get()).saturating_mul(time.as_nanos()) / NANOS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// So many times the rate, and at least a byte in a second.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        // A cast of a float saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let scaled = (self.0.get() as f64 * factor) as u64;
        Self(NonZeroU64::new(scaled).unwrap_or(NonZeroU64::MIN))
    }
}

/// As people say it: in Mbit/s.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} Mbit/s", self.bits_per_second() as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_whole_packets_in_time_and_back() {
        let rate = Rate::from_bits_per_second(3_000_000).unwrap();
        assert_eq!(rate.time_for(1500), Duration::from_millis(4));
        assert_eq!(rate.bytes_in(Duration::from_millis(4)), 1500);
        assert_eq!(Rate::of(1500, Duration::from_millis(4)), Some(rate));
        assert_eq!(rate.to_string(), "3.00 Mbit/s");
    }

    #[test]
    fn what_is_no_rate_is_none() {
        assert_eq!(Rate::from_bits_per_second(7), None);
        assert_eq!(Rate::of(0, Duration::from_secs(1)), None);
        assert_eq!(Rate::of(1, Duration::ZERO), None);
    }

    #[test]
    fn extremes_saturate() {
        let all = Rate::from_bytes_per_second(u64::MAX).unwrap();
        assert_eq!(all.bytes_in(Duration::MAX), u64::MAX);
        assert_eq!(all.scaled(2.0), all);
        let least = Rate::from_bytes_per_second(1).unwrap();
        assert_eq!(least.scaled(0.1), least);
        assert_eq!(least.time_for(u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
