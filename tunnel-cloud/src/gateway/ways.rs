//! The ways in beside the proxy port: SNI, host-routed HTTP, and forwards, of the configuration and of commands.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::future::BoxFuture;
use socket2::SockRef;
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
use tunnel_model::{ADMINS, ChosenClass, Principal, Protocol};

use super::cannot_listen;
use crate::{
    admin::{
        OpenForward,
        api::{CreateForward, ForwardView, Listening},
    },
    config::{self, Config},
    dial::Gateway,
    reload::{Applier, Change},
};

/// Who asks for the streams of a forward that a command holds open.
const OPERATOR: &str = "operator";

/// What serves ports; clones share it. It does not keep the gateway alive, so that whatever asks for ports may.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) gateway: Weak<Gateway>,
    pub(super) connections: usize,
    pub(super) accepting: AcceptMetrics,
    pub(super) metrics: IngressMetrics,
    pub(super) tasks: Tasks,
    /// The ports of the configuration, but the proxy's.
    pub(super) served: Arc<Mutex<Vec<Served>>>,
}

/// What a port of the configuration is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Sni,
    Http,
    Forward(config::Forward),
}

impl Purpose {
    fn name(&self) -> &'static str {
        match self {
            Self::Sni => "sni",
            Self::Http => "http",
            Self::Forward(_) => "forward",
        }
    }

    fn key(&self) -> &'static str {
        match self {
            Self::Sni => "listen.sni",
            Self::Http => "listen.http",
            Self::Forward(_) => "forward.listen",
        }
    }

    fn protocol(&self) -> Protocol {
        match self {
            Self::Sni | Self::Http => Protocol::Tcp,
            Self::Forward(forward) => forward.protocol,
        }
    }
}

/// A port as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    purpose: Purpose,
    address: SocketAddr,
}

impl Wanted {
    /// Every port of a configuration but the proxy's.
    fn all(config: &Config) -> Vec<Self> {
        let at = |purpose: Purpose| {
            move |&address: &SocketAddr| Self {
                purpose: purpose.clone(),
                address,
            }
        };
        let forward = |forward: &config::Forward| Self {
            purpose: Purpose::Forward(forward.clone()),
            address: forward.listen,
        };
        let sni = config.listen.sni.0.iter().map(at(Purpose::Sni));
        let http = config.listen.http.0.iter().map(at(Purpose::Http));
        sni.chain(http).chain(config.forward.iter().map(forward)).collect()
    }

    /// Whether one socket does for both. Any free port is for what it was found for.
    fn has_socket_of(&self, other: &Self) -> bool {
        let (own, others) = (&self.purpose, &other.purpose);
        (self.address, own.protocol()) == (other.address, others.protocol())
            && (self.address.port() != 0 || own.name() == others.name())
    }

    fn bind(&self) -> Result<(Socket, SocketAddr), CliError> {
        let key = self.purpose.key();
        match self.purpose.protocol() {
            Protocol::Tcp => listen(key, self.address).map(|(listener, local)| (Socket::Stream(listener), local)),
            Protocol::Udp => listen_udp(key, self.address).map(|(socket, local)| (Socket::Packets(socket), local)),
        }
    }
}

/// A socket of a port.
enum Socket {
    Stream(TcpListener),
    Packets(UdpSocket),
}

impl Socket {
    /// Another handle to it, so that the port can be for something else later without being closed in between.
    fn spare(&self) -> io::Result<socket2::Socket> {
        match self {
            Self::Stream(listener) => SockRef::from(listener).try_clone(),
            Self::Packets(socket) => SockRef::from(socket).try_clone(),
        }
    }

    fn from_spare(spare: &socket2::Socket, protocol: Protocol) -> io::Result<Self> {
        let socket = spare.try_clone()?;
        match protocol {
            Protocol::Tcp => TcpListener::from_std(socket.into()).map(Self::Stream),
            Protocol::Udp => UdpSocket::from_std(socket.into()).map(Self::Packets),
        }
    }
}

/// A port that is served.
pub(super) struct Served {
    wanted: Wanted,
    local: SocketAddr,
    spare: socket2::Socket,
    /// Takes it back. Connections that came by it go on; packets cannot without it.
    closed: CancellationToken,
}

/// A port that is bound and not served yet.
struct Bound {
    wanted: Wanted,
    local: SocketAddr,
    socket: Socket,
    spare: socket2::Socket,
}

impl Bound {
    fn new(wanted: Wanted) -> Result<Self, CliError> {
        let (socket, local) = wanted.bind()?;
        Self::with(wanted, socket, local)
    }

    /// For the socket of a port that is for something else so far.
    fn instead_of(served: &Served, wanted: Wanted) -> Result<Self, CliError> {
        let socket = Socket::from_spare(&served.spare, wanted.purpose.protocol());
        let socket = socket.map_err(|error| cannot_listen(wanted.purpose.key(), wanted.address, &error))?;
        Self::with(wanted, socket, served.local)
    }

    fn with(wanted: Wanted, socket: Socket, local: SocketAddr) -> Result<Self, CliError> {
        let spare = socket.spare();
        let spare = spare.map_err(|error| cannot_listen(wanted.purpose.key(), wanted.address, &error))?;
        Ok(Self {
            wanted,
            local,
            socket,
            spare,
        })
    }
}

/// Ports that are bound and not served yet.
pub(super) struct Ports(Vec<Bound>);

/// Binds every port of the configuration but the proxy's.
pub(super) fn bind(config: &Config) -> Result<Ports, CliError> {
    let all = Wanted::all(config).into_iter().map(Bound::new);
    all.collect::<Result<_, _>>().map(Ports)
}

/// Where ports are, by what they are for.
fn places<'a>(ports: impl Iterator<Item = (&'a Wanted, SocketAddr)>, others: &Listening) -> Listening {
    let mut listening = Listening {
        sni: Vec::new(),
        http: Vec::new(),
        forwards: Vec::new(),
        ..*others
    };
    for (wanted, local) in ports {
        match &wanted.purpose {
            Purpose::Sni => listening.sni.push(local),
            Purpose::Http => listening.http.push(local),
            Purpose::Forward(forward) => listening.forwards.push(view(forward, local)),
        }
    }
    listening
}

impl Ports {
    /// Where they are, beside the others.
    pub(super) fn places(&self, others: &Listening) -> Listening {
        places(self.0.iter().map(|bound| (&bound.wanted, bound.local)), others)
    }
}

fn view(forward: &config::Forward, listen: SocketAddr) -> ForwardView {
    ForwardView {
        listen,
        node: forward.node.clone(),
        target: forward.target.clone(),
        protocol: forward.protocol,
        class: forward.class,
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
        let socket = tunnel_daemon::udp::bind(address)?;
        let local = socket.local_addr()?;
        io::Result::Ok((socket, local))
    };
    bound().map_err(|error| cannot_listen(key, address, &error))
}

impl Ways {
    /// Serves the proxy port for as long as the process runs.
    pub(super) fn serve_proxy(&self, gateway: &Arc<Gateway>, listener: TcpListener) {
        let serving = self.connections("proxy", Door::Proxy, listener, gateway);
        self.tasks.spawn_critical("proxy", serving);
    }

    /// Serves ports of the configuration.
    pub(super) fn serve(&self, gateway: &Arc<Gateway>, ports: Ports) {
        let served = ports.0.into_iter().map(|bound| self.serve_one(gateway, bound));
        self.served().extend(served);
    }

    fn serve_one(&self, gateway: &Arc<Gateway>, bound: Bound) -> Served {
        let Bound {
            wanted,
            local,
            socket,
            spare,
        } = bound;
        let name = wanted.purpose.name();
        let closed = CancellationToken::new();
        // Packets have nothing but the port to go on by.
        let cut = match &socket {
            Socket::Stream(_) => CancellationToken::new(),
            Socket::Packets(_) => closed.clone(),
        };
        let forward = |forward: &config::Forward| {
            Arc::new(Forward {
                destination: forward.destination(),
                asker: forward.user.clone().map_or(Asker::Caller, Asker::User),
                class: forward.class.map(ChosenClass::get),
                closed: cut,
            })
        };
        match (&wanted.purpose, socket) {
            (Purpose::Sni, Socket::Stream(listener)) => {
                let door = Door::Sni { port: local.port() };
                self.serve_until(&closed, name, self.connections(name, door, listener, gateway));
            }
            (Purpose::Forward(to), Socket::Stream(listener)) => {
                let door = Door::Forward(forward(to));
                self.serve_until(&closed, name, self.connections(name, door, listener, gateway));
            }
            (Purpose::Http, Socket::Stream(listener)) => {
                self.serve_until(&closed, name, self.connections(name, Door::Http, listener, gateway));
            }
            (Purpose::Forward(to), Socket::Packets(socket)) => {
                self.serve_until(&closed, name, self.packets(forward(to), socket, gateway));
            }
            // Their sockets are bound for TCP.
            (Purpose::Sni | Purpose::Http, Socket::Packets(_)) => {}
        }
        Served {
            wanted,
            local,
            spare,
            closed,
        }
    }

    fn serve_until(
        &self,
        closed: &CancellationToken,
        name: &'static str,
        serving: impl Future<Output = io::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn_critical_until(name, closed.clone(), serving);
    }

    /// Where the ports are now, beside those that stay.
    pub(super) fn listening(&self, others: &Listening) -> Listening {
        places(
            self.served().iter().map(|served| (&served.wanted, served.local)),
            others,
        )
    }

    fn served(&self) -> MutexGuard<'_, Vec<Served>> {
        // It is changed as a whole; a panic elsewhere leaves nothing half done.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn put_in_force(&self, next: Vec<Next>) {
        let Some(gateway) = self.gateway.upgrade() else {
            return;
        };
        let mut served = self.served();
        let mut before = std::mem::take(&mut *served);
        for next in next {
            match next {
                Next::Stays(wanted) => {
                    if let Some(at) = before.iter().position(|served| served.wanted == wanted) {
                        served.push(before.remove(at));
                    }
                }
                Next::Served(bound) => {
                    tracing::info!(listen = %bound.local, way = bound.wanted.purpose.name(), "listening");
                    served.push(self.serve_one(&gateway, bound));
                }
            }
        }
        for closed in before {
            tracing::info!(listen = %closed.local, way = closed.wanted.purpose.name(), "not listening any more");
            closed.closed.cancel();
        }
    }

    /// Opens a forward for a command, until what it returns is dropped.
    pub(super) fn open(&self, wanted: &CreateForward) -> Result<OpenForward, CliError> {
        let stopping = || CliError::new(Exit::Failure, "gateway-stopping", "the gateway is stopping");
        let gateway = self.gateway.upgrade().ok_or_else(stopping)?;
        let closed = CancellationToken::new();
        let forward = Arc::new(Forward {
            destination: wanted.destination(),
            asker: Asker::Known(operator()?),
            class: wanted.class.map(ChosenClass::get),
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

/// Ports that are taken back are closed, and those that are new or for something else are served.
impl Applier for Ways {
    fn keys(&self) -> &'static [&'static str] {
        &["forward", "listen.sni", "listen.http"]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        let served = self.served();
        let mut left: Vec<&Served> = served.iter().collect();
        // For each port, in the configuration's order: the one that stays, or what is to be served.
        let mut next = Vec::new();
        for wanted in Wanted::all(new) {
            let same = left.iter().position(|served| served.wanted == wanted);
            let socket = same.or_else(|| left.iter().position(|served| served.wanted.has_socket_of(&wanted)));
            let known = socket.map(|at| left.remove(at));
            next.push(match known {
                Some(known) if known.wanted == wanted => Next::Stays(wanted),
                Some(known) => Next::Served(Bound::instead_of(known, wanted)?),
                None => Next::Served(Bound::new(wanted)?),
            });
        }
        drop(served);
        let ways = self.clone();
        Ok(Box::new(move || ways.put_in_force(next)))
    }
}

/// What becomes of a port.
enum Next {
    /// It goes on.
    Stays(Wanted),
    /// It is served from now on.
    Served(Bound),
}

/// Whoever may open the admin socket: an administrator.
fn operator() -> Result<Principal, CliError> {
    let internal = |what: String| CliError::new(Exit::Failure, "internal", what);
    let name = OPERATOR.parse().map_err(|error| internal(format!("{error}")))?;
    let group = ADMINS.parse().map_err(|error| internal(format!("{error}")))?;
    Ok(Principal::user(name, vec![group]))
}
