//! Ways out of a site: local listeners, each for one service of the cloud side or of another edge, and a proxy that takes
//! the service's name from its clients (`proxy`).
//!
//! Every connection becomes a stream to the gateway, and the packets of every client of UDP a flow; the gateway's policy
//! decides. Listeners stay while the tunnel is down; connections are reset then, packets lost, and the proxy says why.

mod news;
mod packets;
pub(crate) mod proxy;
mod service;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tracing::{debug, info};
use tunnel_carrier::{Stream, relay};
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    listen, udp,
};
use tunnel_ingress::{Dialled, NotDialled, forward};
use tunnel_model::{ChosenClass, Class, NodeName, Protocol, Reason, Refusal, Target, TraceId};
use tunnel_proto::Open;

use self::news::News;
pub use self::service::{ParseRemoteServiceError, RemoteService};
use crate::{agent::Shared, config::Listener};

/// How long the gateway and what lies behind it may take to answer. The gateway's own deadline is shorter, so that its
/// reason arrives.
const DIAL_DEADLINE: Duration = Duration::from_secs(20);
/// Connections that one listener serves at once: as many as a gateway lets an edge open streams. More wait in the
/// backlog.
const CONNECTIONS: usize = 64;

/// A listener that is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    wanted: Wanted,
    port: Port,
}

/// What a listener leads to.
#[derive(Debug, Clone)]
struct Wanted {
    service: RemoteService,
    class: Class,
}

impl Wanted {
    fn of(listener: &Listener) -> Self {
        let service = listener.service.clone();
        let named = || Target::Service(service.service.clone()).class();
        Self {
            class: listener.class.map_or_else(named, ChosenClass::get),
            service,
        }
    }

    /// What the gateway is asked for.
    fn header(&self, protocol: Protocol, trace: TraceId) -> Open {
        let target = Target::Service(self.service.service.clone());
        Open {
            protocol,
            ..wish(self.service.node.clone(), target, self.class, trace)
        }
    }
}

#[derive(Debug)]
enum Port {
    Connections(Acceptor<TcpListener>),
    Packets(UdpSocket),
}

/// Binds a listener. Needs a tokio runtime.
pub(crate) fn bind(listener: &Listener, metrics: &AcceptMetrics) -> io::Result<Bound> {
    let (port, address) = match listener.protocol {
        Protocol::Tcp => {
            let socket = listen::listen(listener.listen)?;
            let address = socket.local_addr()?;
            let acceptor = Acceptor::new(socket, CONNECTIONS, metrics, "service");
            (Port::Connections(acceptor), address)
        }
        Protocol::Udp => {
            let socket = udp::bind(listener.listen)?;
            let address = socket.local_addr()?;
            (Port::Packets(socket), address)
        }
    };
    info!(listen = %address, protocol = %listener.protocol, service = %listener.service, "listening");
    Ok(Bound {
        address,
        wanted: Wanted::of(listener),
        port,
    })
}

/// Serves clients until the agent stops.
pub(crate) async fn run(shared: Arc<Shared>, bound: Bound) -> io::Result<()> {
    let Bound { address, wanted, port } = bound;
    let news = Arc::new(News::new(address, wanted.service.clone()));
    match port {
        Port::Connections(acceptor) => accept(shared, acceptor, wanted, news).await,
        Port::Packets(socket) => packets::run(shared, socket, wanted, news).await,
    }
}

async fn accept(
    shared: Arc<Shared>,
    mut acceptor: Acceptor<TcpListener>,
    wanted: Wanted,
    news: Arc<News>,
) -> io::Result<()> {
    let stopping = shared.tasks.stopping();
    while let Some(accepted) = stopping.run_until_cancelled(acceptor.accept()).await {
        let accepted = accepted?;
        let (serving, wanted, news) = (Arc::clone(&shared), wanted.clone(), Arc::clone(&news));
        let cutting = shared.tasks.cutting();
        shared.tasks.spawn(async move {
            let _permit = accepted.permit;
            // A connection that is dropped is reset.
            let served = serve(&serving, &wanted, &news, accepted.io);
            cutting.run_until_cancelled(served).await;
        });
    }
    Ok(())
}

/// Serves one connection to its end.
async fn serve(shared: &Shared, wanted: &Wanted, news: &News, mut local: TcpStream) {
    let (service, trace) = (&wanted.service, TraceId::random(&mut rand::rng()));
    let mut ahead = BytesMut::new();
    let opening = reach(shared, wanted, trace);
    let reached = match forward::open(&mut local, &mut ahead, opening).await {
        Ok(outbound) => Ok(outbound),
        Err(NotDialled::Refused(refusal)) => Err(refusal),
        Err(NotDialled::CallerGone) => {
            return debug!(%service, %trace, "the client went away before the service answered");
        }
    };
    shared
        .metrics
        .went_out(reached.as_ref().map(drop).map_err(|refusal| refusal.reason));
    let Outbound { stream, sent } = match reached {
        Ok(outbound) => outbound,
        Err(refusal) => return news.failed(&refusal, trace),
    };
    news.worked();
    debug!(%service, %trace, "stream opened");
    let _open = shared.metrics.stream_opened();
    let (from_local, to_local) = local.split();
    let mut relayed = relay(&mut tokio::io::join((&ahead[..]).chain(from_local), to_local), stream).await;
    relayed.sent += sent;
    shared.metrics.relayed(&relayed);
    match relayed.end {
        Ok(()) => listen::end_on_close(&local),
        Err(refusal) => {
            debug!(%service, %trace, reason = %refusal.reason, error = %refusal.message, "stream broke");
        }
    }
}

/// A stream to the service, which may not be there yet.
async fn reach(shared: &Shared, wanted: &Wanted, trace: TraceId) -> Result<Outbound, Refusal> {
    let tunnel = shared.tunnel_for(wanted.class)?;
    let stream = tunnel.open(&wanted.header(Protocol::Tcp, trace), DIAL_DEADLINE).await?;
    Ok(Outbound { stream, sent: 0 })
}

/// A stream to the gateway, and beyond it, while its target is awaited.
struct Outbound {
    stream: Stream,
    /// What was said ahead, in bytes.
    sent: u64,
}

impl Dialled for Outbound {
    async fn established(&mut self) -> Result<(), Refusal> {
        self.stream.established().await
    }
}

impl AsyncRead for Outbound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Outbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.sent += *count as u64;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the gateway is asked for.
fn wish(node: NodeName, target: Target, class: Class, trace: TraceId) -> Open {
    Open {
        target,
        protocol: Protocol::Tcp,
        encoding: tunnel_model::Encoding::Raw,
        class,
        trace,
        // The gateway knows who this is.
        principal: String::new(),
        node: Some(node),
    }
}

/// What somebody who reads the log can do about it.
fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::Denied => "the gateway needs a rule for this node and that service",
        Reason::UnknownService => "declare the service where it is to be, or correct its name",
        Reason::BadRequest => "give the listener the protocol that the service has",
        Reason::Unauthenticated | Reason::Revoked => "the gateway does not know this node; join anew",
        _ => "connections are tried again as they come",
    }
}
