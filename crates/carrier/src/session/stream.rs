//! One stream over one carrier stream.

mod guard;
mod receiving;
mod sending;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Prelude, Session, StreamId};

pub(super) use self::guard::Guard;
use self::{
    guard::{already_ended, malformed},
    receiving::{End, Receiving, Unanswered},
    sending::Sending,
};
pub(crate) use self::{
    receiving::{MAX_CHUNKS, Receiver},
    sending::Sender,
};
use super::{Flow, shared::Shared};
use crate::quic::code;

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

/// An id that no session gives out, for streams whose header is still to be read.
const NO_ID: StreamId = StreamId(0);

impl Stream {
    pub(super) fn new(guard: Guard, send: quinn::SendStream, recv: quinn::RecvStream) -> Self {
        let (send_half, recv_half) = Session::halves(guard.id.unwrap_or(NO_ID));
        Self {
            send: Sending {
                quic: send,
                header: Bytes::new(),
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

    /// Has these bytes go before all data, in one packet with the first of it if there is any before somebody reads.
    pub(super) fn begin_with(&mut self, header: Bytes) {
        self.send.header = header;
    }

    /// Sends the header if no data took it along.
    pub(crate) async fn send_header(&mut self) -> Result<(), Refusal> {
        std::future::poll_fn(|cx| self.send.poll_header(&self.guard, cx)).await
    }

    /// Waits until the peer has accepted the stream, or says why it did not. Reading waits for this by itself. May be
    /// cancelled and called again.
    pub async fn established(&mut self) -> Result<(), Refusal> {
        self.send_header().await?;
        std::future::poll_fn(|cx| self.recv.poll_answer(&self.guard, cx)).await;
        match &self.recv.end {
            End::Broken(refusal) => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    /// Makes room for the stream's data: it is wanted here, and no longer only what a peer sends unasked.
    pub(super) fn want(&mut self) {
        self.guard.shared.stream_opened();
        self.guard.granted = true;
    }

    /// Makes a flow of a stream that was opened for packets, before anything was written to it or read from it.
    pub fn into_flow(self) -> Flow {
        Flow::new(self, false)
    }

    /// Whether the peer has taken the stream.
    pub(super) fn is_answered(&self) -> bool {
        !matches!(self.recv.end, End::Unanswered(_) | End::Broken(_))
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

    pub(super) fn poll_write_data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Refusal>> {
        let Self { send, guard, .. } = self;
        if send.half.is_none() {
            return Poll::Ready(Err(already_ended()));
        }
        let mut written = 0;
        while written == 0 && !send.header.is_empty() {
            written = ready!(send.poll_first(guard, cx, bytes))?;
        }
        if written == 0 {
            let more = ready!(Pin::new(&mut send.quic).poll_write(cx, bytes));
            written = more.map_err(|error| guard.write_failed(&error))?;
        }
        if let Some(half) = &mut send.half {
            half.record(written);
        }
        Poll::Ready(Ok(written))
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

/// The refusal within an error of a stream.
pub(super) fn io_refusal(error: &io::Error) -> Refusal {
    let within = error.get_ref().and_then(|error| error.downcast_ref::<Refusal>());
    within.cloned().unwrap_or_else(|| malformed(error))
}

fn io_error(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, refusal)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { send, recv, guard } = self.get_mut();
        if let End::Unanswered(_) = recv.end {
            // Should it fail, the answer says why.
            let _ = ready!(send.poll_header(guard, cx));
        }
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
        self.get_mut().poll_write_data(cx, bytes).map_err(io_error)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.send.poll_header(&stream.guard, cx)).map_err(io_error)?;
        Poll::Ready(stream.directions().0.finish().map_err(io_error))
    }
}
