//! The two directions of a stream.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tunnel_model::{Reason, Refusal};

use super::{
    connection::Guard,
    lane::{CannotWrite, Got, Lane},
};

/// A stream cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The peer reads no more.
    #[error("the peer stopped reading: {0}")]
    Stopped(Reason),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    ConnectionLost(Refusal),
    /// It was finished or reset here.
    #[error("the stream has ended already")]
    ClosedStream,
}

/// A stream cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The peer made it void.
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    ConnectionLost(Refusal),
    /// Reading was stopped here.
    #[error("the stream has ended already")]
    ClosedStream,
}

/// The direction that is written. What is written waits here while streams of higher priority have something to send.
/// Dropping it before it was finished makes it void.
#[derive(Debug)]
pub struct SendStream {
    lane: Arc<Lane>,
    guard: Arc<Guard>,
}

/// The direction that is read. Dropping it before its end tells the peer that nobody reads.
#[derive(Debug)]
pub struct RecvStream {
    lane: Arc<Lane>,
    guard: Arc<Guard>,
}

/// How much a call wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub bytes: usize,
    /// Chunks that were written to their ends.
    pub chunks: usize,
}

pub(super) fn directions(lane: Arc<Lane>, guard: &Arc<Guard>) -> (SendStream, RecvStream) {
    let send = SendStream {
        lane: Arc::clone(&lane),
        guard: Arc::clone(guard),
    };
    let recv = RecvStream {
        lane,
        guard: Arc::clone(guard),
    };
    (send, recv)
}

impl SendStream {
    /// Takes what there is room for, by copying it.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        let mut taken = 0;
        self.poll_take(cx, |state, room| {
            taken = bytes.len().min(room);
            state.push_slice(&bytes[..taken]);
        })
        .map_ok(|()| taken)
    }

    /// Takes as many of the chunks as there is room for, the last of them perhaps in part. Those that are taken become
    /// empty.
    pub fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Written, WriteError>> {
        let mut written = Written { bytes: 0, chunks: 0 };
        self.poll_take(cx, |state, room| {
            for chunk in chunks {
                let taken = chunk.split_to(chunk.len().min(room - written.bytes));
                written.bytes += taken.len();
                if !taken.is_empty() {
                    state.push(taken);
                }
                if chunk.has_remaining() {
                    break;
                }
                written.chunks += 1;
            }
        })
        .map_ok(|()| written)
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut super::lane::State, usize),
    ) -> Poll<Result<(), WriteError>> {
        if let Some(reason) = self.guard.shared.reason() {
            return Poll::Ready(Err(WriteError::ConnectionLost(reason.clone())));
        }
        match self.lane.poll_write(cx, take) {
            // It may have ended since.
            Poll::Pending => match self.guard.shared.reason() {
                Some(reason) => Poll::Ready(Err(WriteError::ConnectionLost(reason.clone()))),
                None => Poll::Pending,
            },
            Poll::Ready(taken) => Poll::Ready(taken.map_err(WriteError::from)),
        }
    }

    /// Writes all of the chunk, waiting for room.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        self.write_all_chunks(&mut [chunk]).await
    }

    /// Writes all of all chunks, waiting for room.
    pub async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        let mut first = 0;
        while first < chunks.len() {
            first += self.write_chunks(&mut chunks[first..]).await?.chunks;
        }
        Ok(())
    }

    /// Waits for room and takes what fits, like [`Self::poll_write_chunks`].
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Written, WriteError> {
        poll_fn(|cx| self.poll_write_chunks(cx, chunks)).await
    }

    /// Writes all of the bytes, waiting for room.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            bytes.advance(poll_fn(|cx| self.poll_write(cx, bytes)).await?);
        }
        Ok(())
    }

    /// Ends the direction after what was written.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        Ok(self.lane.finish()?)
    }

    /// Makes the direction void: what was written and not sent is dropped, and what the peer has not read too.
    pub fn reset(&mut self, reason: Reason) {
        self.lane.reset(reason);
    }

    /// Resolves when the peer reads no more, with its reason; or with none, once all that was written and the end after it
    /// go out before anything that is said later, such as a farewell.
    pub async fn stopped(&mut self) -> Result<Option<Reason>, WriteError> {
        poll_fn(|cx| match self.lane.poll_stopped(cx) {
            Poll::Ready(stopped) => Poll::Ready(Ok(stopped)),
            Poll::Pending => match self.guard.shared.reason() {
                Some(reason) => Poll::Ready(Err(WriteError::ConnectionLost(reason.clone()))),
                None => Poll::Pending,
            },
        })
        .await
    }

    /// Streams of higher priority go first; those of equal priority take turns. The first is 0.
    pub fn set_priority(&self, priority: i32) {
        self.lane.place.set_priority(priority);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.lane.abandon();
    }
}

impl RecvStream {
    /// Tells the peer that the stream is wanted. Until then it sends no more than the first 12 KiB. Writing to the stream
    /// says the same, and so does reading more than 8 KiB of it.
    pub fn want(&self) {
        self.lane.want();
    }

    /// The next data, at most `max` bytes; `None` if the peer's stream has ended.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        match self.lane.poll_read(cx, max) {
            Poll::Ready(Got::Data(data)) => Poll::Ready(Ok(Some(data))),
            Poll::Ready(Got::End) => Poll::Ready(Ok(None)),
            Poll::Ready(Got::Reset(reason)) => Poll::Ready(Err(ReadError::Reset(reason))),
            Poll::Ready(Got::Closed) => Poll::Ready(Err(ReadError::ClosedStream)),
            Poll::Pending => match self.guard.shared.reason() {
                Some(reason) => Poll::Ready(Err(ReadError::ConnectionLost(reason.clone()))),
                None => Poll::Pending,
            },
        }
    }

    /// Fills the buffer's room with what there is; with nothing if the peer's stream has ended.
    pub fn poll_read_buf(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), ReadError>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            match self.poll_read_chunk(cx, buf.remaining()) {
                Poll::Ready(Ok(Some(data))) => buf.put_slice(&data),
                // It comes again.
                _ if buf.filled().len() > before => break,
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the next data, at most `max` bytes; `None` if the peer's stream has ended.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read_chunk(cx, max)).await
    }

    /// Fills the first of `chunks` with what there is and says how many; waits for one. `None` if the peer's stream has
    /// ended.
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        poll_fn(|cx| self.poll_read_chunks(cx, chunks)).await
    }

    /// Likewise.
    pub fn poll_read_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, ReadError>> {
        let mut count = 0;
        for place in chunks {
            match self.poll_read_chunk(cx, usize::MAX) {
                Poll::Ready(Ok(Some(chunk))) => *place = chunk,
                // It comes again.
                _ if count > 0 => break,
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            count += 1;
        }
        Poll::Ready(Ok(Some(count)))
    }

    /// Reads no more, and tells the peer why.
    pub fn stop(&mut self, reason: Reason) {
        self.lane.stop(reason);
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.lane.stop(Reason::Cancelled);
    }
}

impl From<CannotWrite> for WriteError {
    fn from(error: CannotWrite) -> Self {
        match error {
            CannotWrite::Ended => Self::ClosedStream,
            CannotWrite::Stopped(reason) => Self::Stopped(reason),
        }
    }
}
