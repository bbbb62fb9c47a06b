//! From a TCP connection to one that carries streams.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ConnectionCommon;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::TaskTracker;
use tunnel_identity::{
    ChannelBinding, EXPORTER_LABEL,
    tls::{ALPN_ENROL, ALPN_TUNNEL, SERVER_NAME},
};
use tunnel_model::{Reason, Refusal};

use super::{
    Connection, Limits, actor,
    client::Failure,
    error::{io_refusal, is_strangers, other_protocol, tls_error},
    shared::Peer,
};
use crate::quic::Purpose;

/// How long a peer whose handshake failed may take to read why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The client's side.
pub(super) async fn connect(
    tcp: TcpStream,
    tls: Arc<rustls::ClientConfig>,
    limits: &Limits,
    tasks: &TaskTracker,
) -> Result<Connection, Failure> {
    let refused = |error: io::Error| Failure::Refused(io_refusal(&error));
    super::socket::prepare(&tcp, limits.idle_timeout).map_err(refused)?;
    let remote = tcp.peer_addr().map_err(refused)?;
    let wanted = tls.alpn_protocols.first().cloned();
    let name = SERVER_NAME
        .try_into()
        .map_err(|_| internal("the server's name is none"))?;
    let handshake = TlsConnector::from(tls).connect(name, Sniffed::new(tcp)).into_fallible();
    let stream = handshake.await.map_err(|(error, sniffed)| diagnose(&error, &sniffed))?;
    let (sniffed, tls) = stream.into_inner();
    // Something that knows no ALPN agrees to none.
    if tls.alpn_protocol() != wanted.as_deref() {
        return Err(Failure::Refused(other_protocol()));
    }
    let peer = peer(remote, &tls)?;
    let (connection, task) = actor::start(sniffed.tcp, tls.into(), peer, limits)?;
    tasks.spawn(task);
    Ok(connection)
}

/// The server's side. A peer that fails is told why, as far as TLS has words for it.
pub(super) async fn accept(
    tcp: TcpStream,
    remote: SocketAddr,
    tls: TlsAcceptor,
    limits: &Limits,
    tasks: &TaskTracker,
) -> Result<(Connection, Purpose), Refusal> {
    super::socket::prepare(&tcp, limits.idle_timeout).map_err(|error| io_refusal(&error))?;
    let stream = match tls.accept(tcp).into_fallible().await {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            last_words(tcp).await;
            return Err(io_refusal(&error));
        }
    };
    let (tcp, tls) = stream.into_inner();
    let purpose = match tls.alpn_protocol() {
        Some(ALPN_TUNNEL) => Purpose::Tunnel,
        Some(ALPN_ENROL) => Purpose::Enrol,
        // A client may offer none.
        _ => {
            return Err(Refusal::new(
                Reason::UnsupportedVersion,
                "the peer asks for no protocol of ours",
            ));
        }
    };
    let peer = peer(remote, &tls)?;
    let (connection, task) = actor::start(tcp, tls.into(), peer, limits)?;
    tasks.spawn(task);
    Ok((connection, purpose))
}

/// Has the peer read the alert: if the socket were closed with something unread, it would be reset.
async fn last_words(mut tcp: TcpStream) {
    let reading = async {
        tcp.shutdown().await?;
        let mut ignored = [0; 4096];
        while tcp.read(&mut ignored).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // A peer that does not read them goes without.
    let _ = timeout(LAST_WORDS, reading).await;
}

fn peer<D>(remote: SocketAddr, tls: &ConnectionCommon<D>) -> Result<Peer, Refusal> {
    let exported = tls
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|_| internal("the connection exports no key"))?;
    Ok(Peer {
        remote,
        chain: tls.peer_certificates().unwrap_or_default().to_vec(),
        binding: ChannelBinding::new(exported),
    })
}

fn internal(message: &str) -> Refusal {
    Refusal::new(Reason::Internal, message)
}

/// What stands in the way.
fn diagnose(error: &io::Error, sniffed: &Sniffed) -> Failure {
    match tls_error(error) {
        Some(error) if is_strangers(error) => Failure::Inspected,
        _ if sniffed.starts_with(b"HTTP/") => Failure::Portal,
        Some(_) if sniffed.speaks_no_tls() => Failure::NotTls,
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure)) => {
            Failure::Refused(other_protocol())
        }
        Some(_) => Failure::Refused(io_refusal(error)),
        None => Failure::Unreachable(match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection in the handshake".to_owned(),
            _ => error.to_string(),
        }),
    }
}

/// A socket that remembers how the other end began.
#[derive(Debug)]
struct Sniffed {
    tcp: TcpStream,
    first: Vec<u8>,
}

/// What is remembered, in bytes.
const SNIFF: usize = 8;

impl Sniffed {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, first: Vec::new() }
    }

    fn starts_with(&self, bytes: &[u8]) -> bool {
        self.first.starts_with(bytes)
    }

    /// A record of TLS begins with an alert or a handshake (RFC 8446 section 5.1).
    fn speaks_no_tls(&self) -> bool {
        self.first.first().is_some_and(|first| !matches!(first, 21 | 22))
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        let missing = SNIFF.saturating_sub(self.first.len());
        self.first.extend(buf.filled()[before..].iter().take(missing));
        read
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
