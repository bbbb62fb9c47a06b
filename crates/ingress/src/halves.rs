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

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io, _) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io, _) => io.is_write_vectored(),
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

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;
    use crate::client::Client;

    #[tokio::test]
    async fn the_head_and_the_body_of_an_answer_go_out_with_one_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut client = Client::new(listener.accept().await.unwrap().0);
        let (_, mut write) = client.split();
        let slices = [io::IoSlice::new(b"head"), io::IoSlice::new(b"body")];
        assert_eq!(write.write_vectored(&slices).await.unwrap(), 8);
    }
}
