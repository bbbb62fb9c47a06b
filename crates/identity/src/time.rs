//! Wall-clock time in whole seconds, the precision of a certificate.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Seconds since 1970-01-01 UTC, leap seconds not counted. Arithmetic saturates: a wrong clock is no reason to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The time so many seconds after 1970-01-01 UTC.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// Seconds since 1970-01-01 UTC.
    pub const fn secs(self) -> u64 {
        self.0
    }

    /// Later by this much, in whole seconds.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// Earlier by this much, in whole seconds.
    #[must_use]
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_secs()))
    }

    /// How long ago the earlier time was; zero if it was not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// The time of a certificate field. What lies before 1970 reads as 1970.
    pub(crate) fn from_timestamp(timestamp: i64) -> Self {
        Self(u64::try_from(timestamp).unwrap_or(0))
    }

    /// For the certificate builder. Times beyond the year 9999, which X.509 cannot hold, give `None`.
    pub(crate) fn to_offset(self) -> Option<time::OffsetDateTime> {
        time::OffsetDateTime::from_unix_timestamp(i64::try_from(self.0).ok()?).ok()
    }

    pub(crate) fn to_pki(self) -> rustls_pki_types::UnixTime {
        rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(self.0))
    }
}

/// A system clock set before 1970 reads as 1970.
impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }
}

/// RFC 3339 in UTC.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_offset() {
            Some(t) => write!(
                f,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                t.year(),
                u8::from(t.month()),
                t.day(),
                t.hour(),
                t.minute(),
                t.second()
            ),
            None => write!(f, "{} s after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_rfc_3339_and_never_overflows() {
        assert_eq!(UnixTime::from_secs(1_800_000_000).to_string(), "2027-01-15T08:00:00Z");
        let end = UnixTime::from_secs(u64::MAX);
        assert_eq!(end.plus(Duration::from_secs(1)), end);
        assert_eq!(end.to_string(), "18446744073709551615 s after 1970");
        assert_eq!(
            UnixTime::from_secs(1).minus(Duration::from_secs(2)),
            UnixTime::from_secs(0)
        );
    }

    /// R5
    #[test]
    fn a_system_clock_before_1970_reads_as_1970() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(UnixTime::from(before), UnixTime::from_secs(0));
    }
}
