//! The ways in beside the proxy port: SNI, host-routed HTTP, and forwards, of the configuration and of commands.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    error::{CliError, Exit},
    shutdown::Tasks,
};
use tunnel_ingress::{
    Door, IngressMetrics,
    forward::{Asker, Forward, udp},
};
use tunnel_model::{ADMINS, Principal, Protocol};

use super::cannot_listen;
use crate::{
    admin::{
        OpenForward,
        api::{CreateForward, ForwardView},
    },
    config::{self, Config},
    dial::Gateway,
};

/// Who asks for the streams of a forward that a command holds open.
const OPERATOR: &str = "operator";

/// A port of the configuration, bound and not served yet.
pub(super) struct Bound {
    name: &'static str,
    port: Port,
}

enum Port {
    Connections(Door, TcpListener),
    Packets(Arc<Forward>, UdpSocket),
}

/// Where the ports of the configuration are.
#[derive(Default)]
pub(super) struct Places {
    pub(super) sni: Vec<SocketAddr>,
    pub(super) http: Vec<SocketAddr>,
    pub(super) forwards: Vec<ForwardView>,
}

/// What serves ports; clones share it. It does not keep the gateway alive, so that whatever asks for ports may.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) gateway: Weak<Gateway>,
    pub(super) connections: usize,
    pub(super) accepting: AcceptMetrics,
    pub(super) metrics: IngressMetrics,
    pub(super) tasks: Tasks,
}

/// The proxy port, bound already.
pub(super) fn proxy(listener: TcpListener) -> Bound {
    Bound {
        name: "proxy",
        port: Port::Connections(Door::Proxy, listener),
    }
}

/// Binds every port of the configuration but the proxy's.
pub(super) fn bind(config: &Config) -> Result<(Vec<Bound>, Places), CliError> {
    let mut all = Vec::new();
    let mut places = Places::default();
    for &address in &config.listen.sni.0 {
        let (listener, local) = listen("listen.sni", address)?;
        let door = Door::Sni { port: local.port() };
        places.sni.push(local);
        all.push(Bound {
            name: "sni",
            port: Port::Connections(door, listener),
        });
    }
    for &address in &config.listen.http.0 {
        let (listener, local) = listen("listen.http", address)?;
        places.http.push(local);
        all.push(Bound {
            name: "http",
            port: Port::Connections(Door::Http, listener),
        });
    }
    for forward in &config.forward {
        let to = Arc::new(Forward {
            destination: forward.destination(),
            asker: forward.user.clone().map_or(Asker::Caller, Asker::User),
            closed: CancellationToken::new(),
        });
        let (port, local) = match forward.protocol {
            Protocol::Tcp => {
                let (listener, local) = listen("forward.listen", forward.listen)?;
                (Port::Connections(Door::Forward(to), listener), local)
            }
            Protocol::Udp => {
                let (socket, local) = listen_udp("forward.listen", forward.listen)?;
                (Port::Packets(to, socket), local)
            }
        };
        places.forwards.push(view(forward, local));
        all.push(Bound { name: "forward", port });
    }
    Ok((all, places))
}

fn view(forward: &config::Forward, listen: SocketAddr) -> ForwardView {
    ForwardView {
        listen,
        node: forward.node.clone(),
        target: forward.target.clone(),
        protocol: forward.protocol,
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let bound = || {
        let listener = tunnel_ingress::listen(address)?;
        let local = listener.local_addr()?;
        io::Result::Ok((listener, local))
    };
    bound().map_err(|error| cannot_listen(key, address, &error))
}

fn listen_udp(key: &'static str, address: SocketAddr) -> Result<(UdpSocket, SocketAddr), CliError> {
    let bound = || {
        let socket = udp::bind(address)?;
        let local = socket.local_addr()?;
        io::Result::Ok((socket, local))
    };
    bound().map_err(|error| cannot_listen(key, address, &error))
}

impl Ways {
    /// Serves a port of the configuration for as long as the process runs.
    pub(super) fn serve(&self, gateway: &Arc<Gateway>, bound: Bound) {
        let Bound { name, port } = bound;
        match port {
            Port::Connections(door, listener) => {
                let serving = self.connections(name, door, listener, gateway);
                self.tasks.spawn_critical(name, serving);
            }
            Port::Packets(forward, socket) => {
                let serving = self.packets(forward, socket, gateway);
                self.tasks.spawn_critical(name, serving);
            }
        }
    }

    fn connections(
        &self,
        name: &'static str,
        door: Door,
        listener: TcpListener,
        gateway: &Arc<Gateway>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        tunnel_ingress::serve(
            Acceptor::new(listener, self.connections, &self.accepting, name),
            door,
            Arc::clone(gateway),
            tunnel_ingress::Limits::default(),
            self.metrics.clone(),
            self.tasks.clone(),
        )
    }

    fn packets(
        &self,
        forward: Arc<Forward>,
        socket: UdpSocket,
        gateway: &Arc<Gateway>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        udp::serve(
            socket,
            forward,
            Arc::clone(gateway),
            udp::ClientLimits::default(),
            self.metrics.clone(),
            self.tasks.clone(),
        )
    }

    /// Opens a forward for a command, until what it returns is dropped.
    pub(super) fn open(&self, wanted: &CreateForward) -> Result<OpenForward, CliError> {
        let stopping = || CliError::new(Exit::Failure, "gateway-stopping", "the gateway is stopping");
        let gateway = self.gateway.upgrade().ok_or_else(stopping)?;
        let closed = CancellationToken::new();
        let forward = Arc::new(Forward {
            destination: wanted.destination(),
            asker: Asker::Known(operator()?),
            closed: closed.clone(),
        });
        let (serving, local): (BoxFuture<'static, io::Result<()>>, _) = match wanted.protocol {
            Protocol::Tcp => {
                let (listener, local) = listen("--listen", wanted.listen)?;
                let door = Door::Forward(forward);
                (Box::pin(self.connections("forward", door, listener, &gateway)), local)
            }
            Protocol::Udp => {
                let (socket, local) = listen_udp("--listen", wanted.listen)?;
                (Box::pin(self.packets(forward, socket, &gateway)), local)
            }
        };
        let to = wanted.destination();
        tracing::info!(listen = %local, %to, "a command opened a forward");
        self.tasks.spawn(async move {
            match serving.await {
                Ok(()) => tracing::info!(listen = %local, %to, "a forward was closed"),
                Err(error) => tracing::warn!(listen = %local, %to, %error, "a forward ended"),
            }
        });
        Ok(OpenForward {
            listen: local,
            held: closed.drop_guard(),
            ending: self.tasks.cutting(),
        })
    }
}

/// Whoever may open the admin socket: an administrator.
fn operator() -> Result<Principal, CliError> {
    let internal = |what: String| CliError::new(Exit::Failure, "internal", what);
    let name = OPERATOR.parse().map_err(|error| internal(format!("{error}")))?;
    let group = ADMINS.parse().map_err(|error| internal(format!("{error}")))?;
    Ok(Principal::user(name, vec![group]))
}
