//! What was sent and may be needed again, and what the peer is told of what arrived.
//!
//! A position counts the bytes of a direction, and its clean end as one more, as TCP counts a FIN. Acknowledgements are
//! batched: they say nothing that anybody waits for while the carrier lives.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tunnel_model::Class;

use super::{Event, Session, Stale, Violation};
use crate::{Control, Position, StreamId};

/// How much of what was sent is kept until the peer has it, in bytes. More has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Of one stream.
    pub stream: usize,
    /// Of all streams together.
    pub session: usize,
    /// What each stream may have even if the others have used up all that is for all.
    pub reserve: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self {
            stream: 1024 * 1024,
            session: 4 * 1024 * 1024,
            reserve: 32 * 1024,
        }
    }
}

/// Acknowledgements go out when so much has arrived, in bytes. Well below a stream's replay buffer, or its sender waits.
const ACK_EVERY: usize = 256 * 1024;
/// Or when so many directions have ended.
const ACK_ENDS: usize = 64;
/// Or this long after the first byte, unless little more than it has come.
const ACK_DELAY: Duration = Duration::from_millis(200);
/// What is little, in bytes: less than the reserve of a sender's stream, so that none waits for room meanwhile.
const ACK_LITTLE: usize = 16 * 1024;
/// A little is acknowledged this long after its first byte, if no data has gone the other way since [`ACK_DELAY`], which
/// would have taken it along. A packet of its own would cost a link that carries little more than it carries: the bytes
/// are kept for longer, and at most they come twice after an outage.
const ACK_IDLE: Duration = Duration::from_secs(20);
/// Positions in one message; each takes at most 24 bytes.
pub(super) const MAX_POSITIONS: usize = 2048;

#[derive(Debug)]
pub(super) struct Acks {
    limits: ReplayLimits,
    /// Bytes that are kept, of all streams.
    kept: usize,
    /// Streams whose senders found no room.
    blocked: Vec<StreamId>,
    /// What the peer is still to be told, also of streams that are forgotten already.
    owed: BTreeMap<StreamId, u64>,
    owed_bytes: usize,
    owed_ends: usize,
    /// Since when something is owed.
    since: Option<Instant>,
}

impl Acks {
    pub(super) fn new(limits: ReplayLimits) -> Self {
        Self {
            limits,
            kept: 0,
            blocked: Vec::new(),
            owed: BTreeMap::new(),
            owed_bytes: 0,
            owed_ends: 0,
            since: None,
        }
    }

    /// When what is owed is to be said.
    pub(super) fn due(&self) -> Option<Instant> {
        let little = self.owed_bytes < ACK_LITTLE && self.owed_ends == 0;
        self.since
            .map(|since| since + if little { ACK_IDLE } else { ACK_DELAY })
    }

    /// Nothing is owed on a carrier that is gone: the next one begins with all positions.
    pub(super) fn forgive(&mut self) {
        self.owed.clear();
        (self.owed_bytes, self.owed_ends, self.since) = (0, 0, None);
    }

    /// Nothing is kept any more, and nobody waits for room.
    pub(super) fn released_all(&mut self) {
        self.kept = 0;
        self.blocked.clear();
    }

    /// So many bytes are kept no more.
    pub(super) fn released(&mut self, bytes: usize) {
        self.kept -= bytes;
    }
}

impl Session {
    /// How much of what a stream wants to send may be given to this carrier now, in bytes. Where it is nothing of something,
    /// [`Event::Room`] will come; else [`Self::sent`] is to follow.
    ///
    /// # Errors
    /// The carrier is not the session's any more, or the stream is over.
    pub fn room(&mut self, id: StreamId, carrier: u64, want: usize, now: Instant) -> Result<usize, Stale> {
        self.require(carrier)?;
        let stream = self.streams.get_mut(&id).ok_or(Stale)?;
        if want == 0 {
            return Ok(0);
        }
        let limits = &self.acks.limits;
        let kept = stream.replay.len();
        let shared = limits
            .stream
            .saturating_sub(kept)
            .min(limits.session.saturating_sub(self.acks.kept));
        let room = shared.max(limits.reserve.saturating_sub(kept)).min(want);
        if room == 0 && !stream.blocked {
            stream.blocked = true;
            self.acks.blocked.push(id);
        }
        if room == 0 || !self.is_paced() {
            return Ok(room);
        }
        Ok(self.turn(id, room, now))
    }

    /// Notes data that was given to this carrier, and keeps it until the peer has it; none, if the carrier took none.
    ///
    /// # Errors
    /// As of [`Self::room`], which must have been asked right before.
    pub fn sent(&mut self, id: StreamId, carrier: u64, data: Bytes, now: Instant) -> Result<(), Stale> {
        self.require(carrier)?;
        if self.acks.since.is_some_and(|since| since + ACK_DELAY <= now) {
            self.flush_acks();
        }
        let stream = self.streams.get_mut(&id).ok_or(Stale)?;
        let bytes = data.len();
        if bytes > 0 {
            self.acks.kept += bytes;
            stream.replay.push(data);
            self.moved[stream.class as usize] += bytes as u64;
        }
        if self.is_paced() {
            self.turn_taken(id, bytes);
        }
        Ok(())
    }

    /// Notes that so much data came from this carrier and will be passed on, in bytes.
    ///
    /// # Errors
    /// The carrier is not the session's any more, or the stream is over: what came is to be thrown away. If the stream
    /// goes on, it comes again.
    pub fn received(&mut self, id: StreamId, carrier: u64, bytes: usize, now: Instant) -> Result<(), Stale> {
        self.require(carrier)?;
        let stream = self.streams.get_mut(&id).ok_or(Stale)?;
        stream.received += bytes as u64;
        self.moved[stream.class as usize] += bytes as u64;
        if bytes > 0 {
            let before = self.acks.due();
            self.acks.owed.insert(id, stream.received);
            self.acks.owed_bytes += bytes;
            self.acknowledge_soon(now, before);
        }
        Ok(())
    }

    /// Bytes of data that streams have moved both ways since this was last asked, by class in the order of [`Class::ALL`].
    /// What is sent again on another carrier counts once.
    pub fn take_moved(&mut self) -> [u64; Class::ALL.len()] {
        let mut since = self.moved;
        for (since, told) in since.iter_mut().zip(self.moved_told) {
            *since -= told;
        }
        self.moved_told = self.moved;
        since
    }

    /// The same of all classes together, since the session began.
    pub fn moved(&self) -> u64 {
        self.moved.iter().sum()
    }

    /// Notes that a direction has ended cleanly at this position.
    pub(super) fn owe_end(&mut self, id: StreamId, position: u64, now: Instant) {
        let before = self.acks.due();
        self.acks.owed.insert(id, position);
        self.acks.owed_ends += 1;
        self.acknowledge_soon(now, before);
    }

    /// Has what is owed said in time; `before` is when it was due until now.
    fn acknowledge_soon(&mut self, now: Instant, before: Option<Instant>) {
        let ends = if self.leaving { 1 } else { ACK_ENDS };
        self.acks.since.get_or_insert(now);
        if self.acks.owed_bytes >= ACK_EVERY || self.acks.owed_ends >= ends {
            self.flush_acks();
        } else if self.acks.due() != before {
            self.timer_moved = true;
        }
    }

    pub(super) fn flush_acks(&mut self) {
        let owed: Vec<_> = std::mem::take(&mut self.acks.owed)
            .into_iter()
            .map(|(id, received)| Position { id, received })
            .collect();
        self.acks.forgive();
        for some in owed.chunks(MAX_POSITIONS) {
            self.queue(&Control::Acks(some.to_vec()));
        }
    }

    pub(super) fn handle_acks(&mut self, positions: &[Position]) -> Result<(), Violation> {
        for position in positions {
            self.acknowledged(*position)?;
        }
        self.make_room();
        Ok(())
    }

    /// Takes a position that the peer says it has reached. Of a stream that is over it is stale news.
    pub(super) fn acknowledged(&mut self, position: Position) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&position.id) else {
            return Ok(());
        };
        let (id, end) = (position.id, stream.replay.end());
        let whole = stream.ended && position.received == end + 1;
        let bytes = if whole { end } else { position.received };
        let Ok(released) = stream.replay.acknowledged(bytes) else {
            return Err(Violation::protocol(format!(
                "stream {id}: what was never sent was acknowledged"
            )));
        };
        stream.acknowledged |= whole;
        let done = stream.over && stream.acknowledged;
        self.acks.kept -= released;
        if done {
            self.forget(id);
        }
        Ok(())
    }

    /// Has those try again who found no room.
    pub(super) fn make_room(&mut self) {
        for id in std::mem::take(&mut self.acks.blocked) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.blocked = false;
                self.events.push_back(Event::Room(id));
            }
        }
    }
}
