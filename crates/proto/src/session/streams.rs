//! Streams of a session: opened, accepted, ended, reset.

use std::time::Instant;

use bytes::Bytes;
use tunnel_model::{Reason, Refusal, Target};

use super::{Event, Phase, Session, Side, Violation};
use crate::{
    Control, Fate, Open, OpenReply, RecvHalf, SendHalf, StreamId,
    message::{decode_reply, encode_reply},
    stream::{Input, Outcome, Receiving, cut},
};

/// Ends and resets that may be known before their stream is.
const MAX_EARLY: usize = 1024;

/// A stream cannot be opened now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no carrier, or the peers have not agreed yet.
    #[error("the session has no carrier")]
    NotConnected,
    /// One of the peers is about to leave.
    #[error("the session is being drained")]
    Draining,
}

/// What a stream's first frame led to.
#[derive(Debug)]
pub enum Incoming {
    /// The peer wants this. Answer with [`Session::accept`] or [`Session::refuse`].
    Stream {
        /// The stream.
        id: StreamId,
        /// What it is for.
        open: Open,
    },
    /// It was refused already: write this and finish the carrier stream.
    Refused(Bytes),
}

/// An open stream. It is forgotten once both directions are done.
#[derive(Debug)]
pub(super) struct Stream {
    sending: bool,
    receiving: Receiving,
    /// Until when the announcement of the end is awaited.
    grace: Option<Instant>,
}

/// What was said of a stream before its header was read: the control stream may overtake it.
#[derive(Debug)]
pub(super) enum Early {
    End(u64),
    /// The sentence beside it is the peer's own: it is not kept.
    Reset(Reason),
}

impl Session {
    /// Opens a stream: write the bytes first on a new carrier stream, data may follow at once.
    pub fn open(&mut self, open: &Open) -> Result<(StreamId, Bytes), OpenError> {
        if !matches!(self.phase, Phase::Ready) {
            return Err(OpenError::NotConnected);
        }
        if self.leaving {
            return Err(OpenError::Draining);
        }
        let id = self.next_id;
        self.next_id.0 += 2;
        self.streams.insert(id, Stream::new());
        Ok((id, open.encode(id)))
    }

    /// Both halves of a stream that was opened or accepted.
    pub fn halves(id: StreamId) -> (SendHalf, RecvHalf) {
        (SendHalf::new(id), RecvHalf::new(id))
    }

    /// Takes the first frame of the acceptor's direction of a stream that we opened.
    pub fn handle_reply(&mut self, id: StreamId, frame: &[u8]) -> Result<OpenReply, Violation> {
        let reply = decode_reply(frame).map_err(|e| Violation::protocol(format!("answer to open: {e}")))?;
        if reply.is_err() {
            self.forget(id);
        }
        Ok(reply)
    }

    /// Takes the first frame of a stream that the peer opened.
    pub fn handle_open(&mut self, frame: &[u8]) -> Result<Incoming, Violation> {
        let (id, open) = Open::decode(frame).map_err(|e| Violation::protocol(format!("stream header: {e}")))?;
        if id.opener() != self.side.peer() {
            return Err(Violation::protocol(format!("stream id {id} is not the peer's to use")));
        }
        if !self.seen.insert(id) {
            return Err(Violation::protocol(format!("stream id {id} was used twice")));
        }
        let early = self.early.remove(&id);
        if let Some(refusal) = self.reason_to_refuse(&open) {
            return Ok(Incoming::Refused(encode_reply(&Err(refusal))));
        }
        let mut stream = Stream::new();
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
        self.streams.insert(id, stream);
        self.peer_streams += 1;
        Ok(Incoming::Stream { id, open })
    }

    fn reason_to_refuse(&self, open: &Open) -> Option<Refusal> {
        if matches!(self.phase, Phase::Down) {
            return Some(Refusal::new(Reason::CarrierLost, "the carrier of this stream is gone"));
        }
        if self.leaving {
            return Some(Refusal::new(Reason::Draining, "this end is about to stop; try again"));
        }
        if self.peer_streams >= self.config.max_streams {
            let message = format!("{} streams are open already", self.peer_streams);
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

    /// The target is there: write these bytes before any data. `None` if the stream was reset meanwhile.
    pub fn accept(&mut self, id: StreamId) -> Option<Bytes> {
        self.streams.contains_key(&id).then(|| encode_reply(&Ok(())))
    }

    /// The target cannot be had: write these bytes and finish the carrier stream.
    pub fn refuse(&mut self, id: StreamId, refusal: &Refusal) -> Bytes {
        self.forget(id);
        encode_reply(&Err(refusal.clone()))
    }

    pub(crate) fn finish(&mut self, id: StreamId, offset: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.sending = false;
        let done = stream.is_done();
        self.queue(&Control::End { id, offset });
        if done {
            self.forget(id);
        }
    }

    /// Makes both directions void. The carrier stream is to be reset too. Does nothing to a stream that has ended.
    pub fn reset(&mut self, id: StreamId, refusal: &Refusal) {
        if self.forget(id) {
            self.queue(&Control::Reset {
                id,
                refusal: refusal.clone(),
            });
        }
    }

    pub(crate) fn carrier_stream_ended(&mut self, id: StreamId, received: u64, now: Instant) -> Fate {
        let grace = now + self.config.end_grace;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Fate::Broken(cut());
        };
        match stream.receiving.on(Input::CarrierEnded(received)) {
            Outcome::Wait => {
                stream.grace = Some(grace);
                self.graces.insert((grace, id));
                Fate::Pending
            }
            Outcome::Clean => {
                self.direction_done(id);
                Fate::Finished
            }
            Outcome::Cut | Outcome::Violation => {
                let refusal = cut();
                self.reset(id, &refusal);
                Fate::Broken(refusal)
            }
        }
    }

    pub(super) fn handle_end(&mut self, id: StreamId, offset: u64) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else {
            self.note_early(id, Early::End(offset));
            return Ok(());
        };
        match stream.receiving.on(Input::Announced(offset)) {
            Outcome::Wait => {}
            Outcome::Clean => {
                self.events.push_back(Event::Received { id, end: Ok(()) });
                self.direction_done(id);
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
        if self.streams.contains_key(&id) {
            self.events.push_back(Event::Broken { id, refusal });
            self.forget(id);
        } else {
            self.note_early(id, Early::Reset(refusal.reason));
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
        self.reset(id, &refusal);
    }

    pub(super) fn break_all(&mut self, refusal: &Refusal) {
        let mut ids: Vec<_> = self.streams.drain().map(|(id, _)| id).collect();
        ids.sort_unstable();
        self.peer_streams = 0;
        self.events.extend(ids.into_iter().map(|id| Event::Broken {
            id,
            refusal: refusal.clone(),
        }));
    }

    fn direction_done(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receiving = Receiving::Done;
            if let Some(grace) = stream.grace.take() {
                self.graces.remove(&(grace, id));
            }
            if stream.is_done() {
                self.forget(id);
            }
        }
    }

    /// Takes a stream off the books; says whether it was on them.
    fn forget(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.remove(&id) else {
            return false;
        };
        if let Some(grace) = stream.grace {
            self.graces.remove(&(grace, id));
        }
        if id.opener() != self.side {
            self.peer_streams -= 1;
        }
        self.note_drained();
        true
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            sending: true,
            receiving: Receiving::Open,
            grace: None,
        }
    }

    fn is_done(&self) -> bool {
        !self.sending && self.receiving == Receiving::Done
    }
}
