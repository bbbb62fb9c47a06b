//! One stream over one carrier stream.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use quinn::{ReadError, VarInt, WriteError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Fate, Prelude, RecvHalf, SendHalf, Session, StreamId};

use super::shared::Shared;
use crate::quic::{code, reason};

/// How much is read at once while a stream's answer is awaited, in bytes; most answers are shorter than 10.
const ANSWER_READ: usize = 2048;

/// Chunks taken from the connection at once.
pub(crate) const MAX_CHUNKS: usize = 64;

/// A two-way byte stream to a target at the peer.
///
/// [`AsyncWrite::poll_shutdown`] ends the sending direction and leaves the other open. Dropping a stream with a direction
/// that has not ended makes it void at the peer too. Every error carries a [`Refusal`] as its source.
#[derive(Debug)]
pub struct Stream {
    send: Sending,
    recv: Receiving,
    guard: Guard,
}

/// Makes a stream void unless both its directions have ended. Streams whose header has not been read have no id yet.
#[derive(Debug)]
pub(super) struct Guard {
    shared: Arc<Shared>,
    id: Option<StreamId>,
    /// Data of the stream may wait here beside that of all others.
    granted: bool,
}

#[derive(Debug)]
struct Sending {
    quic: quinn::SendStream,
    /// `None` once the direction has ended.
    half: Option<SendHalf>,
}

#[derive(Debug)]
struct Receiving {
    quic: quinn::RecvStream,
    half: RecvHalf,
    /// Data that came with the header.
    first: Bytes,
    end: End,
}

#[derive(Debug)]
enum End {
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
struct Unanswered {
    prelude: Prelude,
    due: Pin<Box<Sleep>>,
    patience: Duration,
}

impl Guard {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id: Some(id),
            granted: false,
        }
    }

    fn reset(&self, refusal: &Refusal) {
        if let Some(id) = self.id {
            self.shared.with(|state| {
                state.ends.remove(&id);
                state.session.reset(id, refusal);
            });
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.granted {
            self.shared.stream_closed();
        }
    }
}

/// An id that no session gives out, for streams whose header is still to be read.
const NO_ID: StreamId = StreamId(0);

impl Stream {
    pub(super) fn new(guard: Guard, send: quinn::SendStream, recv: quinn::RecvStream) -> Self {
        let (send_half, recv_half) = Session::halves(guard.id.unwrap_or(NO_ID));
        Self {
            send: Sending {
                quic: send,
                half: Some(send_half),
            },
            recv: Receiving {
                quic: recv,
                half: recv_half,
                first: Bytes::new(),
                end: End::Open,
            },
            guard,
        }
    }

    pub(super) fn unnamed(shared: Arc<Shared>, send: quinn::SendStream, recv: quinn::RecvStream) -> Self {
        let guard = Guard {
            shared,
            id: None,
            granted: false,
        };
        Self::new(guard, send, recv)
    }

    /// Gives a stream the id that its header said.
    pub(super) fn name(&mut self, guard: Guard) {
        let (send_half, recv_half) = Session::halves(guard.id.unwrap_or(NO_ID));
        self.send.half = Some(send_half);
        self.recv.half = recv_half;
        self.guard = guard;
    }

    /// Has the first read wait for the peer's answer.
    pub(super) fn await_answer(&mut self, patience: Duration) {
        self.recv.end = End::Unanswered(Box::new(Unanswered {
            prelude: Prelude::default(),
            due: Box::pin(sleep(patience)),
            patience,
        }));
    }

    /// Waits until the peer has accepted the stream, or says why it did not. Reading waits for this by itself. May be
    /// cancelled and called again.
    pub async fn established(&mut self) -> Result<(), Refusal> {
        std::future::poll_fn(|cx| {
            ready!(self.recv.poll_answer(&self.guard, cx));
            Poll::Ready(match &self.recv.end {
                End::Broken(refusal) => Err(refusal.clone()),
                _ => Ok(()),
            })
        })
        .await
    }

    /// Makes room for the stream's data: it is wanted here, and no longer only what a peer sends unasked.
    pub(super) fn want(&mut self) {
        self.guard.shared.stream_opened();
        self.guard.granted = true;
    }

    pub(super) fn id(&self) -> StreamId {
        self.recv.half.id()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.guard.shared)
    }

    /// Writes bytes that are no data.
    pub(super) async fn write_header(&mut self, header: Bytes) -> Result<(), Refusal> {
        let written = self.send.quic.write_chunk(header).await;
        written.map_err(|error| self.guard.write_failed(&error))
    }

    /// Reads the frame at the head of the stream, and what came behind it.
    pub(super) async fn read_header(&mut self, mut prelude: Prelude) -> Result<(Bytes, Bytes), Refusal> {
        loop {
            match self.recv.quic.read_chunk(tunnel_proto::MAX_HEADER_FRAME, true).await {
                Ok(Some(chunk)) => prelude.push(&chunk.bytes),
                Ok(None) => return Err(malformed("the stream ended in its header")),
                Err(error) => return Err(self.guard.read_failed(&error)),
            }
            prelude = match prelude.split() {
                Ok(Ok(split)) => return Ok(split),
                Ok(Err(more)) => more,
                Err(error) => return Err(malformed(error)),
            };
        }
    }

    /// Puts data back that was read with the header.
    pub(super) fn unread(&mut self, data: Bytes) {
        self.recv.half.record(data.len());
        self.recv.first = data;
    }

    /// The refusal is written and there is nothing to say after it.
    pub(super) fn finish_refused(mut self) {
        // It may be reset already, which says the same.
        let _ = self.send.quic.finish();
        self.send.half = None;
    }

    /// Resolves when the peer reads the stream no more.
    pub(super) async fn peer_gone(&mut self) {
        let _ = self.send.quic.stopped().await;
    }

    /// Sends a chunk, waiting for room.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        self.directions().0.write_chunk(chunk).await
    }

    /// Ends the sending direction.
    pub fn finish(&mut self) -> Result<(), Refusal> {
        self.directions().0.finish()
    }

    /// Both directions, to be used side by side.
    pub(crate) fn directions(&mut self) -> (Sender<'_>, Receiver<'_>) {
        let sender = Sender {
            sending: &mut self.send,
            guard: &self.guard,
        };
        let receiver = Receiver {
            receiving: &mut self.recv,
            guard: &self.guard,
        };
        (sender, receiver)
    }

    /// Makes the stream void and tells the peer why.
    pub fn reset(mut self, refusal: &Refusal) {
        self.abort(refusal);
    }

    fn abort(&mut self, refusal: &Refusal) {
        let sending = self.send.half.take().is_some();
        let receiving = !matches!(self.recv.end, End::Finished | End::Broken(_));
        if sending || receiving {
            self.guard.reset(refusal);
        }
        // A half that has ended by itself cannot be reset and need not be.
        if sending {
            let _ = self.send.quic.reset(code(refusal.reason));
        }
        if receiving {
            let _ = self.recv.quic.stop(code(refusal.reason));
            self.recv.end = End::Broken(refusal.clone());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.abort(&Refusal::new(
            Reason::Cancelled,
            "the other end of the stream went away",
        ));
    }
}

/// The sending direction of a stream.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    sending: &'a mut Sending,
    guard: &'a Guard,
}

impl Sender<'_> {
    pub(crate) async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        let Some(half) = &mut self.sending.half else {
            return Err(already_ended());
        };
        half.record(chunk.len());
        let written = self.sending.quic.write_chunk(chunk).await;
        written.map_err(|error| self.guard.write_failed(&error))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Refusal> {
        let Some(half) = self.sending.half.take() else {
            return Ok(());
        };
        self.guard.shared.with(|state| half.finish(&mut state.session));
        self.sending.quic.finish().map_err(|_| already_ended())
    }
}

/// The receiving direction of a stream.
#[derive(Debug)]
pub(crate) struct Receiver<'a> {
    receiving: &'a mut Receiving,
    guard: &'a Guard,
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

impl Receiving {
    /// Takes the peer's answer to an open, if that is still to come.
    fn poll_answer(&mut self, guard: &Guard, cx: &mut Context<'_>) -> Poll<()> {
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

    fn carrier_ended(&mut self, guard: &Guard) {
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
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
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

    fn read_failed(&self, error: &ReadError) -> Refusal {
        match error {
            ReadError::Reset(code) => by_peer(*code),
            ReadError::ConnectionLost(error) => self.shared.explain(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => already_ended(),
        }
    }

    fn write_failed(&self, error: &WriteError) -> Refusal {
        match error {
            WriteError::Stopped(code) => by_peer(*code),
            WriteError::ConnectionLost(error) => self.shared.explain(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => already_ended(),
        }
    }
}

fn by_peer(code: VarInt) -> Refusal {
    Refusal::new(reason(code), "the other end broke the stream")
}

fn malformed(what: impl fmt::Display) -> Refusal {
    Refusal::new(Reason::Protocol, what.to_string())
}

fn already_ended() -> Refusal {
    Refusal::new(Reason::Cancelled, "the stream has ended already")
}

fn io_error(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, refusal)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { recv, guard, .. } = self.get_mut();
        ready!(recv.poll_answer(guard, cx));
        if !recv.first.is_empty() {
            let n = recv.first.len().min(buf.remaining());
            buf.put_slice(&recv.first[..n]);
            recv.first.advance(n);
            return Poll::Ready(Ok(()));
        }
        if matches!(recv.end, End::Open) && buf.remaining() > 0 {
            let before = buf.filled().len();
            match ready!(recv.quic.poll_read_buf(cx, buf)) {
                Ok(()) => match buf.filled().len() - before {
                    0 => recv.carrier_ended(guard),
                    n => {
                        recv.half.record(n);
                        return Poll::Ready(Ok(()));
                    }
                },
                Err(error) => recv.end = End::Broken(guard.read_failed(&error)),
            }
        }
        recv.poll_end(cx).map_err(io_error)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { send, guard, .. } = self.get_mut();
        let Some(half) = &mut send.half else {
            return Poll::Ready(Err(io_error(already_ended())));
        };
        match ready!(Pin::new(&mut send.quic).poll_write(cx, bytes)) {
            Ok(n) => {
                half.record(n);
                Poll::Ready(Ok(n))
            }
            Err(error) => Poll::Ready(Err(io_error(guard.write_failed(&error)))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().finish().map_err(io_error))
    }
}
