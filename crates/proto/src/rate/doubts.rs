//! Whether it is the link that makes round trips longer, or a machine that is busy with other things.

use std::time::{Duration, Instant};

/// Round trips that turn from longer to shorter or back by this much, so often, with at most so many rounds in between, are
/// not those of a queue that senders fill and drain.
const TURN: Duration = Duration::from_millis(20);
const TURNS: u32 = 6;
const TURN_ROUNDS: u32 = 4;
/// How long a link that was let go is left alone, at first, and at most: twice as long each time.
const LET_GO: Duration = Duration::from_secs(1);
const LET_GO_LONGEST: Duration = Duration::from_secs(60);
/// Without doubts for so long, it is as if there had never been any.
const SETTLED: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(super) struct Doubts {
    /// The round trip of the round before.
    before: Option<Duration>,
    /// Whether it went up when it last changed much.
    rises: bool,
    turns: u32,
    /// Rounds since the turn before.
    since_turn: u32,
    /// When the link was last taken for thin.
    held: Instant,
    /// Not to be held before.
    free_until: Instant,
    let_go_for: Duration,
}

impl Doubts {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            before: None,
            rises: false,
            turns: 0,
            since_turn: 0,
            held: now,
            free_until: now,
            let_go_for: LET_GO,
        }
    }

    /// Whether the link may be taken for thin again.
    pub(super) fn may_hold(&self, now: Instant) -> bool {
        now >= self.free_until
    }

    /// The link is taken for thin.
    pub(super) fn hold(&mut self, now: Instant) {
        self.held = now;
        self.turns = 0;
        self.before = None;
    }

    /// It was wrong to.
    pub(super) fn let_go(&mut self, now: Instant) {
        if now.saturating_duration_since(self.held) >= SETTLED {
            self.let_go_for = LET_GO;
        }
        self.free_until = now + self.let_go_for;
        self.let_go_for = (self.let_go_for * 2).min(LET_GO_LONGEST);
    }

    /// A round is over while the link is taken for thin; whether there is too much doubt.
    pub(super) fn see(&mut self, round_trip: Duration) -> bool {
        let before = self.before.replace(round_trip).unwrap_or(round_trip);
        self.since_turn += 1;
        let rises = round_trip > before;
        if round_trip.abs_diff(before) < TURN || rises == self.rises {
            return false;
        }
        self.rises = rises;
        self.turns = if self.since_turn <= TURN_ROUNDS {
            self.turns + 1
        } else {
            1
        };
        self.since_turn = 0;
        self.turns >= TURNS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn round_trips_that_jump_up_and_down_raise_doubts() {
        let mut doubts = Doubts::new(Instant::now());
        let seen = [20, 70, 30, 90, 40, 60, 10, 50].map(|ms| doubts.see(ms * MS));
        assert_eq!(seen, [false, false, false, false, false, false, true, true]);
    }

    #[test]
    fn a_queue_that_is_filled_and_drained_raises_none() {
        let mut doubts = Doubts::new(Instant::now());
        for ms in [
            60, 100, 160, 230, 200, 150, 100, 60, 62, 66, 70, 61, 60, 64, 80, 62, 60, 61, 63, 82,
        ] {
            assert!(!doubts.see(ms * MS), "{ms}");
        }
    }

    #[test]
    fn a_link_is_left_alone_for_longer_each_time_that_it_was_wrongly_held() {
        let start = Instant::now();
        let mut doubts = Doubts::new(start);
        doubts.hold(start);
        doubts.let_go(start);
        assert!(!doubts.may_hold(start + 999 * MS));
        assert!(doubts.may_hold(start + LET_GO));
        doubts.hold(start + LET_GO);
        doubts.let_go(start + LET_GO);
        assert!(!doubts.may_hold(start + 2_999 * MS));
        assert!(doubts.may_hold(start + LET_GO * 3));
        // It was right for a while.
        doubts.hold(start);
        doubts.let_go(start + SETTLED);
        assert!(doubts.may_hold(start + SETTLED + LET_GO));
    }
}
