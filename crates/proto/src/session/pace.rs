//! Turns to send, where it is known what the link carries. Where it is not, nothing here has any effect.

use std::time::Instant;

use super::{Event, Session, Side, Violation};
use crate::{Control, Packets, Rate, Scheduler, StreamId, Turn};

/// Of what the link carries.
const HELD_TO: f64 = 0.98;

/// How a stream stands with the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It has not asked, or has had its turn.
    None,
    /// [`Event::Room`] is to come.
    Queued,
    /// It may send so much.
    Granted(usize),
}

impl Session {
    /// What the link carries, as somebody knows who has it: `up` is held to here, `down` is what the gateway is told to hold
    /// to; without, everybody sends as fast as the carrier takes it. The gateway is told on each carrier, and a gateway has no
    /// `down`.
    pub fn set_rates(&mut self, up: Option<Rate>, down: Option<Rate>, now: Instant) {
        let told = std::mem::replace(&mut self.down, down);
        if told != down {
            self.queue(&Control::Pace(down));
        }
        self.change_rates(up, self.measured, now);
    }

    /// What the link carries, as somebody said who has it.
    pub fn told_rate(&self) -> Option<Rate> {
        self.told
    }

    /// What may be sent, as was measured.
    pub fn measured_rate(&self) -> Option<Rate> {
        self.measured
    }

    /// What may be sent over a link of which nobody has said what it carries, as was measured; without, everybody sends as
    /// fast as the carrier takes it. What was told goes before.
    pub fn set_measured(&mut self, rate: Option<Rate>, now: Instant) {
        self.change_rates(self.told, rate, now);
    }

    /// Whether streams wait for their turns.
    pub(super) fn is_paced(&self) -> bool {
        self.pace().is_some()
    }

    /// What is held to here; `None` where streams do not wait for their turns.
    pub fn pace(&self) -> Option<Rate> {
        self.told.map(held_to).or(self.measured)
    }

    /// The size of packets on the carrier; bytes that have taken room on its link since the last call and had no turn; and
    /// those that had one and took no room. In whole packets. Nothing needs to call this where streams do not wait for turns.
    pub fn set_link(&mut self, packets: Packets, beside: u64, unused: u64, now: Instant) {
        self.schedule.set_packets(packets);
        self.schedule.spend(beside, now);
        self.schedule.refund(unused);
    }

    /// Bytes on the link that streams were given turns for since this was asked last, in whole packets.
    pub fn take_turned(&mut self) -> u64 {
        self.schedule.take_granted()
    }

    fn change_rates(&mut self, told: Option<Rate>, measured: Option<Rate>, now: Instant) {
        let before = self.pace();
        (self.told, self.measured) = (told, measured);
        let pace = self.pace();
        if pace == before {
            return;
        }
        if before.is_none() || pace.is_none() {
            self.begin_turns(now);
        } else {
            self.schedule.set_rate(pace, now);
            self.take_turns();
        }
        self.timer_moved = true;
    }

    /// On a new carrier: the edge says again what it wants, and the gateway knows of nothing until then.
    pub(super) fn pace_anew(&mut self, now: Instant) {
        let told = match self.side {
            Side::Edge => self.told,
            Side::Gateway => None,
        };
        if self.side == Side::Edge && self.down.is_some() {
            self.queue(&Control::Pace(self.down));
        }
        self.change_rates(told, None, now);
    }

    /// A lie here hurts nobody but the edge that tells it.
    pub(super) fn handle_pace(&mut self, rate: Option<Rate>, now: Instant) -> Result<(), Violation> {
        if self.side == Side::Edge {
            return Err(Violation::protocol("an edge is not told what its link carries"));
        }
        if !self.peer_paces.take(now) {
            return Err(Violation::protocol("too many rates"));
        }
        self.change_rates(rate.map(|rate| rate.max(Rate::LEAST)), self.measured, now);
        Ok(())
    }

    /// Has everybody ask again, of a scheduler that knows nobody.
    pub(super) fn begin_turns(&mut self, now: Instant) {
        self.schedule = Scheduler::new(self.config.schedule.clone(), now);
        self.schedule.set_rate(self.pace(), now);
        for (&id, stream) in &mut self.streams {
            if std::mem::replace(&mut stream.turn, Wait::None) == Wait::Queued {
                self.events.push_back(Event::Room(id));
            }
        }
    }

    /// How much of what a stream wants to send it may send now, in bytes.
    pub(super) fn turn(&mut self, id: StreamId, want: usize, now: Instant) -> usize {
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        if let Wait::Granted(bytes) = std::mem::replace(&mut stream.turn, Wait::None) {
            return bytes.min(want);
        }
        let turn = self.schedule.request(id, stream.class, want, now);
        let bytes = match turn {
            Turn::Granted(bytes) => bytes.min(want),
            Turn::Queued => {
                stream.turn = Wait::Queued;
                self.timer_moved = true;
                0
            }
        };
        self.take_turns();
        bytes
    }

    /// A stream has sent so much, in its turn. The turns of others may come sooner than it was thought.
    pub(super) fn turn_taken(&mut self, id: StreamId, bytes: usize) {
        self.schedule.sent(id, bytes);
        self.timer_moved = true;
    }

    /// Time has passed: has those send whose turn has come.
    pub(super) fn give_turns(&mut self, now: Instant) {
        self.schedule.handle_timeout(now);
        self.take_turns();
    }

    fn take_turns(&mut self) {
        while let Some((id, bytes)) = self.schedule.poll_ready() {
            match self.streams.get_mut(&id) {
                Some(stream) => {
                    stream.turn = Wait::Granted(bytes);
                    self.events.push_back(Event::Room(id));
                }
                None => self.schedule.remove(id),
            }
        }
    }
}

/// A little less than the link carries: the queue before it empties again, whatever came to stand there.
fn held_to(rate: Rate) -> Rate {
    rate.scaled(HELD_TO)
}
