//! One stream, between those who use it and the task that owns the connection.
//!
//! Whoever reads takes data straight from yamux. What is written waits here until the task hands it on, so that streams of
//! higher priority go first and what was not sent yet can still be overtaken or withdrawn.

mod serving;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream as _;
use tunnel_model::Reason;

use self::serving::Served;
use super::{
    limits::{SURELY_WANTED, UNASKED},
    ready::Place,
};

/// What may wait on one stream before its writer has to wait, in bytes.
const QUEUE: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) place: Arc<Place>,
    /// The peer opened it.
    pub(super) inbound: bool,
    /// What yamux wakes when something has arrived.
    arrival: Waker,
    state: Mutex<State>,
}

/// Who waits, and how far the two directions have come.
#[derive(Debug)]
pub(super) struct State {
    yamux: yamux::Stream,
    /// The peer has heard of it.
    begun: bool,
    pub(super) sending: Sending,
    queue: VecDeque<Bytes>,
    /// What was written last, in pieces too small to stand alone.
    tail: BytesMut,
    queued: usize,
    /// How much may go before the peer has taken the stream; `None` once it has.
    before_taken: Option<u32>,
    pub(super) receiving: Receiving,
    /// What a reader had no room for.
    rest: Bytes,
    taken: bool,
    want: bool,
    read: usize,
    /// The peer is to be told that nobody reads.
    stop: Option<Reason>,
    /// A reader came to the end of the data, and is to be told what that means.
    unclear: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    watcher: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// The end comes after what is queued.
    Finishing,
    /// It is void; the peer is to be told before it sees the end.
    Resetting(Reason),
    /// The peer was told.
    Told,
    Finished,
    Reset,
    /// The peer reads no more.
    Stopped(Reason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    Open,
    /// There is nothing more.
    Ended,
    /// The peer made it void.
    Reset(Reason),
    /// Nobody here reads any more.
    Stopped,
}

/// A write that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CannotWrite {
    Ended,
    Stopped(Reason),
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Got {
    Data(Bytes),
    End,
    Reset(Reason),
    Closed,
}

impl Lane {
    pub(super) fn new(yamux: yamux::Stream, place: Arc<Place>, arrival: Waker, inbound: bool) -> Self {
        Self {
            place,
            inbound,
            arrival,
            state: Mutex::new(State {
                yamux,
                begun: inbound,
                sending: Sending::Open,
                queue: VecDeque::new(),
                tail: BytesMut::new(),
                queued: 0,
                before_taken: (!inbound).then_some(UNASKED),
                receiving: Receiving::Open,
                rest: Bytes::new(),
                taken: !inbound,
                want: false,
                read: 0,
                stop: None,
                unclear: false,
                reader: None,
                writer: None,
                watcher: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what a writer has, as far as there is room: `take` takes so many bytes at most.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut State, usize),
    ) -> Poll<Result<(), CannotWrite>> {
        let mut state = self.lock();
        state.can_write()?;
        if state.queued >= QUEUE {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let room = QUEUE - state.queued;
        take(&mut state, room);
        drop(state);
        self.place.queue();
        Poll::Ready(Ok(()))
    }

    /// Ends the sending direction after what is queued.
    pub(super) fn finish(&self) -> Result<(), CannotWrite> {
        let mut state = self.lock();
        state.can_write()?;
        state.sending = Sending::Finishing;
        drop(state);
        self.place.queue();
        Ok(())
    }

    /// Makes the sending direction void, unless it has ended.
    pub(super) fn reset(&self, reason: Reason) {
        let mut state = self.lock();
        if matches!(state.sending, Sending::Open | Sending::Finishing) {
            state.sending = Sending::Resetting(reason);
            drop(state);
            self.place.queue();
        }
    }

    /// Makes the sending direction void if nobody has said how it ends.
    pub(super) fn abandon(&self) {
        if self.lock().sending == Sending::Open {
            self.reset(Reason::Cancelled);
        }
    }

    /// Reads no more.
    pub(super) fn stop(&self, reason: Reason) {
        let mut state = self.lock();
        if state.receiving == Receiving::Open {
            state.receiving = Receiving::Stopped;
            state.stop = Some(reason);
            state.rest = Bytes::new();
            drop(state);
            self.place.queue();
        }
    }

    /// Tells the peer that the stream is wanted.
    pub(super) fn want(&self) {
        let mut state = self.lock();
        if !state.taken && !state.want {
            state.want = true;
            drop(state);
            self.place.queue();
        }
    }

    /// The next data, at most `max` bytes.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, max: usize) -> Poll<Got> {
        let mut state = self.lock();
        match state.receiving {
            Receiving::Open => {}
            Receiving::Ended => return Poll::Ready(Got::End),
            Receiving::Reset(reason) => return Poll::Ready(Got::Reset(reason)),
            Receiving::Stopped => return Poll::Ready(Got::Closed),
        }
        if state.rest.is_empty() {
            match Pin::new(&mut state.yamux).poll_next(&mut Context::from_waker(&self.arrival)) {
                Poll::Ready(Some(Ok(packet))) => state.rest = Bytes::from_owner(packet),
                // yamux shows an end, a reset and a lost connection alike; the task that owns the connection knows which.
                Poll::Ready(None | Some(Err(_))) => {
                    state.unclear = true;
                    state.reader = Some(cx.waker().clone());
                    drop(state);
                    self.place.queue();
                    return Poll::Pending;
                }
                Poll::Pending => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        let size = state.rest.len().min(max);
        let data = state.rest.split_to(size);
        state.read = state.read.saturating_add(size);
        let want = !state.taken && !state.want && state.read > SURELY_WANTED;
        state.want |= want;
        drop(state);
        if want {
            self.place.queue();
        }
        Poll::Ready(Got::Data(data))
    }

    /// Ready once the peer reads no more, with its reason, or once all that was written is on its way after the end.
    pub(super) fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<Option<Reason>> {
        let mut state = self.lock();
        match state.sending {
            Sending::Stopped(reason) => Poll::Ready(Some(reason)),
            Sending::Finished | Sending::Reset => Poll::Ready(None),
            _ => {
                state.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The peer said that it made its direction void.
    pub(super) fn peer_reset(&self, reason: Reason) {
        let mut state = self.lock();
        if state.receiving == Receiving::Open {
            state.receiving = Receiving::Reset(reason);
            state.rest = Bytes::new();
            state.wake(false);
            drop(state);
            self.place.queue();
        }
    }

    /// The peer said that it reads no more.
    pub(super) fn peer_stopped(&self, reason: Reason) {
        let mut state = self.lock();
        if matches!(state.sending, Sending::Open | Sending::Finishing) {
            state.sending = Sending::Stopped(reason);
            state.clear();
            state.wake(false);
            drop(state);
            self.place.queue();
        }
    }

    /// Something has arrived, or it is certain that nothing will.
    pub(super) fn wake_reader(&self) {
        let reader = self.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The peer took the stream.
    pub(super) fn peer_took(&self) {
        if self.lock().before_taken.take().is_some() {
            self.place.queue();
        }
    }

    /// Has everybody look who waits.
    pub(super) fn wake_all(&self) {
        self.lock().wake(true);
    }

    /// What the task that owns the connection does for the stream: hands on frames of data until there are `room` bytes
    /// in them.
    pub(super) fn serve(&self, cx: &mut Context<'_>, room: usize) -> Served {
        self.lock().serve(cx, room)
    }
}

impl State {
    fn can_write(&self) -> Result<(), CannotWrite> {
        match self.sending {
            Sending::Open => Ok(()),
            Sending::Stopped(reason) => Err(CannotWrite::Stopped(reason)),
            _ => Err(CannotWrite::Ended),
        }
    }

    /// Queues bytes, by copying them.
    pub(super) fn push_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.queued += bytes.len();
    }

    /// Queues bytes.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        self.queued += chunk.len();
        self.queue.push_back(chunk);
    }

    fn clear(&mut self) {
        self.queue.clear();
        self.tail = BytesMut::new();
        self.queued = 0;
    }

    fn wake(&mut self, all: bool) {
        for waiting in [&mut self.reader, &mut self.writer, &mut self.watcher] {
            if let Some(waker) = waiting.take() {
                waker.wake();
            }
        }
        if all {
            self.clear();
        }
    }
}
