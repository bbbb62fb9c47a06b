//! One direction of an exchange: a head of ours, then a body as it comes.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::body::{BodyError, BodyScan, Framing};

/// How much of a body is read at once, in bytes; also the most that is held of it.
const ROOM: usize = 64 * 1024;

/// Why a direction stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum PumpError {
    #[error("the sender broke off: {0}")]
    Read(io::Error),
    #[error("the sender ended within the body")]
    Cut,
    #[error("the body is malformed: {0}")]
    Malformed(#[from] BodyError),
    #[error("the receiver broke off: {0}")]
    Write(io::Error),
}

/// A head and a body on their way. What follows the body stays in the buffer it was read into.
pub(super) struct Pump<'a> {
    head: Bytes,
    buf: &'a mut BytesMut,
    /// How much of `buf` is known to belong to the body.
    checked: usize,
    body: BodyScan,
    /// What is wrong with what follows, once all before it is written.
    malformed: Option<BodyError>,
}

impl<'a> Pump<'a> {
    pub(super) fn new(head: Bytes, buf: &'a mut BytesMut, framing: Framing) -> Self {
        Self {
            head,
            buf,
            checked: 0,
            body: BodyScan::new(framing),
            malformed: None,
        }
    }

    /// What was read beyond the body.
    pub(super) fn rest(&mut self) -> &mut BytesMut {
        self.buf
    }

    /// Moves bytes until the body is complete and written. May be cancelled and called again: nothing is lost.
    pub(super) async fn run(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), PumpError> {
        loop {
            if self.malformed.is_none() && self.checked == 0 && !self.body.is_done() && !self.buf.is_empty() {
                match self.body.scan(self.buf) {
                    Ok(checked) => self.checked = checked,
                    Err(error) => self.malformed = Some(error),
                }
            } else if !self.head.is_empty() || self.checked > 0 {
                // What of the body came with its head goes on with it.
                let slices = [IoSlice::new(&self.head), IoSlice::new(&self.buf[..self.checked])];
                let written = to
                    .write_vectored(&slices)
                    .await
                    .and_then(some)
                    .map_err(PumpError::Write)?;
                self.written(written);
            } else if let Some(error) = self.malformed.take() {
                return Err(error.into());
            } else if self.body.is_done() {
                return to.flush().await.map_err(PumpError::Write);
            } else {
                // What was written must not wait in a buffer for a sender that pauses.
                to.flush().await.map_err(PumpError::Write)?;
                self.buf.reserve(ROOM);
                if from.read_buf(self.buf).await.map_err(PumpError::Read)? == 0 {
                    return if self.body.may_end() {
                        Ok(())
                    } else {
                        Err(PumpError::Cut)
                    };
                }
            }
        }
    }

    fn written(&mut self, count: usize) {
        let of_head = count.min(self.head.len());
        self.head.advance(of_head);
        self.buf.advance(count - of_head);
        self.checked -= count - of_head;
    }
}

fn some(written: usize) -> io::Result<usize> {
    if written == 0 {
        Err(io::ErrorKind::WriteZero.into())
    } else {
        Ok(written)
    }
}
