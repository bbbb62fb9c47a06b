//! One caller's connection, whatever it speaks.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tunnel_daemon::shutdown::Tasks;
use tunnel_identity::UserIdentity;
use tunnel_model::{Class, Destination, Host, Principal, Refusal, TraceId};

use super::{
    Credential, Dial, DialRequest, Dialled, Door, IngressMetrics, Limits, Way,
    client::{Client, READ, broken},
    forward, http1, sni, socks5, tls,
};

/// What the protocols need to serve one connection.
pub(crate) struct Session<D> {
    /// What lies behind the way in.
    pub(crate) behind: Arc<D>,
    /// Where the caller came in.
    pub(crate) door: Door,
    pub(crate) limits: Limits,
    pub(crate) metrics: IngressMetrics,
    /// Cancelled when no further request is taken.
    pub(crate) stopping: CancellationToken,
    /// For what goes on after the connection.
    pub(crate) tasks: Tasks,
    /// Where the caller connected from.
    pub(crate) peer: SocketAddr,
    /// Who opened the connection, where its certificate says.
    pub(crate) certificate: Option<Arc<UserIdentity>>,
}

/// How a connection begins.
enum Begin {
    /// With these bytes.
    Bytes,
    /// Not at all: the caller ended it, or the process is about to.
    End,
    /// The caller broke it off, or took too long.
    Silent,
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDialled {
    /// The caller is to be told.
    Refused(Refusal),
    /// There is nobody left to tell.
    CallerGone,
}

impl<D: Dial> Session<D> {
    /// Serves the connection to its end.
    pub(crate) async fn run(mut self, mut client: Client) {
        if let Door::Forward(forward) = &self.door {
            return forward::tcp::run(&self, client, forward).await;
        }
        let deadline = Instant::now() + self.limits.handshake;
        let mut buf = BytesMut::with_capacity(READ);
        let mut first = self.begin(&mut client, &mut buf, deadline).await;
        if let (Begin::Bytes, &[tls::HANDSHAKE, ..]) = (&first, &buf[..])
            && let (Door::Proxy, Some(tls)) = (&self.door, self.behind.tls())
        {
            let begun = std::mem::replace(&mut buf, BytesMut::with_capacity(READ));
            (client, self.certificate) = match timeout_at(deadline, client.secure(begun, &tls)).await {
                Ok(Ok(secured)) => secured,
                Ok(Err(error)) => return tracing::debug!(client = %self.peer, %error, "no TLS connection"),
                Err(_) => return tracing::debug!(client = %self.peer, "a TLS handshake took too long"),
            };
            first = self.begin(&mut client, &mut buf, deadline).await;
        }
        match first {
            Begin::End => client.finish().await,
            Begin::Bytes if let Door::Sni { port } = self.door => sni::run(self, client, buf, port, deadline).await,
            Begin::Bytes if matches!(self.door, Door::Proxy) && buf[0] == socks5::VERSION => {
                socks5::run(self, client, buf, deadline).await
            }
            Begin::Bytes => http1::run(self, client, buf, deadline).await,
            Begin::Silent => tracing::debug!(client = %self.peer, "a caller said nothing"),
        }
    }

    /// Waits for the first bytes of what the caller speaks.
    async fn begin(&self, client: &mut Client, buf: &mut BytesMut, deadline: Instant) -> Begin {
        tokio::select! {
            read = timeout_at(deadline, client.read_buf(buf)) => match read {
                Ok(Ok(0)) => Begin::End,
                Ok(Ok(_)) => Begin::Bytes,
                Ok(Err(_)) | Err(_) => Begin::Silent,
            },
            () = self.stopping.cancelled() => Begin::End,
        }
    }

    /// Finds out who asks: by what the request shows, else by the connection's certificate, else by the address. A
    /// credential that is shown and wrong is never made up for by a certificate.
    pub(crate) async fn authenticate(&self, shown: Option<Credential>) -> Result<Principal, Refusal> {
        let certificate = || self.certificate.clone().map(Credential::Certificate);
        self.behind.authenticate(shown.or_else(certificate), self.peer).await
    }

    /// What a host name and port stand for; a name that is none of ours is not looked up anywhere.
    pub(crate) fn destination(&self, principal: &Principal, host: &str, port: u16) -> Result<Destination, Refusal> {
        match Host::new(host, port, self.behind.zone()) {
            Ok(host) => self.behind.destination(principal, host, port),
            Err(error) => Err(self.behind.no_host(&error)),
        }
    }

    /// Opens a stream, whose target may not be there yet, or gives up when the caller does. What the caller sends ahead
    /// is kept.
    pub(crate) async fn dial(
        &self,
        client: &mut Client,
        ahead: &mut BytesMut,
        request: DialRequest,
    ) -> Result<D::Stream, NotDialled> {
        unless_gone(client, ahead, self.behind.dial(request)).await
    }

    /// Opens a stream and waits for its target.
    pub(crate) async fn connect(
        &self,
        client: &mut Client,
        ahead: &mut BytesMut,
        request: DialRequest,
    ) -> Result<D::Stream, NotDialled> {
        let connecting = async {
            let mut stream = self.behind.dial(request).await?;
            stream.established().await?;
            Ok(stream)
        };
        unless_gone(client, ahead, connecting).await
    }

    /// A wish of this caller's, of the class that was chosen for it if one was.
    pub(crate) fn request(
        &self,
        way: Way,
        principal: Principal,
        destination: Destination,
        class: Option<Class>,
        trace: TraceId,
    ) -> DialRequest {
        let class = class.unwrap_or_else(|| self.behind.class(&destination));
        DialRequest {
            principal,
            destination,
            class,
            way,
            trace,
            client: self.peer,
        }
    }

    /// Counts and notes a refusal.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.metrics.refused(refusal.reason);
        let Refusal { reason, message } = refusal;
        if self.door.explains() {
            tracing::debug!(client = %self.peer, %reason, error = message, "refused");
        } else {
            tracing::info!(client = %self.peer, %reason, error = message, "refused");
        }
    }
}

/// Waits for a stream, or for the caller to give up on it. What the caller sends ahead is kept.
pub(crate) async fn unless_gone<S>(
    client: &mut (impl AsyncRead + Unpin),
    ahead: &mut BytesMut,
    opening: impl Future<Output = Result<S, Refusal>>,
) -> Result<S, NotDialled> {
    tokio::select! {
        opened = opening => opened.map_err(NotDialled::Refused),
        _ = broken(client, ahead) => Err(NotDialled::CallerGone),
    }
}
