//! Joins a stream with a local byte stream, such as a socket.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tunnel_model::{Reason, Refusal};

use crate::session::{
    Stream,
    stream::{MAX_CHUNKS, Receiver, Sender},
};

/// The first read of a connection that may stay silent for ever, in bytes.
const MIN_READ: usize = 4 * 1024;
/// The largest read, in bytes; reads grow towards it while they come back full.
const MAX_READ: usize = 256 * 1024;

/// What a relay moved, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the local side to the stream.
    pub sent: u64,
    /// Bytes from the stream to the local side.
    pub received: u64,
    /// `Ok` if both directions came to their ends; else why the stream broke. The local side is then to be cut, not
    /// ended.
    pub end: Result<(), Refusal>,
}

/// Moves bytes both ways until both directions have ended, each by itself. An end of the one becomes an end of the
/// other; a break of either breaks both.
pub async fn relay(local: &mut (impl AsyncRead + AsyncWrite + Unpin), stream: Stream) -> Relayed {
    relay_until(local, stream, std::future::pending()).await
}

/// As [`relay`], unless `cut` says before that the stream is to break, and why; the peer hears it too.
pub async fn relay_until(
    local: &mut (impl AsyncRead + AsyncWrite + Unpin),
    mut stream: Stream,
    cut: impl Future<Output = Refusal>,
) -> Relayed {
    let (mut sent, mut received) = (0, 0);
    let moving = async {
        stream.send_header().await?;
        let (from_local, to_local) = tokio::io::split(local);
        let (sender, receiver) = stream.directions();
        let up = send_all(from_local, sender, &mut sent);
        let down = receive_all(receiver, to_local, &mut received);
        tokio::try_join!(up, down).map(|_| ())
    };
    let end = tokio::select! {
        biased;
        end = moving => end,
        why = cut => Err(why),
    };
    if let Err(refusal) = &end {
        stream.reset(refusal);
    }
    Relayed { sent, received, end }
}

async fn send_all(mut from: impl AsyncRead + Unpin, mut to: Sender<'_>, moved: &mut u64) -> Result<(), Refusal> {
    let mut buffer = BytesMut::new();
    let mut read_size = MIN_READ;
    loop {
        // What a read leaves over is read into too: memory that was never written to costs a page fault.
        if buffer.capacity() < read_size / 4 {
            buffer.reserve(read_size);
        }
        let room = buffer.capacity();
        let n = from.read_buf(&mut buffer).await.map_err(|e| local_broke(&e))?;
        if n == 0 {
            return to.finish().await;
        }
        if n == room {
            read_size = (read_size * 2).min(MAX_READ);
        }
        to.write_chunk(buffer.split().freeze()).await?;
        *moved += n as u64;
    }
}

async fn receive_all(mut from: Receiver<'_>, mut to: impl AsyncWrite + Unpin, moved: &mut u64) -> Result<(), Refusal> {
    let mut chunks = [const { Bytes::new() }; MAX_CHUNKS];
    loop {
        let count = from.read_chunks(&mut chunks).await?;
        if count == 0 {
            return to.shutdown().await.map_err(|e| local_broke(&e));
        }
        *moved += write_all_chunks(&mut to, &mut chunks[..count])
            .await
            .map_err(|e| local_broke(&e))?;
    }
}

/// Writes many small chunks with few calls: each is about a packet, and a call for each would cost more than the packet.
async fn write_all_chunks(to: &mut (impl AsyncWrite + Unpin), chunks: &mut [Bytes]) -> io::Result<u64> {
    let mut total = 0;
    let mut first = 0;
    while first < chunks.len() {
        let mut slices = [IoSlice::new(&[]); MAX_CHUNKS];
        let rest = &mut chunks[first..];
        for (slice, chunk) in slices.iter_mut().zip(rest.iter()) {
            *slice = IoSlice::new(chunk);
        }
        let mut written = to.write_vectored(&slices[..rest.len()]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        total += written as u64;
        for chunk in rest {
            let taken = written.min(chunk.len());
            chunk.advance(taken);
            written -= taken;
            if !chunk.is_empty() {
                break;
            }
            // Even an empty chunk holds on to the packet that it came in.
            *chunk = Bytes::new();
            first += 1;
        }
    }
    Ok(total)
}

fn local_broke(error: &io::Error) -> Refusal {
    Refusal::new(
        Reason::TargetReset,
        format!("the connection at the other end broke: {error}"),
    )
}
