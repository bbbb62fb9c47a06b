//! The direction that is read.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{io::ReadBuf, time::Sleep};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Fate, Prelude, Violation};

use super::guard::{Guard, already_ended, malformed};
use crate::{
    link::{RecvStream, StreamError},
    session::shared::{State, now},
};

/// How much is read at once while a stream's answer is awaited, in bytes; most answers are shorter than 10.
const ANSWER_READ: usize = 2048;

/// Chunks taken from the connection at once.
pub(crate) const MAX_CHUNKS: usize = 64;

#[derive(Debug)]
pub(super) struct Receiving {
    /// The carrier's number, and its stream; nothing while there is none, or when that has ended.
    link: Option<(u64, RecvStream)>,
    /// The peer's answer is still to come on this carrier's stream; what has come of it. Only of streams opened here.
    answer: Option<Box<Prelude>>,
    /// How long the peer may take to accept it. Apart, because it is seldom needed.
    patience: Option<Box<Patience>>,
    /// Data that was read and not asked for yet.
    first: Bytes,
    pub(super) end: End,
}

/// How long an answer to an open is waited for.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) due: Pin<Box<Sleep>>,
    pub(super) time: Duration,
}

#[derive(Debug)]
pub(super) enum End {
    /// More may come.
    Open,
    Finished,
    Broken(Refusal),
}

/// What came of an attempt to read.
enum Taken {
    Bytes(usize),
    /// Something has changed: look again.
    Again,
}

impl Receiving {
    pub(super) fn new(carrier: u64, stream: RecvStream, answer: Option<Prelude>, patience: Option<Patience>) -> Self {
        Self {
            link: Some((carrier, stream)),
            answer: answer.map(Box::new),
            patience: patience.map(Box::new),
            first: Bytes::new(),
            end: End::Open,
        }
    }

    /// Notes data that came with a header or an answer, and keeps it. If it is of the past it is thrown away, and comes
    /// again.
    pub(super) fn read_ahead(&mut self, guard: &Guard, state: &mut State, carrier: u64, more: Bytes) {
        if state.session.received(guard.id, carrier, more.len(), now()).is_err() {
            self.link = None;
        } else if self.first.is_empty() {
            self.first = more;
        } else {
            self.first = [&self.first[..], &more].concat().into();
        }
    }

    /// Whether the peer has taken the stream.
    pub(super) fn is_answered(&self) -> bool {
        self.patience.is_none()
    }

    /// Whether more may come.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.end, End::Open)
    }

    pub(super) fn abort(&mut self, refusal: &Refusal) {
        if let Some((_, mut stream)) = self.link.take() {
            stream.stop(refusal.reason);
        }
        self.end = End::Broken(refusal.clone());
    }
}

impl Receiving {
    /// Takes the peer's answer, if that is still to come on the carrier of now.
    pub(super) fn poll_answer(&mut self, guard: &Guard, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        while self.is_open() && (self.patience.is_some() || self.answer.is_some()) {
            let polled = guard.shared.with(|state| self.poll_answer_once(guard, state, cx));
            match polled {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(violation)) => {
                    guard.shared.fail(&violation.0);
                    self.end = End::Broken(violation.0);
                }
                Poll::Pending => {
                    let Some(patience) = &mut self.patience else {
                        return Poll::Pending;
                    };
                    ready!(patience.due.as_mut().poll(cx));
                    let message = format!("no answer within {} s", patience.time.as_secs());
                    let refusal = Refusal::new(Reason::TargetTimeout, message);
                    guard.reset(&refusal);
                    self.abort(&refusal);
                }
            }
        }
        Poll::Ready(match &self.end {
            End::Broken(refusal) => Err(refusal.clone()),
            End::Open | End::Finished => Ok(()),
        })
    }

    fn poll_answer_once(
        &mut self,
        guard: &Guard,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Violation>> {
        let Some((carrier, stream)) = &mut self.link else {
            return self.poll_link(guard, state, cx).map(Ok);
        };
        let carrier = *carrier;
        let Some(mut prelude) = self.answer.take() else {
            return Poll::Ready(Ok(()));
        };
        let mut bytes = [0; ANSWER_READ];
        let mut buf = ReadBuf::new(&mut bytes);
        let Poll::Ready(read) = stream.poll_read_buf(cx, &mut buf) else {
            self.answer = Some(prelude);
            return Poll::Pending;
        };
        match read {
            Err(StreamError::Broken(refusal)) => self.end = End::Broken(refusal),
            Err(StreamError::Lost) => self.link = None,
            Ok(()) if buf.filled().is_empty() => {
                self.end = End::Broken(malformed("the stream ended in its header"));
            }
            Ok(()) => {
                prelude.push(buf.filled());
                match prelude.split() {
                    Ok(Ok((frame, rest))) => match state.session.handle_reply(guard.id, &frame)? {
                        Ok(()) => {
                            self.patience = None;
                            self.read_ahead(guard, state, carrier, rest);
                        }
                        Err(refusal) => self.end = End::Broken(refusal),
                    },
                    Ok(Err(more)) => self.answer = Some(Box::new(more)),
                    Err(error) => self.end = End::Broken(malformed(error)),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the next carrier's stream, or for what became of the direction.
    fn poll_link(&mut self, guard: &Guard, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        let Some(port) = guard.port(state) else {
            self.end = End::Broken(already_ended());
            return Poll::Ready(());
        };
        if let Some(refusal) = &port.broken {
            self.end = End::Broken(refusal.clone());
        } else if let Some(end) = &port.received {
            self.end = match end {
                Ok(()) => End::Finished,
                Err(refusal) => End::Broken(refusal.clone()),
            };
        } else if let Some(new) = port.recv.take() {
            self.link = Some((new.carrier, new.stream));
            if guard.is_opener() {
                self.answer = Some(Box::default());
            } else {
                self.read_ahead(guard, state, new.carrier, new.first);
            }
        } else {
            port.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    pub(super) fn poll_read(
        &mut self,
        guard: &Guard,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Refusal>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..count]);
            self.first.advance(count);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let taken = self.poll_take(guard, cx, |stream, cx| {
            buf.set_filled(before);
            stream.poll_read_buf(cx, buf).map_ok(|()| buf.filled().len() - before)
        });
        if let Poll::Ready(Ok(1..)) = taken {
            return Poll::Ready(Ok(()));
        }
        // What was read from a carrier of the past is not there.
        buf.set_filled(before);
        ready!(taken)?;
        // The answer may have brought data along.
        if self.first.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            self.poll_read(guard, cx, buf)
        }
    }

    /// Has something read with `take`, which may be called more than once and says how many bytes; only the last call
    /// counts. Nothing read is the end, or that something was read ahead.
    fn poll_take(
        &mut self,
        guard: &Guard,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut RecvStream, &mut Context<'_>) -> Poll<Result<usize, StreamError>>,
    ) -> Poll<Result<usize, Refusal>> {
        loop {
            ready!(self.poll_answer(guard, cx))?;
            if !self.first.is_empty() || matches!(self.end, End::Finished) {
                return Poll::Ready(Ok(0));
            }
            let taken = guard
                .shared
                .with(|state| self.poll_take_once(guard, state, cx, &mut take));
            if let Taken::Bytes(count) = ready!(taken) {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn poll_take_once(
        &mut self,
        guard: &Guard,
        state: &mut State,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&mut RecvStream, &mut Context<'_>) -> Poll<Result<usize, StreamError>>,
    ) -> Poll<Taken> {
        let Some((carrier, stream)) = &mut self.link else {
            return self.poll_link(guard, state, cx).map(|()| Taken::Again);
        };
        let carrier = *carrier;
        match ready!(take(stream, cx)) {
            Ok(0) => {
                // Whatever its end means, there is nothing more on it.
                self.link = None;
                match state.session.carrier_stream_ended(guard.id, carrier, now()) {
                    Ok(Fate::Finished) => self.end = End::Finished,
                    Ok(Fate::Broken(refusal)) => self.end = End::Broken(refusal),
                    Ok(Fate::Pending) | Err(_) => {}
                }
            }
            Ok(count) => match state.session.received(guard.id, carrier, count, now()) {
                Ok(()) => return Poll::Ready(Taken::Bytes(count)),
                Err(_) => self.link = None,
            },
            Err(StreamError::Broken(refusal)) => self.end = End::Broken(refusal),
            Err(StreamError::Lost) => self.link = None,
        }
        Poll::Ready(Taken::Again)
    }
}

/// The receiving direction of a stream.
#[derive(Debug)]
pub(crate) struct Receiver<'a> {
    pub(super) receiving: &'a mut Receiving,
    pub(super) guard: &'a Guard,
}

impl Receiver<'_> {
    /// Fills the first of `chunks` and says how many; 0 once the peer has ended the direction.
    pub(crate) async fn read_chunks(&mut self, chunks: &mut [Bytes; MAX_CHUNKS]) -> Result<usize, Refusal> {
        poll_fn(|cx| self.receiving.poll_read_chunks(self.guard, cx, chunks)).await
    }
}

impl Receiving {
    fn poll_read_chunks(
        &mut self,
        guard: &Guard,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes; MAX_CHUNKS],
    ) -> Poll<Result<usize, Refusal>> {
        let mut filled = 0;
        if self.first.is_empty() {
            ready!(self.poll_take(guard, cx, |stream, cx| {
                stream.poll_read_chunks(cx, chunks).map_ok(|count| {
                    filled = count.unwrap_or(0);
                    chunks[..filled].iter().map(Bytes::len).sum()
                })
            }))?;
        }
        if !self.first.is_empty() {
            chunks[0] = std::mem::take(&mut self.first);
            filled = 1;
        }
        Poll::Ready(Ok(filled))
    }
}
