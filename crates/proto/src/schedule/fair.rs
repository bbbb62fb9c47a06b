//! Streams of one rank that wait for their turn.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): each turn begins where the stream's turn before ended, in bytes,
//! but not before the queue's own time, which is the beginning of the turn that was granted last. Who has just sent much
//! therefore comes after all others, and who sent nothing for a while comes first and has saved up nothing: sparse and new
//! streams go ahead of those that talk, as in the new list of fq_codel (RFC 8290 section 4.2), and those share evenly.

use std::collections::BTreeMap;

use crate::stream::StreamId;

/// A place in the queue: where the turn begins, and who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    begins: u64,
    number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Fair {
    waiting: BTreeMap<Place, StreamId>,
    time: u64,
    numbers: u64,
}

impl Fair {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A stream whose turn before ended at `ended` waits for its next.
    pub(super) fn push(&mut self, id: StreamId, ended: u64) -> Place {
        let place = Place {
            begins: ended.max(self.time),
            number: self.numbers,
        };
        self.numbers += 1;
        self.waiting.insert(place, id);
        place
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    /// Whose turn it is, and where it begins.
    pub(super) fn pop(&mut self) -> Option<(StreamId, u64)> {
        let (place, id) = self.waiting.pop_first()?;
        self.time = place.begins;
        Some((id, place.begins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes turns of a thousand bytes with streams that always want more.
    fn turns(fair: &mut Fair, count: usize) -> Vec<u64> {
        let turn = |_| {
            let (id, begins) = fair.pop().unwrap();
            fair.push(id, begins + 1_000);
            id.0
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn those_who_talk_take_turns() {
        let mut fair = Fair::default();
        for id in 1..=3 {
            fair.push(StreamId(id), 0);
        }
        assert_eq!(turns(&mut fair, 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn a_new_stream_goes_next_and_has_saved_up_nothing() {
        let mut fair = Fair::default();
        fair.push(StreamId(1), 0);
        fair.push(StreamId(2), 0);
        turns(&mut fair, 101);
        fair.push(StreamId(3), 0);
        assert_eq!(turns(&mut fair, 6), [2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn who_leaves_the_queue_has_no_turn() {
        let mut fair = Fair::default();
        let place = fair.push(StreamId(1), 0);
        fair.push(StreamId(2), 0);
        fair.remove(place);
        assert_eq!(fair.pop(), Some((StreamId(2), 0)));
        assert!(fair.is_empty());
    }
}
