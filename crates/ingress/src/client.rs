//! The caller's socket.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tunnel_daemon::listen::end_on_close;
use tunnel_identity::UserIdentity;

use super::{
    halves::{ReadHalf, WriteHalf},
    tls::{Tls, TlsError, TlsSocket},
};

/// How much is read at once while a head or a handshake is awaited, in bytes.
pub(crate) const READ: usize = 8 * 1024;

/// How much a caller may send ahead while it waits for an answer, in bytes.
const AHEAD: usize = 64 * 1024;

/// How long a caller that was told to go may take to do so.
const PARTING: Duration = Duration::from_secs(2);

/// How much it may still send meanwhile, in bytes.
const PARTING_BYTES: usize = 1024 * 1024;

/// A connection from a caller, in the clear or within TLS. Dropping it resets it; only [`Client::finish`] ends it.
pub(crate) struct Client {
    io: Io,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsSocket>),
}

impl Client {
    /// Takes over a connection that came in by [`listen`].
    pub(crate) fn new(io: TcpStream) -> Self {
        Self { io: Io::Plain(io) }
    }

    /// Goes over to TLS, of which `begun` is what the caller has sent; says also who the caller's certificate says it
    /// is, if it showed one. On an error the connection ends with the alert that says why.
    pub(crate) async fn secure(
        self,
        begun: BytesMut,
        tls: &Tls,
    ) -> Result<(Self, Option<Arc<UserIdentity>>), TlsError> {
        let Io::Plain(io) = self.io else {
            return Err(TlsError::Twice);
        };
        match tls.accept(io, begun).await {
            Ok((io, user)) => {
                let io = Io::Tls(Box::new(io));
                Ok((Self { io }, user.map(Arc::new)))
            }
            Err((error, io)) => {
                // A reset could overtake the alert that says why.
                if let Some(io) = io {
                    Self::new(io).finish().await;
                }
                Err(error)
            }
        }
    }

    /// Both directions, to be used at the same time.
    pub(crate) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match &mut self.io {
            Io::Plain(io) => {
                let (read, write) = io.split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Io::Tls(io) => {
                let socket = io.get_ref().0.tcp();
                let (read, write) = tokio::io::split(&mut **io);
                (ReadHalf::Tls(read, Arc::clone(&socket)), WriteHalf::Tls(write, socket))
            }
        }
    }

    /// Ends the connection so that the caller gets all that was written. What it still sends is thrown away for a
    /// moment: bytes left unread would turn the end into a reset, and the last answer might be lost with it (RFC 9112
    /// section 9.6).
    pub(crate) async fn finish(mut self) {
        let parting = async {
            self.shutdown().await?;
            discard(&mut self, PARTING_BYTES).await
        };
        // However it went, the caller had its time.
        let _ = tokio::time::timeout(PARTING, parting).await;
        match &self.io {
            Io::Plain(io) => end_on_close(io),
            Io::Tls(io) => end_on_close(&io.get_ref().0.tcp()),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(&mut **io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(&mut **io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(&mut **io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(&mut **io).poll_shutdown(cx),
        }
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

/// Reads until the end and throws away what comes; gives up on whoever sends more than so many bytes.
pub(crate) async fn discard(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<()> {
    let mut discarded = 0;
    poll_fn(|cx| {
        // Mostly nothing comes but the end, so a buffer is not worth an allocation.
        let mut bytes = [const { MaybeUninit::uninit() }; 2048];
        while discarded < most {
            let mut buf = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buf))?;
            match buf.filled().len() {
                0 => break,
                read => discarded += read,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
