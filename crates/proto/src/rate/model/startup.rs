//! Whether a link of which nothing is known is thin, and what it carries if so.

use std::time::{Duration, Instant};

use super::{
    HIGH, MORE, RateModel,
    phase::{Phase, SAME_ROUNDS, STARTUP, drain},
};
use crate::{Rate, rate::round::Lesson};

/// How far apart may be what rounds carry that all carry the same.
const SAME: f64 = 1.5;
/// What is left each round of the most that was carried, while nothing holds the sender back.
const FORGOTTEN: f64 = 0.9;
/// Where round trips are this long, so many rounds without a queue may lie between two with one: a loss makes senders pause
/// for longer than what stands in the queue takes.
const LONG: Duration = Duration::from_millis(200);
const EMPTY_ROUNDS: u32 = 2;

impl RateModel {
    /// A round is over while nothing holds the sender back. `before` is the estimate so far, `carried` what rounds with a queue
    /// have carried, and `empty` how many had none since.
    pub(super) fn start(
        &mut self,
        before: Rate,
        mut carried: [Option<Rate>; SAME_ROUNDS],
        empty: u32,
        lesson: Lesson,
        now: Instant,
    ) -> Phase {
        self.estimate = Some(before.scaled(FORGOTTEN).max(lesson.carried));
        // A queue that is short beside the round trip goes by itself on a link that is not thin.
        let queue = lesson.queue > (self.round_trip() / 8).clamp(HIGH, HIGH * 3 / 2) || lesson.many_lost;
        if !(queue && lesson.used) {
            let most = if self.round_trip() >= LONG { EMPTY_ROUNDS } else { 0 };
            let empty = empty + 1;
            return if empty <= most {
                Phase::Startup { carried, empty }
            } else {
                STARTUP
            };
        }
        carried.rotate_left(1);
        carried[SAME_ROUNDS - 1] = Some(lesson.carried);
        match self.same(&carried, now).filter(|_| self.doubts.may_hold(now)) {
            Some(found) => {
                self.estimate = Some(found);
                self.doubts.hold(now);
                drain(lesson.queue)
            }
            None => Phase::Startup { carried, empty: 0 },
        }
    }

    /// What all these rounds have carried, if that may be what the link carries: not if it has just carried more. Nothing comes
    /// faster out of a queue than the link carries, so that it is the most of them.
    fn same(&self, carried: &[Option<Rate>; SAME_ROUNDS], now: Instant) -> Option<Rate> {
        let [a, b, c] = *carried;
        let (a, b, c) = (a?, b?, c?);
        let (least, most) = (a.min(b).min(c), a.max(b).max(c));
        let more = self.trains.proven(now).is_some_and(|proven| proven > most.scaled(MORE));
        let same = most <= least.scaled(SAME) && most <= self.thin;
        // Where nothing can be proven, nothing is believed.
        Some(most).filter(|_| same && !more && self.trains.can_prove())
    }
}
