//! The least of what was seen lately.

use std::time::{Duration, Instant};

use super::Rate;

/// The least of the last `span` to twice as much.
#[derive(Debug, Clone)]
pub(super) struct LeastLately {
    span: Duration,
    began: Instant,
    current: Option<Duration>,
    before: Option<Duration>,
}

impl LeastLately {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        Self {
            span,
            began: now,
            current: None,
            before: None,
        }
    }

    pub(super) fn see(&mut self, value: Duration, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= self.span {
            self.before = self.current.take().filter(|_| age < self.span * 2);
            self.began = now;
        }
        self.current = Some(self.current.map_or(value, |least| least.min(value)));
    }

    pub(super) fn get(&self) -> Option<Duration> {
        [self.current, self.before].into_iter().flatten().min()
    }
}

/// The most of the last `span` to twice as much.
#[derive(Debug, Clone)]
pub(super) struct MostLately {
    span: Duration,
    began: Instant,
    current: Option<Rate>,
    before: Option<Rate>,
}

impl MostLately {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        Self {
            span,
            began: now,
            current: None,
            before: None,
        }
    }

    pub(super) fn see(&mut self, value: Rate, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= self.span {
            self.before = self.current.take().filter(|_| age < self.span * 2);
            self.began = now;
        }
        self.current = self.current.max(Some(value));
    }

    pub(super) fn get(&self, now: Instant) -> Option<Rate> {
        let age = now.saturating_duration_since(self.began);
        if age >= self.span * 2 {
            None
        } else if age >= self.span {
            self.current
        } else {
            self.current.max(self.before)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_least_is_forgotten_after_one_to_two_spans() {
        let start = Instant::now();
        let mut least = LeastLately::new(10 * S, start);
        assert_eq!(least.get(), None);
        least.see(S, start);
        least.see(3 * S, start + 9 * S);
        assert_eq!(least.get(), Some(S));
        least.see(3 * S, start + 11 * S);
        assert_eq!(least.get(), Some(S));
        least.see(3 * S, start + 22 * S);
        assert_eq!(least.get(), Some(3 * S));
    }

    #[test]
    fn a_long_silence_is_forgotten_whole() {
        let start = Instant::now();
        let mut least = LeastLately::new(10 * S, start);
        least.see(S, start);
        least.see(2 * S, start + 60 * S);
        assert_eq!(least.get(), Some(2 * S));
    }

    #[test]
    fn the_most_is_forgotten_after_one_to_two_spans_also_if_nothing_comes() {
        let start = Instant::now();
        let rate = |bits| Rate::from_bits_per_second(bits);
        let mut most = MostLately::new(2 * S, start);
        assert_eq!(most.get(start), None);
        most.see(rate(5_000).unwrap(), start);
        most.see(rate(3_000).unwrap(), start + 3 * S);
        assert_eq!(most.get(start + 3 * S), rate(5_000));
        assert_eq!(most.get(start + 5 * S), rate(3_000));
        assert_eq!(most.get(start + 7 * S), None);
    }
}
