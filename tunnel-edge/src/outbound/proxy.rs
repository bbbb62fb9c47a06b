//! The proxy for local clients: HTTP CONNECT, plain HTTP proxying and SOCKS5, to services of the cloud side and of other
//! edges.
//!
//! Clients name a service and whose it is, and the gateway judges what this node may. Nothing else is taken for a
//! destination, neither an address nor a port of a machine, and nothing is looked up. Clients are asked for no
//! credential; one that is shown all the same is neither read nor passed on.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
};
use tracing::info;
use tunnel_carrier::Stream;
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    listen,
};
use tunnel_ingress::{Credential, Dial, DialRequest, Dialled, Door, IngressMetrics, Limits};
use tunnel_model::{Destination, Host, ParseHostError, Principal, Reason, Refusal, Target, Zone};

use super::{DIAL_DEADLINE, wish};
use crate::{
    agent::Shared,
    config::ProxyConfig,
    metrics::{EdgeMetrics, OpenStream},
};

/// Connections that are served at once; more wait in the backlog. Many of a proxy's connections are idle: how many
/// streams there are is for the gateway to say.
const CONNECTIONS: usize = 1_024;

/// A proxy that is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    zone: Zone,
    acceptor: Acceptor<TcpListener>,
}

/// Binds a proxy. Needs a tokio runtime.
pub(crate) fn bind(config: &ProxyConfig, metrics: &AcceptMetrics) -> io::Result<Bound> {
    let socket = listen::listen(config.listen)?;
    let address = socket.local_addr()?;
    info!(listen = %address, "proxy listening");
    Ok(Bound {
        address,
        zone: config.zone.clone(),
        acceptor: Acceptor::new(socket, CONNECTIONS, metrics, "proxy"),
    })
}

/// Serves clients until the agent stops.
pub(crate) async fn run(shared: Arc<Shared>, bound: Bound, metrics: IngressMetrics) -> io::Result<()> {
    let limits = Limits {
        // They are all of one site, and often of one machine.
        per_address: CONNECTIONS,
        per_network: CONNECTIONS,
        ..Limits::default()
    };
    let tasks = shared.tasks.clone();
    let Bound { zone, acceptor, .. } = bound;
    let way_out = Arc::new(WayOut { shared, zone });
    tunnel_ingress::serve(acceptor, Door::Proxy, way_out, limits, metrics, tasks).await
}

/// What lies behind the proxy: the gateway.
struct WayOut {
    shared: Arc<Shared>,
    zone: Zone,
}

impl WayOut {
    /// What is said to somebody who asks for anything but a service.
    fn only_services(&self, asked: impl std::fmt::Display) -> Refusal {
        let zone = &self.zone;
        let message = format!(
            "{asked} names no service; by this proxy only services are reached: write SERVICE.cloud or SERVICE.NODE, \
             with or without .{zone}"
        );
        Refusal::new(Reason::NotAllowed, message)
    }
}

impl Dial for WayOut {
    type Stream = Outbound;

    async fn authenticate(&self, _: Option<Credential>, client: SocketAddr) -> Result<Principal, Refusal> {
        // To the gateway it is the node that asks, whoever the client is.
        Ok(Principal::address(client.ip()))
    }

    fn zone(&self) -> &Zone {
        &self.zone
    }

    fn destination(&self, _: &Principal, host: Host, port: u16) -> Result<Destination, Refusal> {
        if let Some(rule) = self.shared.settings().deny.find(&host, port) {
            let message = format!("this edge's configuration denies that to its clients, by \"{rule}\" of proxy.deny");
            return Err(Refusal::new(Reason::NotAllowed, message));
        }
        match host {
            Host::Named(destination) if matches!(destination.target, Target::Service(_)) => Ok(destination),
            Host::Named(destination) => Err(self.only_services(destination)),
            Host::Address { ip, .. } => Err(self.only_services(ip)),
        }
    }

    fn no_host(&self, error: &ParseHostError) -> Refusal {
        match error {
            ParseHostError::NotAName { host, .. } | ParseHostError::CloudHasServices(host) => {
                self.only_services(format_args!("{host:?}"))
            }
            ParseHostError::NoPort(_) | ParseHostError::BadPort(_) => {
                Refusal::new(Reason::BadRequest, error.to_string())
            }
        }
    }

    async fn dial(&self, request: DialRequest) -> Result<Outbound, Refusal> {
        self.shared.admit(request.class)?;
        let tunnel = self.shared.tunnel().map_err(|why| {
            // Whatever keeps the agent away from its gateway is no fault of the client's.
            let since = self.shared.away_since();
            let message = format!("this edge has had no connection to its gateway since {since}: {why}");
            Refusal::new(Reason::NodeOffline, message)
        })?;
        let Destination { node, target } = request.destination;
        let open = wish(node, target, request.class, request.trace);
        let stream = tunnel.open(&open, DIAL_DEADLINE).await?;
        let metrics = self.shared.metrics.clone();
        Ok(Outbound {
            stream,
            carried: Carried {
                _open: metrics.stream_opened(),
                metrics,
                sent: 0,
                received: 0,
            },
        })
    }
}

/// A stream to the gateway, and beyond it.
struct Outbound {
    stream: Stream,
    carried: Carried,
}

/// What a stream has carried, which is counted when it ends.
struct Carried {
    metrics: EdgeMetrics,
    _open: OpenStream,
    sent: u64,
    received: u64,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.metrics.carried(self.sent, self.received);
    }
}

impl Dialled for Outbound {
    async fn established(&mut self) -> Result<(), Refusal> {
        self.stream.established().await
    }
}

impl AsyncRead for Outbound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.carried.received += (buf.filled().len() - before) as u64;
        read
    }
}

impl AsyncWrite for Outbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.carried.sent += *count as u64;
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
