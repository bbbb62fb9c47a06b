//! One stream, over one stream of each carrier in turn.

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

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Prelude, StreamId};

pub(super) use self::guard::Guard;
use self::{
    receiving::{End, Patience, Receiving},
    sending::Sending,
};
pub(crate) use self::{
    receiving::{MAX_CHUNKS, Receiver},
    sending::Sender,
};
use super::{Flow, shared::Shared};
use crate::link::{RecvStream, SendStream};

/// A two-way byte stream to a target at the peer.
///
/// It outlives the carrier: while there is none, reading and writing wait. [`AsyncWrite::poll_shutdown`] ends the sending
/// direction and leaves the other open. Dropping a stream with a direction that has not ended makes it void at the peer too.
/// Every error carries a [`Refusal`] as its source.
#[derive(Debug)]
pub struct Stream {
    send: Sending,
    recv: Receiving,
    guard: Guard,
}

impl Stream {
    /// A stream that was opened here. The header goes before all data, in one packet with the first of it if there is any
    /// before somebody reads.
    pub(super) fn opened(
        guard: Guard,
        carrier: u64,
        (send, recv): (SendStream, RecvStream),
        header: Bytes,
        patience: Duration,
    ) -> Self {
        let patience = Patience {
            due: Box::pin(sleep(patience)),
            time: patience,
        };
        Self {
            send: Sending::new(carrier, send, header),
            recv: Receiving::new(carrier, recv, Some(Prelude::default()), Some(patience)),
            guard,
        }
    }

    /// One that the peer opened, and what came behind its header.
    pub(super) fn accepted(guard: Guard, carrier: u64, send: SendStream, recv: RecvStream, first: Bytes) -> Self {
        let mut stream = Self {
            send: Sending::new(carrier, send, Bytes::new()),
            recv: Receiving::new(carrier, recv, None, None),
            guard,
        };
        let Self { recv, guard, .. } = &mut stream;
        guard.shared.with(|state| recv.read_ahead(guard, state, carrier, first));
        stream
    }

    /// Sends the header if no data took it along.
    pub(crate) async fn send_header(&mut self) -> Result<(), Refusal> {
        std::future::poll_fn(|cx| self.send.poll_header(&self.guard, cx)).await
    }

    /// Waits until the peer has accepted the stream, or says why it did not. Reading waits for this by itself. May be
    /// cancelled and called again.
    pub async fn established(&mut self) -> Result<(), Refusal> {
        self.send_header().await?;
        std::future::poll_fn(|cx| self.recv.poll_answer(&self.guard, cx)).await
    }

    /// Makes room for the stream's data: it is wanted here, and no longer only what a peer sends unasked.
    pub(super) fn want(&mut self) {
        self.guard.grant();
    }

    /// Answers that the target is there.
    pub(super) fn answer_with(&mut self, reply: Bytes) {
        self.send.head_with(reply);
    }

    /// Makes a flow of a stream that was opened for packets, before anything was written to it or read from it.
    pub fn into_flow(self) -> Flow {
        Flow::new(self, false)
    }

    /// Whether the peer has taken the stream.
    pub(super) fn is_answered(&self) -> bool {
        self.recv.is_answered()
    }

    pub(super) fn id(&self) -> StreamId {
        self.guard.id
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.guard.shared)
    }

    /// Writes a refusal, which is all that is ever said on the stream.
    pub(super) async fn refuse(mut self, reply: Bytes) {
        // The session has forgotten it already: on another carrier it is refused anew.
        self.send.write_last(reply).await;
        self.recv.end = End::Finished;
    }

    /// Resolves when the peer has made the stream void.
    pub(super) async fn peer_gone(&mut self) {
        std::future::poll_fn(|cx| self.guard.poll_broken(cx)).await;
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
        self.send.poll_write(&self.guard, cx, bytes)
    }

    /// Makes the stream void and tells the peer why.
    pub fn reset(mut self, refusal: &Refusal) {
        self.abort(refusal);
    }

    fn abort(&mut self, refusal: &Refusal) {
        let receiving = self.recv.is_open();
        if !self.send.ended || receiving {
            self.guard.reset(refusal);
        }
        // A half that has ended by itself cannot be reset and need not be.
        if !self.send.ended {
            self.send.abort(refusal.reason);
        }
        if receiving {
            self.recv.abort(refusal);
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
    within.cloned().unwrap_or_else(|| guard::malformed(error))
}

fn io_error(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, refusal)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { send, recv, guard } = self.get_mut();
        if !recv.is_answered() {
            // Should it fail, the answer says why.
            let _ = ready!(send.poll_header(guard, cx));
        }
        recv.poll_read(guard, cx, buf).map_err(io_error)
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
        stream.send.finish(&stream.guard);
        Poll::Ready(Ok(()))
    }
}
