//! Which of the peer's stream ids have been used, in little memory although they come out of order.

use std::collections::BTreeSet;

use crate::stream::StreamId;

/// Streams may overtake each other by this many before a missing one counts as never to come.
const MAX_AHEAD: usize = 4096;

/// The peer's ids are handed out in steps of two, so that nearly all of them lie below one mark.
#[derive(Debug)]
pub(crate) struct SeenIds {
    /// Every id below has been used.
    next: u64,
    /// Ids above `next` that have been used.
    ahead: BTreeSet<u64>,
}

impl SeenIds {
    pub(crate) fn starting_at(first: StreamId) -> Self {
        Self {
            next: first.0,
            ahead: BTreeSet::new(),
        }
    }

    pub(crate) fn contains(&self, id: StreamId) -> bool {
        id.0 < self.next || self.ahead.contains(&id.0)
    }

    /// Notes an id; `false` if it was used before.
    pub(crate) fn insert(&mut self, id: StreamId) -> bool {
        if id.0 < self.next || !self.ahead.insert(id.0) {
            return false;
        }
        if self.ahead.len() > MAX_AHEAD
            && let Some(&lowest) = self.ahead.first()
        {
            self.next = lowest;
        }
        while self.ahead.remove(&self.next) {
            self.next += 2;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_new_once_in_whatever_order_they_come() {
        let mut seen = SeenIds::starting_at(StreamId(2));
        for id in [2, 8, 4, 6, 12] {
            assert!(!seen.contains(StreamId(id)));
            assert!(seen.insert(StreamId(id)));
            assert!(!seen.insert(StreamId(id)));
        }
        assert!(!seen.contains(StreamId(10)));
        assert_eq!((seen.next, seen.ahead.len()), (10, 1));
    }

    /// B6
    #[test]
    fn a_hundred_thousand_gaps_take_bounded_memory() {
        let mut seen = SeenIds::starting_at(StreamId(1));
        for i in 0..100_000 {
            assert!(seen.insert(StreamId(1 + 4 * i)));
            assert!(seen.ahead.len() <= MAX_AHEAD + 1);
        }
    }
}
