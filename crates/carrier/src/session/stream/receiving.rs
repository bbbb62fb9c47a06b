//! The direction that is read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::ReadBuf,
    sync::oneshot,
    time::{Instant, Sleep},
};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Fate, Prelude, RecvHalf};

use super::guard::{Guard, malformed};
use crate::quic::code;

/// How much is read at once while a stream's answer is awaited, in bytes; most answers are shorter than 10.
const ANSWER_READ: usize = 2048;

/// Chunks taken from the connection at once.
pub(crate) const MAX_CHUNKS: usize = 64;

#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) quic: quinn::RecvStream,
    pub(super) half: RecvHalf,
    /// Data that came with the header.
    pub(super) first: Bytes,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// The peer has not said yet whether it takes the stream. Apart, because it is seldom so.
    Unanswered(Box<Unanswered>),
    /// More may come.
    Open,
    /// The carrier stream has ended; the peer has not said yet whether it meant that.
    Asked(oneshot::Receiver<Result<(), Refusal>>),
    Finished,
    Broken(Refusal),
}

/// A wait for the peer's answer to an open.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) prelude: Prelude,
    pub(super) due: Pin<Box<Sleep>>,
    pub(super) patience: Duration,
}

impl Receiving {
    /// Takes the peer's answer to an open, if that is still to come.
    pub(super) fn poll_answer(&mut self, guard: &Guard, cx: &mut Context<'_>) -> Poll<()> {
        while let End::Unanswered(waiting) = &mut self.end {
            let mut bytes = [0; ANSWER_READ];
            let mut buf = ReadBuf::new(&mut bytes);
            let Poll::Ready(read) = self.quic.poll_read_buf(cx, &mut buf) else {
                ready!(waiting.due.as_mut().poll(cx));
                let message = format!("no answer within {} s", waiting.patience.as_secs());
                self.give_up(guard, Refusal::new(Reason::TargetTimeout, message));
                return Poll::Ready(());
            };
            self.end = match read {
                Err(error) => End::Broken(guard.read_failed(&error)),
                Ok(()) if buf.filled().is_empty() => End::Broken(malformed("the stream ended in its header")),
                Ok(()) => {
                    let mut prelude = std::mem::take(&mut waiting.prelude);
                    prelude.push(buf.filled());
                    match prelude.split() {
                        Ok(Ok((frame, rest))) => {
                            self.half.record(rest.len());
                            self.first = rest;
                            guard.answered(&frame)
                        }
                        Ok(Err(more)) => {
                            waiting.prelude = more;
                            continue;
                        }
                        Err(error) => End::Broken(malformed(error)),
                    }
                }
            };
        }
        Poll::Ready(())
    }

    fn give_up(&mut self, guard: &Guard, refusal: Refusal) {
        guard.reset(&refusal);
        // It may have ended by itself.
        let _ = self.quic.stop(code(refusal.reason));
        self.end = End::Broken(refusal);
    }

    pub(super) fn carrier_ended(&mut self, guard: &Guard) {
        let id = self.half.id();
        let half = &self.half;
        self.end = guard.shared.with(
            |state| match half.carrier_ended(&mut state.session, Instant::now().into_std()) {
                Fate::Finished => End::Finished,
                Fate::Broken(refusal) => End::Broken(refusal),
                Fate::Pending => {
                    let (sender, receiver) = oneshot::channel();
                    state.ends.insert(id, sender);
                    End::Asked(receiver)
                }
            },
        );
    }

    /// What the end of the carrier stream meant.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        if let End::Asked(answer) = &mut self.end {
            self.end = match ready!(Pin::new(answer).poll(cx)) {
                Ok(Ok(())) => End::Finished,
                Ok(Err(refusal)) => End::Broken(refusal),
                Err(_) => End::Broken(Refusal::new(Reason::CarrierLost, "the session ended")),
            };
        }
        Poll::Ready(match &self.end {
            End::Broken(refusal) => Err(refusal.clone()),
            End::Unanswered(_) | End::Open | End::Asked(_) | End::Finished => Ok(()),
        })
    }
}

impl Guard {
    /// What the peer's answer makes of the stream.
    fn answered(&self, frame: &[u8]) -> End {
        let Some(id) = self.id else {
            return End::Broken(malformed("the stream was answered before it was named"));
        };
        match self.shared.with(|state| state.session.handle_reply(id, frame)) {
            Ok(Ok(())) => End::Open,
            Ok(Err(refusal)) => End::Broken(refusal),
            Err(violation) => {
                self.shared.fail(violation.0.clone());
                End::Broken(violation.0)
            }
        }
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
        let receiving = &mut *self.receiving;
        std::future::poll_fn(|cx| receiving.poll_answer(self.guard, cx)).await;
        if !receiving.first.is_empty() {
            chunks[0] = std::mem::take(&mut receiving.first);
            return Ok(1);
        }
        if matches!(receiving.end, End::Open) {
            match receiving.quic.read_chunks(chunks).await {
                Ok(Some(count)) => {
                    receiving.half.record(chunks[..count].iter().map(Bytes::len).sum());
                    return Ok(count);
                }
                Ok(None) => receiving.carrier_ended(self.guard),
                Err(error) => receiving.end = End::Broken(self.guard.read_failed(&error)),
            }
        }
        std::future::poll_fn(|cx| receiving.poll_end(cx)).await.map(|()| 0)
    }
}
