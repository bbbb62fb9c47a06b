//! The ways in beside the proxy port: SNI, host-routed HTTP, and forwards, of the configuration and of commands.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    error::{CliError, Exit},
    shutdown::Tasks,
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
    ingress::{
        self, Door, IngressMetrics,
        forward::{Asker, Forward},
    },
};

/// Who asks for the streams of a forward that a command holds open.
const OPERATOR: &str = "operator";

/// A port of the configuration, bound and not served yet.
pub(super) struct Bound {
    name: &'static str,
    door: Door,
    listener: TcpListener,
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
        door: Door::Proxy,
        listener,
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
            door,
            listener,
        });
    }
    for &address in &config.listen.http.0 {
        let (listener, local) = listen("listen.http", address)?;
        places.http.push(local);
        all.push(Bound {
            name: "http",
            door: Door::Http,
            listener,
        });
    }
    for forward in config
        .forward
        .iter()
        .filter(|forward| forward.protocol == Protocol::Tcp)
    {
        let (listener, local) = listen("forward.listen", forward.listen)?;
        places.forwards.push(view(forward, local));
        let forward = Forward {
            destination: forward.destination(),
            asker: forward.user.clone().map_or(Asker::Caller, Asker::User),
            closed: CancellationToken::new(),
        };
        all.push(Bound {
            name: "forward",
            door: Door::Forward(Arc::new(forward)),
            listener,
        });
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
        let listener = ingress::listen(address)?;
        let local = listener.local_addr()?;
        io::Result::Ok((listener, local))
    };
    bound().map_err(|error| cannot_listen(key, address, &error))
}

impl Ways {
    /// Serves a port of the configuration for as long as the process runs.
    pub(super) fn serve(&self, gateway: &Arc<Gateway>, bound: Bound) {
        let Bound { name, door, listener } = bound;
        let serving = ingress::serve(
            Acceptor::new(listener, self.connections, &self.accepting, name),
            door,
            Arc::clone(gateway),
            ingress::Limits::default(),
            self.metrics.clone(),
            self.tasks.clone(),
        );
        self.tasks.spawn_critical(name, serving);
    }

    /// Opens a forward for a command, until what it returns is dropped.
    pub(super) fn open(&self, wanted: &CreateForward) -> Result<OpenForward, CliError> {
        let stopping = || CliError::new(Exit::Failure, "gateway-stopping", "the gateway is stopping");
        let gateway = self.gateway.upgrade().ok_or_else(stopping)?;
        if wanted.protocol == Protocol::Udp {
            let message = "only TCP can be forwarded by a command";
            return Err(CliError::new(Exit::Usage, "forward-protocol", message)
                .with_hint("write a [[forward]] with protocol = \"udp\" in the gateway's configuration"));
        }
        let (listener, local) = listen("--listen", wanted.listen)?;
        let closed = CancellationToken::new();
        let forward = Forward {
            destination: wanted.destination(),
            asker: Asker::Known(operator()?),
            closed: closed.clone(),
        };
        let serving = ingress::serve(
            Acceptor::new(listener, self.connections, &self.accepting, "forward"),
            Door::Forward(Arc::new(forward)),
            gateway,
            ingress::Limits::default(),
            self.metrics.clone(),
            self.tasks.clone(),
        );
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
