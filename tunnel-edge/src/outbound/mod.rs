//! Ways out of a site: local listeners, each for one service of the cloud side or of another edge, and a proxy that takes
//! the service's name from its clients (`proxy`).
//!
//! Every connection becomes a stream to the gateway, and the packets of every client of UDP a flow; the gateway's policy
//! decides. Listeners stay while the tunnel is down; connections are reset then, packets lost, and the proxy says why.

mod news;
mod packets;
pub(crate) mod proxy;
mod service;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UdpSocket},
};
use tracing::{debug, info};
use tunnel_carrier::{Stream, relay};
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    listen, udp,
};
use tunnel_model::{Class, NodeName, Protocol, Reason, Refusal, Target, TraceId};
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
    service: RemoteService,
    port: Port,
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
        service: listener.service.clone(),
        port,
    })
}

/// Serves clients until the agent stops.
pub(crate) async fn run(shared: Arc<Shared>, bound: Bound) -> io::Result<()> {
    let Bound { address, service, port } = bound;
    let news = Arc::new(News::new(address, service.clone()));
    match port {
        Port::Connections(acceptor) => accept(shared, acceptor, service, news).await,
        Port::Packets(socket) => packets::run(shared, socket, service, news).await,
    }
}

async fn accept(
    shared: Arc<Shared>,
    mut acceptor: Acceptor<TcpListener>,
    service: RemoteService,
    news: Arc<News>,
) -> io::Result<()> {
    let stopping = shared.tasks.stopping();
    while let Some(accepted) = stopping.run_until_cancelled(acceptor.accept()).await {
        let accepted = accepted?;
        let (serving, service, news) = (Arc::clone(&shared), service.clone(), Arc::clone(&news));
        let cutting = shared.tasks.cutting();
        shared.tasks.spawn(async move {
            let _permit = accepted.permit;
            // A connection that is dropped is reset.
            let served = serve(&serving, &service, &news, accepted.io);
            cutting.run_until_cancelled(served).await;
        });
    }
    Ok(())
}

/// Serves one connection to its end.
async fn serve(shared: &Shared, service: &RemoteService, news: &News, mut local: TcpStream) {
    let trace = TraceId::random(&mut rand::rng());
    let reached = tokio::select! {
        reached = reach(shared, service, trace) => reached,
        // An error while waiting for one is one.
        _ = local.ready(Interest::ERROR) => return debug!(%service, %trace, "the client went away before the service answered"),
    };
    shared
        .metrics
        .went_out(reached.as_ref().map(drop).map_err(|refusal| refusal.reason));
    let stream = match reached {
        Ok(stream) => stream,
        Err(refusal) => return news.failed(&refusal, trace),
    };
    news.worked();
    debug!(%service, %trace, "stream opened");
    let _open = shared.metrics.stream_opened();
    let relayed = relay(&mut local, stream).await;
    shared.metrics.relayed(&relayed);
    match relayed.end {
        Ok(()) => listen::end_on_close(&local),
        Err(refusal) => {
            debug!(%service, %trace, reason = %refusal.reason, error = %refusal.message, "stream broke");
        }
    }
}

/// A stream to the service, which is there.
async fn reach(shared: &Shared, service: &RemoteService, trace: TraceId) -> Result<Stream, Refusal> {
    let open = header(service, Protocol::Tcp, trace);
    let tunnel = shared.tunnel_for(open.class)?;
    let mut stream = tunnel.open(&open, DIAL_DEADLINE).await?;
    stream.established().await?;
    Ok(stream)
}

/// What the gateway is asked for, by a listener for one service.
fn header(service: &RemoteService, protocol: Protocol, trace: TraceId) -> Open {
    let target = Target::Service(service.service.clone());
    Open {
        protocol,
        ..wish(service.node.clone(), target, Class::default(), trace)
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
