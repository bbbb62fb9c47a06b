//! The least, or the most, of what was seen lately.

use std::time::{Duration, Instant};

use super::Rate;

/// What was seen in the last `span`, and in the one before it.
#[derive(Debug, Clone)]
struct Lately<T> {
    span: Duration,
    began: Instant,
    current: Option<T>,
    before: Option<T>,
}

impl<T: Copy> Lately<T> {
    fn new(span: Duration, now: Instant) -> Self {
        Self {
            span,
            began: now,
            current: None,
            before: None,
        }
    }

    /// Keeps of the values of a span the one that is chosen of each two.
    fn see(&mut self, value: T, now: Instant, choose: impl Fn(T, T) -> T) {
        let age = now.saturating_duration_since(self.began);
        if age >= self.span {
            self.before = self.current.take().filter(|_| age < self.span * 2);
            self.began = now;
        }
        self.current = Some(self.current.map_or(value, |kept| choose(kept, value)));
    }
}

/// The least of the last `span` to twice as much.
#[derive(Debug, Clone)]
pub(super) struct LeastLately(Lately<Duration>);

impl LeastLately {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        Self(Lately::new(span, now))
    }

    pub(super) fn see(&mut self, value: Duration, now: Instant) {
        self.0.see(value, now, Duration::min);
    }

    /// Whether nothing was seen of late.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.get().is_none() || now.saturating_duration_since(self.0.began) >= self.0.span * 2
    }

    pub(super) fn get(&self) -> Option<Duration> {
        [self.0.current, self.0.before].into_iter().flatten().min()
    }
}

/// The most of the last `span` to twice as much.
#[derive(Debug, Clone)]
pub(super) struct MostLately(Lately<Rate>);

impl MostLately {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        Self(Lately::new(span, now))
    }

    pub(super) fn see(&mut self, value: Rate, now: Instant) {
        self.0.see(value, now, Rate::max);
    }

    pub(super) fn get(&self, now: Instant) -> Option<Rate> {
        let Lately {
            span,
            began,
            current,
            before,
        } = self.0;
        let age = now.saturating_duration_since(began);
        if age >= span * 2 {
            None
        } else if age >= span {
            current
        } else {
            current.max(before)
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
