//! One stream, between those who use it and the task that owns the connection.
//!
//! Whoever reads takes data straight from yamux. What is written waits here until the task hands it on, so that streams of
//! higher priority go first and what was not sent yet can still be overtaken or withdrawn.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream as _, io::AsyncWrite as _};
use tunnel_model::Reason;

use super::{
    limits::{MAX_BODY, SURELY_WANTED, UNASKED},
    ready::Place,
};

/// What may wait on one stream before its writer has to wait, in bytes.
const QUEUE: usize = 64 * 1024;
/// Pieces below this size are gathered into one frame, in bytes.
const SMALL: usize = 2048;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) place: Arc<Place>,
    /// The peer opened it.
    pub(super) inbound: bool,
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

/// What came of serving a lane.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Frames that were handed to yamux.
    pub(super) frames: u64,
    /// Bytes in them.
    pub(super) bytes: usize,
    /// To be told to the peer.
    pub(super) reset: Option<Reason>,
    /// Likewise.
    pub(super) stop: Option<Reason>,
    /// The peer knows now that the stream is taken.
    pub(super) taken: bool,
    /// There is more to do.
    pub(super) again: bool,
    /// Both directions have come to their ends.
    pub(super) done: bool,
    /// The peer never heard of it.
    pub(super) unheard: bool,
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
    pub(super) fn new(yamux: yamux::Stream, place: Arc<Place>, inbound: bool) -> Self {
        Self {
            place,
            inbound,
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
            match Pin::new(&mut state.yamux).poll_next(cx) {
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

    /// What the task that owns the connection does for the stream: at most one frame of data.
    pub(super) fn serve(&self, cx: &mut Context<'_>) -> Served {
        self.lock().serve(cx)
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

    fn serve(&mut self, cx: &mut Context<'_>) -> Served {
        let mut served = Served::default();
        if std::mem::take(&mut self.unclear) && self.receiving == Receiving::Open {
            self.receiving = Receiving::Ended;
            self.wake(false);
        }
        if self.begun {
            served.stop = self.stop.take();
        }
        if self.want && !self.taken {
            // An empty frame carries the flag that says so.
            self.write(cx, &[], &mut served);
        }
        match self.sending {
            Sending::Open | Sending::Finishing => self.send(cx, &mut served),
            Sending::Resetting(reason) => {
                self.clear();
                served.reset = Some(reason).filter(|_| self.begun);
                self.sending = Sending::Told;
                // The end must come after what was told.
                served.again = true;
            }
            Sending::Told => self.close(cx, Sending::Reset, &mut served),
            // Nobody reads, so that nobody can take the end for a good one.
            Sending::Stopped(_) if !self.yamux.is_write_closed() => self.close(cx, self.sending, &mut served),
            Sending::Stopped(_) | Sending::Finished | Sending::Reset => {}
        }
        let sent = match self.sending {
            Sending::Finished | Sending::Reset => true,
            Sending::Stopped(_) => self.yamux.is_write_closed() || self.yamux.is_closed(),
            _ => false,
        };
        served.done = sent && self.receiving != Receiving::Open;
        served.unheard = !self.begun;
        served.again |= self.begun && self.stop.is_some();
        served
    }

    /// Hands one frame on, or the end.
    fn send(&mut self, cx: &mut Context<'_>, served: &mut Served) {
        if self.queue.is_empty() && !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        let mut written = 0;
        match self.queue.front() {
            None if self.sending == Sending::Finishing => return self.close(cx, Sending::Finished, served),
            None => return,
            Some(first) if first.len() < SMALL && self.queue.len() > 1 => {
                let gathered = self.gather();
                written += self.write(cx, &gathered, served);
            }
            Some(first) => {
                let first = first.clone();
                written += self.write(cx, &first, served);
            }
        }
        if written == 0 {
            return;
        }
        self.queued -= written;
        served.bytes += written;
        while let Some(first) = self.queue.front_mut()
            && first.len() <= written
        {
            written -= first.len();
            self.queue.pop_front();
        }
        if let Some(first) = self.queue.front_mut() {
            first.advance(written);
        }
        served.again = self.queued > 0 || self.sending == Sending::Finishing;
        if self.queued < QUEUE
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    fn gather(&self) -> Vec<u8> {
        let mut gathered = Vec::with_capacity(MAX_BODY);
        for chunk in &self.queue {
            let part = chunk.len().min(MAX_BODY - gathered.len());
            gathered.extend_from_slice(&chunk[..part]);
        }
        gathered
    }

    /// Writes one frame; says how much of the bytes it took, none if there is no room.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8], served: &mut Served) -> usize {
        let limit = self.before_taken.map_or(MAX_BODY, |left| left as usize);
        let bytes = &bytes[..bytes.len().min(limit)];
        if bytes.is_empty() && limit == 0 {
            return 0;
        }
        match Pin::new(&mut self.yamux).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => {
                if let Some(left) = &mut self.before_taken {
                    *left -= u32::try_from(written).unwrap_or(0);
                }
                self.begun = true;
                self.framed(served);
                written
            }
            // The peer broke both directions without a word.
            Poll::Ready(Err(_)) => {
                self.sending = Sending::Stopped(Reason::Cancelled);
                self.clear();
                self.wake(false);
                0
            }
            Poll::Pending => 0,
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, then: Sending, served: &mut Served) {
        if !self.begun && then == Sending::Finished {
            // The end alone would not open the stream.
            self.write(cx, &[], served);
            if !self.begun {
                return;
            }
        }
        // One that the peer broke is closed without a frame.
        let framed = !self.yamux.is_closed();
        if Pin::new(&mut self.yamux).poll_close(cx).is_pending() {
            return;
        }
        if framed {
            self.framed(served);
        }
        self.sending = then;
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// yamux has a frame of the stream to send, which says that it is open, or taken.
    fn framed(&mut self, served: &mut Served) {
        served.frames += 1;
        served.taken |= !std::mem::replace(&mut self.taken, true);
    }
}
