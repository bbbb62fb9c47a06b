//! TLS towards callers: the same port and protocols, inside TLS 1.3.
//!
//! The caller's end of a direction is its `close_notify`; a connection that ends without one was cut, and is an error
//! to whoever reads (RFC 8446 section 6.1). The other way round a connection that is dropped is reset before any
//! `close_notify`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tunnel_identity::{ClusterRoot, Credential, IdentityError, UnixTime, UserIdentity, tls};

/// The first byte of a handshake record (RFC 8446 section 5.1). Neither HTTP nor SOCKS begins with it.
pub(super) const HANDSHAKE: u8 = 0x16;

/// A caller's connection within TLS.
pub(super) type TlsSocket = TlsStream<Socket>;

/// What it takes to speak TLS with callers.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    root: ClusterRoot,
}

/// There is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    #[error("the caller's certificate: {0}")]
    Identity(#[from] IdentityError),
    #[error("TLS within TLS is not served")]
    Twice,
}

impl Tls {
    /// With the gateway's certificate, for callers with certificates of users below this root and for callers without.
    pub fn new(gateway: &Credential, root: &ClusterRoot) -> Result<Self, rustls::Error> {
        Ok(Self {
            config: Arc::new(tls::server_config_proxy(gateway, root)?),
            root: root.clone(),
        })
    }

    /// Shakes hands; `begun` is what the caller has sent already. With an error comes the connection, if there is one.
    pub(super) async fn accept(
        &self,
        io: TcpStream,
        begun: BytesMut,
    ) -> Result<(TlsSocket, Option<UserIdentity>), (TlsError, Option<TcpStream>)> {
        let socket = Socket {
            tcp: Arc::new(io),
            begun,
        };
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket);
        let io = accepting
            .into_fallible()
            .await
            .map_err(|(error, socket)| (error.into(), Arc::into_inner(socket.tcp)))?;
        let now = UnixTime::from(SystemTime::now());
        let user = io.get_ref().1.peer_certificates().map(|chain| {
            let user = UserIdentity::from_chain(chain, &self.root, now);
            user.map_err(|error| (error.into(), None))
        });
        Ok((io, user.transpose()?))
    }
}

/// The connection below TLS: what was read before TLS was known to be spoken comes first. It is shared, so that a break
/// of it can be noticed while both directions are in use.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: Arc<TcpStream>,
    begun: BytesMut,
}

impl Socket {
    /// The connection itself.
    pub(super) fn tcp(&self) -> Arc<TcpStream> {
        Arc::clone(&self.tcp)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let n = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun[..n]);
            self.begun.advance(n);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_write_vectored(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.tcp).shutdown(std::net::Shutdown::Write))
    }
}
