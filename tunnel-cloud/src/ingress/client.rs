//! The caller's socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};
use tunnel_daemon::listen::end_on_close;

/// How much is read at once while a head or a handshake is awaited, in bytes.
pub(crate) const READ: usize = 8 * 1024;

/// How much a caller may send ahead while it waits for an answer, in bytes.
const AHEAD: usize = 64 * 1024;

/// How long a caller that was told to go may take to do so.
const PARTING: Duration = Duration::from_secs(2);

/// How much it may still send meanwhile, in bytes.
const PARTING_BYTES: u64 = 1024 * 1024;

/// A connection from a caller. Dropping it resets it; only [`Client::finish`] ends it.
pub(crate) struct Client {
    io: TcpStream,
}

impl Client {
    /// Takes over a connection that came in by [`listen`].
    pub(crate) fn new(io: TcpStream) -> Self {
        Self { io }
    }

    /// Both directions, to be used at the same time.
    pub(crate) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        self.io.split()
    }

    /// Ends the connection so that the caller gets all that was written. What it still sends is thrown away for a
    /// moment: bytes left unread would turn the end into a reset, and the last answer might be lost with it (RFC 9112
    /// section 9.6).
    pub(crate) async fn finish(mut self) {
        let parting = async {
            self.io.shutdown().await?;
            let mut rest = (&mut self.io).take(PARTING_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // However it went, the caller had its time.
        let _ = tokio::time::timeout(PARTING, parting).await;
        end_on_close(&self.io);
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Waits until a caller breaks its connection, keeping what it sends ahead, within bounds. A caller that merely ends
/// its own direction is still there. Cancelling loses nothing.
pub(crate) async fn broken(client: &mut (impl AsyncRead + Unpin), ahead: &mut BytesMut) -> io::Error {
    while ahead.len() < AHEAD {
        ahead.reserve(READ);
        match client.read_buf(ahead).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    std::future::pending().await
}
