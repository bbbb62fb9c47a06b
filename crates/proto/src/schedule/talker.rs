//! Who talks long is bulk, whatever it was opened as.

use std::time::{Duration, Instant};

use crate::rate::Rate;

/// A stream that has sent as much as the link carries in this time is a long talker...
const LONG: Duration = Duration::from_secs(1);
/// ...and more than any answer somebody looks at, in bytes.
const LONG_BYTES: u64 = 64 * 1024;
/// What a stream may send for good, as a part of the link: this much of what it said is forgotten as time goes by.
const FORGOTTEN: u64 = 8;
/// A stream that wanted nothing for so long has ended its talk.
const PAUSE: Duration = Duration::from_secs(1);

/// How much a stream has said lately.
#[derive(Debug, Clone)]
pub(super) struct Talker {
    said: u64,
    /// When it last had anything to say.
    last: Instant,
    long: bool,
}

impl Talker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            said: 0,
            last: now,
            long: false,
        }
    }

    /// It wants to talk. Says whether it is a long talker.
    pub(super) fn wants(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.last) >= PAUSE {
            *self = Self::new(now);
        }
        self.long
    }

    /// It has talked.
    pub(super) fn said(&mut self, bytes: u64, link: Rate, now: Instant) {
        let since = now.saturating_duration_since(self.last);
        self.said = self.said.saturating_sub(link.bytes_in(since) / FORGOTTEN) + bytes;
        self.last = now;
        self.long |= self.said > link.bytes_in(LONG).max(LONG_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link() -> Rate {
        Rate::from_bits_per_second(3_000_000).unwrap()
    }

    #[test]
    fn a_transfer_at_the_links_rate_is_noticed_within_two_seconds_and_forgiven_after_a_pause() {
        let start = Instant::now();
        let mut talker = Talker::new(start);
        let talked = (0..).map(|n| start + n * 4 * MS).find(|&now| {
            talker.said(1500, link(), now);
            talker.wants(now)
        });
        let noticed = talked.unwrap() - start;
        assert!(noticed > LONG && noticed < 2 * LONG, "{noticed:?}");
        assert!(talker.wants(start + noticed + PAUSE - MS));
        assert!(!talker.wants(start + noticed + PAUSE));
    }

    #[test]
    fn somebody_who_types_all_day_never_becomes_bulk() {
        let start = Instant::now();
        let mut talker = Talker::new(start);
        for n in 0..100_000 {
            let now = start + n * 50 * MS;
            talker.said(100, link(), now);
            assert!(!talker.wants(now));
        }
    }
}
