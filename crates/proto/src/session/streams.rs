//! Streams of a session: opened, accepted, ended, reset.

use std::time::Instant;

use bytes::Bytes;
use tunnel_model::{Class, Reason, Refusal, Target};

use super::{Event, Session, Side, Violation, pace::Wait, resume::Attach};
use crate::{
    Control, Fate, Header, Open, OpenReply, StreamId,
    message::{decode_reply, encode_reply},
    replay::Replay,
    stream::{Input, Outcome, Receiving, cut},
};

/// Ends and resets that may be known before their stream is.
const MAX_EARLY: usize = 1024;

/// A stream cannot be opened now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no carrier.
    #[error("the session has no carrier")]
    NotConnected,
    /// One of the peers is about to leave.
    #[error("the session is being drained")]
    Draining,
}

/// What was done or learned on a carrier that is not the session's any more, or for a stream that is over, counts for
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the carrier or the stream is of the past")]
pub struct Stale;

/// What a carrier stream's first frame led to.
#[derive(Debug)]
pub enum Incoming {
    /// The peer wants this. Answer with [`Session::accept`] or [`Session::refuse`].
    Stream {
        /// The stream.
        id: StreamId,
        /// What it is for.
        open: Open,
    },
    /// A stream that was there on an earlier carrier goes on.
    Resumed(Attach),
    /// It was refused already: write this and finish the carrier stream.
    Refused(Bytes),
}

/// A stream. It is forgotten once both directions are done, and the peer is known to know it.
#[derive(Debug)]
pub(super) struct Stream {
    /// What it is for, until the peer has answered; only of streams that were opened here.
    pub(super) open: Option<Box<Open>>,
    /// Of a stream that the peer opened: our good answer is on its way.
    pub(super) accepted: bool,
    /// The last carrier that had a stream for it.
    pub(super) carrier: u64,
    /// The peer said on the carrier of now that it has the stream.
    pub(super) listed: bool,
    /// What was sent.
    pub(super) replay: Replay,
    /// The sending direction has ended.
    pub(super) ended: bool,
    /// The peer has all of it, and its end.
    pub(super) acknowledged: bool,
    pub(super) receiving: Receiving,
    /// Bytes of data that came.
    pub(super) received: u64,
    /// Until when the announcement of the end is awaited.
    pub(super) grace: Option<Instant>,
    /// Both directions have ended here: nobody at this end has anything to do with it.
    pub(super) over: bool,
    /// Its sender waits for room.
    pub(super) blocked: bool,
    /// Its rank.
    pub(super) class: Class,
    /// Its turn to send.
    pub(super) turn: Wait,
}

/// What was said of a stream before its header was read: the control stream may overtake it.
#[derive(Debug)]
pub(super) enum Early {
    End(u64),
    /// The sentence beside it is the peer's own: it is not kept.
    Reset(Reason),
}

impl Session {
    /// Whether this is the session's carrier.
    pub(super) fn require(&self, carrier: u64) -> Result<(), Stale> {
        if self.carrier == carrier && self.is_up() {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    /// How many streams are open: those with a direction that has not ended here.
    pub fn open_streams(&self) -> usize {
        self.open
    }

    /// How many of them somebody may be typing on.
    pub fn interactive_streams(&self) -> usize {
        let typed = |stream: &&Stream| stream.class == Class::Interactive && !stream.over;
        self.streams.values().filter(typed).count()
    }

    /// Opens a stream: write the bytes first on a new stream of the carrier, data may follow at once.
    pub fn open(&mut self, open: &Open) -> Result<(StreamId, Bytes), OpenError> {
        if !self.is_up() {
            return Err(OpenError::NotConnected);
        }
        if self.leaving {
            return Err(OpenError::Draining);
        }
        let id = self.next_id;
        self.next_id.0 += 2;
        self.insert(id, Stream::opened(open, self.carrier));
        let (open, again) = (open.clone(), false);
        Ok((id, Header::Open { id, open, again }.encode()))
    }

    fn insert(&mut self, id: StreamId, stream: Stream) {
        self.streams.insert(id, stream);
        self.open += 1;
        // The keepalive may begin with the first.
        self.timer_moved |= self.open == 1;
        if id.opener() != self.side {
            self.peer_open += 1;
        }
    }

    /// Takes the first frame of the acceptor's direction of a stream that we opened, on each carrier.
    pub fn handle_reply(&mut self, id: StreamId, frame: &[u8]) -> Result<OpenReply, Violation> {
        let reply = decode_reply(frame).map_err(|e| Violation::protocol(format!("answer to open: {e}")))?;
        if reply.is_err() {
            self.forget(id);
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.open = None;
        }
        Ok(reply)
    }

    /// Takes the first frame of a stream that the peer opened on this carrier.
    pub fn handle_open(&mut self, frame: &[u8], carrier: u64) -> Result<Incoming, Violation> {
        let header = Header::decode(frame).map_err(|e| Violation::protocol(format!("stream header: {e}")))?;
        if self.require(carrier).is_err() {
            return Ok(Incoming::Refused(encode_reply(&Err(cut()))));
        }
        let (id, mut open, again) = match header {
            Header::Open { id, open, again } => (id, open, again),
            Header::Resume(position) => return self.handle_reattached(position),
        };
        if id.opener() != self.side.peer() {
            return Err(Violation::protocol(format!("stream id {id} is not the peer's to use")));
        }
        if !self.seen.insert(id) {
            if again {
                return Ok(Incoming::Refused(encode_reply(&Err(self.gone.why(id)))));
            }
            return Err(Violation::protocol(format!("stream id {id} was used twice")));
        }
        let early = self.early.remove(&id);
        if let Some(refusal) = self.reason_to_refuse(&open) {
            self.gone.note(id, &refusal);
            return Ok(Incoming::Refused(encode_reply(&Err(refusal))));
        }
        // What is sent of it here must not pass for the session's own messages.
        open.class = open.class.max(Class::Interactive);
        let mut stream = Stream::new(open.class, carrier);
        match early {
            Some(Early::Reset(reason)) => {
                let refusal = Refusal::new(reason, "the stream was void before it was opened");
                return Ok(Incoming::Refused(encode_reply(&Err(refusal))));
            }
            Some(Early::End(offset)) => {
                stream.receiving.on(Input::Announced(offset));
            }
            None => {}
        }
        self.insert(id, stream);
        Ok(Incoming::Stream { id, open })
    }

    fn reason_to_refuse(&self, open: &Open) -> Option<Refusal> {
        if self.leaving {
            return Some(Refusal::new(Reason::Draining, "this end is about to stop; try again"));
        }
        if self.peer_open >= self.config.max_streams {
            let message = format!("{} streams are open already", self.peer_open);
            return Some(Refusal::new(Reason::Overloaded, message));
        }
        // An edge may name a service of the cloud or of another edge; where that is, others know and the opener does not.
        if self.side == Side::Gateway && !matches!(open.target, Target::Service(_)) {
            return Some(Refusal::new(
                Reason::Denied,
                "an edge names services, never destinations",
            ));
        }
        None
    }

    /// The target is there: write these bytes before any data, if the carrier's stream is still there. `None` if the
    /// stream was reset meanwhile.
    pub fn accept(&mut self, id: StreamId) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        stream.accepted = true;
        Some(encode_reply(&Ok(())))
    }

    /// The target cannot be had: write these bytes and finish the carrier stream.
    pub fn refuse(&mut self, id: StreamId, refusal: &Refusal) -> Bytes {
        if self.forget(id) {
            self.gone.note(id, refusal);
        }
        encode_reply(&Err(refusal.clone()))
    }

    /// Ends the direction that we send, here. The carrier stream is to be finished too; without a carrier, the next one's.
    pub fn finish(&mut self, id: StreamId) {
        let offset = match self.streams.get_mut(&id) {
            Some(stream) if !stream.ended => {
                stream.ended = true;
                stream.replay.end()
            }
            _ => return,
        };
        self.schedule.remove(id);
        self.queue(&Control::End { id, offset });
        self.note_over(id);
    }

    /// Whether the direction that we send has ended.
    pub fn is_finished(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(|stream| stream.ended)
    }

    /// Makes both directions void. The carrier stream is to be reset too. Does nothing to a stream that has ended.
    pub fn reset(&mut self, id: StreamId, refusal: &Refusal) {
        if self.streams.get(&id).is_some_and(|stream| !stream.over) {
            self.void(id, refusal);
        }
    }

    /// How many streams are open, by class, in the order of [`Class::ALL`].
    pub fn open_by_class(&self) -> [usize; Class::ALL.len()] {
        let mut open = [0; Class::ALL.len()];
        for stream in self.streams.values().filter(|stream| !stream.over) {
            open[stream.class as usize] += 1;
        }
        open
    }

    /// Breaks every stream of a class that has not ended, at both ends.
    pub fn cut_class(&mut self, class: Class, refusal: &Refusal) {
        let of_class = |stream: &Stream| stream.class == class && !stream.over;
        let streams = self.streams.iter().filter(|(_, stream)| of_class(stream));
        let ids: Vec<_> = streams.map(|(id, _)| *id).collect();
        for id in ids {
            self.void(id, refusal);
            let refusal = refusal.clone();
            self.events.push_back(Event::Broken { id, refusal });
        }
    }

    fn void(&mut self, id: StreamId, refusal: &Refusal) {
        self.forget(id);
        self.gone.note(id, refusal);
        self.queue(&Control::Reset {
            id,
            refusal: refusal.clone(),
        });
    }

    /// What it means that this carrier's stream has ended, all its data being noted.
    ///
    /// # Errors
    /// As of [`Session::received`].
    pub fn carrier_stream_ended(&mut self, id: StreamId, carrier: u64, now: Instant) -> Result<Fate, Stale> {
        self.require(carrier)?;
        let grace = now + self.config.end_grace;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(Stale);
        };
        Ok(match stream.receiving.on(Input::CarrierEnded(stream.received)) {
            Outcome::Wait => {
                stream.grace = Some(grace);
                self.graces.insert((grace, id));
                self.timer_moved = true;
                Fate::Pending
            }
            Outcome::Clean => {
                self.direction_done(id, now);
                Fate::Finished
            }
            Outcome::Cut | Outcome::Violation => {
                let refusal = cut();
                self.void(id, &refusal);
                Fate::Broken(refusal)
            }
        })
    }

    pub(super) fn handle_end(&mut self, id: StreamId, offset: u64, now: Instant) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else {
            self.note_early(id, Early::End(offset));
            return Ok(());
        };
        match stream.receiving.on(Input::Announced(offset)) {
            Outcome::Wait => {}
            Outcome::Clean => {
                self.events.push_back(Event::Received { id, end: Ok(()) });
                self.direction_done(id, now);
            }
            Outcome::Cut => self.break_received(id),
            Outcome::Violation => return Err(Violation::protocol(format!("stream {id} ended twice or short"))),
        }
        Ok(())
    }

    pub(super) fn handle_reset(&mut self, id: StreamId, refusal: Refusal, now: Instant) -> Result<(), Violation> {
        // Opening and resetting is what costs; streams that we opened are bounded by ourselves.
        if id.opener() != self.side && !self.peer_resets.take(now) {
            return Err(Violation::protocol("too many streams were reset"));
        }
        match self.streams.get(&id) {
            // Nobody here waits for anything of it.
            Some(stream) if stream.over => drop(self.forget(id)),
            Some(_) => {
                self.events.push_back(Event::Broken { id, refusal });
                self.forget(id);
            }
            None => self.note_early(id, Early::Reset(refusal.reason)),
        }
        Ok(())
    }

    /// Remembers what was said of a stream of the peer's that is still on its way; of any other it is stale news.
    fn note_early(&mut self, id: StreamId, early: Early) {
        if id.opener() == self.side || self.seen.contains(id) {
            return;
        }
        if self.early.len() == MAX_EARLY {
            self.early.pop_first();
        }
        self.early.insert(id, early);
    }

    pub(super) fn end_graces(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.graces.first()
            && at <= now
        {
            self.graces.pop_first();
            let outcome = self.streams.get_mut(&id).map(|s| s.receiving.on(Input::GraceOver));
            if outcome == Some(Outcome::Cut) {
                self.break_received(id);
            }
        }
    }

    fn break_received(&mut self, id: StreamId) {
        let refusal = cut();
        self.events.push_back(Event::Received {
            id,
            end: Err(refusal.clone()),
        });
        self.void(id, &refusal);
    }

    pub(super) fn break_all(&mut self, refusal: &Refusal) {
        let mut ids: Vec<_> = self
            .streams
            .drain()
            .filter(|(_, stream)| !stream.over)
            .map(|(id, _)| id)
            .collect();
        ids.sort_unstable();
        (self.open, self.peer_open) = (0, 0);
        self.schedule.clear();
        self.acks.released_all();
        self.events.extend(ids.into_iter().map(|id| Event::Broken {
            id,
            refusal: refusal.clone(),
        }));
    }

    fn direction_done(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.receiving = Receiving::Done;
        if let Some(grace) = stream.grace.take() {
            self.graces.remove(&(grace, id));
        }
        let position = stream.position();
        self.note_over(id);
        self.owe_end(id, position, now);
    }

    /// A direction has ended here.
    fn note_over(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.ended && stream.receiving == Receiving::Done && !stream.over {
            stream.over = true;
            let done = stream.acknowledged;
            self.count_out(id);
            if done {
                self.forget(id);
            }
        }
    }

    fn count_out(&mut self, id: StreamId) {
        self.open -= 1;
        if id.opener() != self.side {
            self.peer_open -= 1;
        }
    }

    /// Takes a stream off the books; says whether it was on them.
    pub(super) fn forget(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.remove(&id) else {
            return false;
        };
        if let Some(grace) = stream.grace {
            self.graces.remove(&(grace, id));
        }
        self.acks.released(stream.replay.len());
        self.schedule.remove(id);
        if !stream.over {
            self.count_out(id);
        }
        self.note_drained();
        true
    }
}

impl Stream {
    fn new(class: Class, carrier: u64) -> Self {
        Self {
            open: None,
            accepted: false,
            carrier,
            listed: false,
            replay: Replay::default(),
            ended: false,
            acknowledged: false,
            receiving: Receiving::Open,
            received: 0,
            grace: None,
            over: false,
            blocked: false,
            class,
            turn: Wait::None,
        }
    }

    fn opened(open: &Open, carrier: u64) -> Self {
        Self {
            open: Some(Box::new(open.clone())),
            ..Self::new(open.class, carrier)
        }
    }

    /// How far the peer's direction has come.
    pub(super) fn position(&self) -> u64 {
        self.received + u64::from(self.receiving == Receiving::Done)
    }
}
