//! A stream whose bytes are compressed on their way.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, split};
use tunnel_codec::stream::{DECODER_MEMORY, Decoder, ENCODER_MEMORY, Encoder, HEADER};
use tunnel_model::Refusal;

use super::{Broken, Moved, READ, copy, refusal_of, target_broke, violation};

/// The most that is compressed at once, in bytes: no other stream waits for longer than this takes.
const BURST: usize = 32 << 10;

/// How many compressed streams there may be at once.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

/// The share of one stream, given back when dropped.
#[derive(Debug)]
struct Share(Budget);

impl Budget {
    /// So many bytes of memory.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes / (ENCODER_MEMORY + DECODER_MEMORY))))
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn take(&self) -> Option<Share> {
        let taken = self
            .0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.ok().map(|_| Share(self.clone()))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream of the tunnel whose bytes are compressed in it. What is written at once can be read at once at the other end.
pub struct Compressed<S> {
    stream: S,
    /// Nothing if there was no room for it: what is written goes on as it is, in blocks.
    encoder: Option<(Encoder, Share)>,
    /// What is to be written to the stream.
    out: BytesMut,
    decoder: Decoder,
    /// What was read and not taken yet.
    block: Bytes,
    ended: bool,
}

impl<S> fmt::Debug for Compressed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressed")
            .field("encoder", &self.encoder.is_some())
            .field("out", &self.out.len())
            .finish_non_exhaustive()
    }
}

impl<S> Compressed<S> {
    /// Of a stream both of whose ends do this.
    pub fn new(stream: S, budget: &Budget) -> Self {
        Self {
            stream,
            encoder: budget.take().map(|share| (Encoder::default(), share)),
            out: BytesMut::new(),
            decoder: Decoder::default(),
            block: Bytes::new(),
            ended: false,
        }
    }

    /// The stream itself, which is not to be read or written.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream itself, to be made void.
    pub fn into_stream(self) -> S {
        self.stream
    }

    fn encode(&mut self, bytes: &[u8]) {
        match &mut self.encoder {
            Some((encoder, _)) => {
                encoder.write(bytes, &mut self.out);
                encoder.flush(&mut self.out);
            }
            // A raw block: its header is its length.
            None => {
                self.out.reserve(HEADER + bytes.len());
                self.out.put_uint(bytes.len() as u64, HEADER);
                self.out.put_slice(bytes);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Compressed<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Has a block to be taken, unless the stream has ended.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; READ];
        while self.block.is_empty() && !self.ended {
            match self.decoder.next_block() {
                Ok(Some(block)) => self.block = block,
                Ok(None) => {
                    let mut buf = ReadBuf::new(&mut room);
                    ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
                    self.decoder.push(buf.filled());
                    if buf.filled().is_empty() {
                        self.ended = true;
                        std::mem::take(&mut self.decoder).finish().map_err(broken)?;
                    }
                }
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: tunnel_codec::stream::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, violation(error))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Compressed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever waits for an answer has asked for it. Should writing fail, whoever writes is told.
        let _ = this.poll_out(cx);
        ready!(this.poll_block(cx))?;
        let taken = this.block.split_to(this.block.len().min(buf.remaining()));
        buf.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Compressed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        let burst = &bytes[..bytes.len().min(BURST)];
        if !burst.is_empty() {
            this.encode(burst);
        }
        match this.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(burst.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Joins a target with its stream, to the ends of both directions.
///
/// # Errors
/// One of the sides broke: both are to be reset.
pub async fn relay(
    target: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stream: &mut Compressed<impl AsyncRead + AsyncWrite + Unpin>,
    moved: &mut Moved,
) -> Result<(), Refusal> {
    let (mut from_target, mut to_target) = split(target);
    let (mut from_stream, mut to_stream) = split(stream);
    let up = async {
        let copied = copy(&mut from_target, &mut to_stream, &mut moved.from_target).await;
        copied.map_err(|broken| match broken {
            Broken::From(error) => target_broke(&error),
            Broken::To(error) => refusal_of(&error),
        })
    };
    let down = async {
        let copied = copy(&mut from_stream, &mut to_target, &mut moved.to_target).await;
        copied.map_err(|broken| match broken {
            Broken::From(error) => refusal_of(&error),
            Broken::To(error) => target_broke(&error),
        })
    };
    tokio::try_join!(up, down).map(|_| ())
}

#[cfg(test)]
mod tests;
