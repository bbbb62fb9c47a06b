//! Times as records have them.

use std::{
    fmt::{self, Write as _},
    time::SystemTime,
};

use time::OffsetDateTime;

/// RFC 3339 in UTC, with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([u8; 24]);

impl Stamp {
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes times, and remembers the last: within a second only its milliseconds change.
#[derive(Debug)]
pub(super) struct Clock {
    second: i64,
    last: Stamp,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            second: 0,
            last: Stamp(*b"1970-01-01T00:00:00.000Z"),
        }
    }

    pub(super) fn now(&mut self) -> Stamp {
        self.stamp(SystemTime::now())
    }

    pub(super) fn stamp(&mut self, time: SystemTime) -> Stamp {
        let time = OffsetDateTime::from(time);
        if time.unix_timestamp() != self.second {
            self.write_second(time);
        }
        let millis = time.millisecond();
        for (digit, unit) in self.last.0[20..23].iter_mut().zip([100, 10, 1]) {
            *digit = b'0' + u8::try_from(millis / unit % 10).unwrap_or_default();
        }
        self.last
    }

    fn write_second(&mut self, time: OffsetDateTime) {
        self.second = time.unix_timestamp();
        let mut text = String::with_capacity(32);
        // A String takes whatever is written to it.
        let _ = write!(
            text,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        );
        for (to, from) in self.last.0[..20].iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_whatever_was_written_before() {
        let mut clock = Clock::new();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
            (1_767_225_600_042, "2026-01-01T00:00:00.042Z"),
            // Clocks go back.
            (1_000_000_000_500, "2001-09-09T01:46:40.500Z"),
            (7, "1970-01-01T00:00:00.007Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(clock.stamp(time).as_str(), text);
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(clock.stamp(before).as_str(), "1969-12-31T23:59:59.999Z");
    }
}
