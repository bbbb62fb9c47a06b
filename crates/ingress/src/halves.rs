//! The two directions of a caller's connection, plain or within TLS.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, tcp},
};

use super::tls::TlsSocket;

/// What comes from the caller.
pub(crate) enum ReadHalf<'a> {
    Plain(tcp::ReadHalf<'a>),
    /// Beside it the connection below, by which a break is noticed.
    Tls(tokio::io::ReadHalf<&'a mut TlsSocket>, Arc<TcpStream>),
}

/// What goes to the caller.
pub(crate) enum WriteHalf<'a> {
    Plain(tcp::WriteHalf<'a>),
    Tls(tokio::io::WriteHalf<&'a mut TlsSocket>, Arc<TcpStream>),
}

/// Something that may be noticed to have broken without reading from it or writing to it.
pub(crate) trait Breaks {
    /// Waits until it has.
    fn broken(&self) -> impl Future<Output = ()> + Send;
}

impl Breaks for ReadHalf<'_> {
    async fn broken(&self) {
        // An error while waiting for one is one.
        let _ = match self {
            Self::Plain(io) => io.ready(Interest::ERROR).await,
            Self::Tls(_, socket) => socket.ready(Interest::ERROR).await,
        };
    }
}

impl Breaks for WriteHalf<'_> {
    async fn broken(&self) {
        let _ = match self {
            Self::Plain(io) => io.ready(Interest::ERROR).await,
            Self::Tls(_, socket) => socket.ready(Interest::ERROR).await,
        };
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io, _) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io, _) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io, _) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io, _) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
