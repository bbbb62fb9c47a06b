//! A proxy port with a gateway behind it that dials for itself.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};
use tunnel_daemon::{
    accept::{AcceptMetrics, Acceptor},
    metrics::Metrics,
    shutdown::Tasks,
};
use tunnel_ingress::{Credential, Dial, DialRequest, Dialled, Door, IngressMetrics, Limits, Tls, listen, serve};
use tunnel_model::{Destination, Host, HostPort, Principal, Reason, Refusal, RouteTable, UserName, Zone};

use crate::{caller::Caller, target::Target};

/// Basic credentials of alice, who may come in.
pub(crate) const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
/// And of bob.
pub(crate) const BOB: &str = "Basic Ym9iOnNlY3JldA==";

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) gateway: Arc<Direct>,
    pub(crate) metrics: IngressMetrics,
    pub(crate) tasks: Tasks,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::at(Door::Proxy, limits).await
    }

    /// One that speaks TLS too.
    pub(crate) async fn with_tls(tls: Tls) -> Self {
        Self::with(Door::Proxy, Limits::default(), Some(Arc::new(tls))).await
    }

    /// Another kind of port, whose callers' addresses are trusted.
    pub(crate) async fn door(door: Door) -> Self {
        let proxy = Self::at(door, Limits::default()).await;
        proxy.gateway.trusting.store(true, Ordering::Relaxed);
        proxy
    }

    pub(crate) async fn at(door: Door, limits: Limits) -> Self {
        Self::with(door, limits, None).await
    }

    async fn with(door: Door, limits: Limits, tls: Option<Arc<Tls>>) -> Self {
        let registry = Metrics::new("test");
        let metrics = IngressMetrics::new(&registry);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener, 100, &AcceptMetrics::new(&registry), "proxy");
        let gateway = Arc::new(Direct::new(tls));
        let tasks = Tasks::new();
        let serving = serve(
            acceptor,
            door,
            Arc::clone(&gateway),
            limits,
            metrics.clone(),
            tasks.clone(),
        );
        tasks.spawn_critical("proxy", serving);
        Self {
            addr,
            gateway,
            metrics,
            tasks,
        }
    }

    /// A proxy, and a target that is the node `edge1`.
    pub(crate) async fn with_target() -> (Self, Target) {
        let proxy = Self::start().await;
        let target = proxy.node("edge1").await;
        (proxy, target)
    }

    /// A target that is the node of this name, on every port.
    pub(crate) async fn node(&self, name: &str) -> Target {
        let target = Target::start().await;
        self.gateway.nodes.lock().unwrap().insert(name.to_owned(), target.addr);
        target
    }

    /// Makes a node a way to a subnet.
    pub(crate) fn route(&self, subnet: &str, node: &str) {
        let mut routes = self.gateway.routes.lock().unwrap();
        assert!(routes.insert(subnet.parse().unwrap(), &node.parse().unwrap()));
    }

    pub(crate) async fn caller(&self) -> Caller {
        Caller::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Leads every address to `edge1`, those that belong to a machine or a link too.
    pub(crate) fn everything_routed(&self) {
        for subnet in ["0.0.0.0/0", "::/0", "169.254.0.0/16", "127.0.0.0/8", "fe80::/10"] {
            self.route(subnet, "edge1");
        }
    }

    /// What was dialled so far.
    pub(crate) fn dials(&self) -> Vec<DialRequest> {
        self.gateway.dials.lock().unwrap().clone()
    }
}

/// A gateway without a tunnel. Nodes that it does not know by address answer to their name: `offline`, `denied` and
/// `busy` at once, `refusing` and `slow` as edges do, when a stream to them is there already; `never` does not answer at
/// all. The node `shy` answers when it was told something.
pub(crate) struct Direct {
    tls: Option<Arc<Tls>>,
    zone: Zone,
    nodes: Mutex<HashMap<String, SocketAddr>>,
    routes: Mutex<RouteTable>,
    dials: Mutex<Vec<DialRequest>>,
    /// Callers without a credential are known by their addresses.
    pub(crate) trusting: AtomicBool,
    /// Somebody waits for `never`, and somebody gave up waiting.
    pub(crate) waiting: Notify,
    pub(crate) gave_up: Arc<Notify>,
    /// A stream was dropped.
    pub(crate) ended: Arc<Notify>,
}

impl Direct {
    fn new(tls: Option<Arc<Tls>>) -> Self {
        Self {
            tls,
            zone: "edge.test".parse().unwrap(),
            nodes: Mutex::default(),
            routes: Mutex::default(),
            dials: Mutex::default(),
            trusting: AtomicBool::new(false),
            waiting: Notify::new(),
            gave_up: Arc::default(),
            ended: Arc::default(),
        }
    }
}

impl Dial for Direct {
    type Stream = Direction;

    async fn authenticate(&self, credential: Option<Credential>, client: SocketAddr) -> Result<Principal, Refusal> {
        let name = match &credential {
            Some(Credential::Basic { user, secret }) if secret.expose() == "secret" => user.as_str(),
            Some(Credential::Bearer { secret }) if secret.expose() == "token" => "robot",
            Some(Credential::Certificate(_)) => "certified",
            None if self.trusting.load(Ordering::Relaxed) => return Ok(Principal::address(client.ip())),
            _ => {
                return Err(Refusal::new(
                    Reason::Unauthenticated,
                    "the credential is missing or wrong",
                ));
            }
        };
        let name = name.parse().unwrap();
        Ok(Principal::user(name, Vec::new()))
    }

    fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    fn user(&self, name: &UserName) -> Result<Principal, Refusal> {
        Ok(Principal::user(name.clone(), Vec::new()))
    }

    fn zone(&self) -> &Zone {
        &self.zone
    }

    fn destination(&self, _: &Principal, host: Host, _: u16) -> Result<Destination, Refusal> {
        let (ip, port) = match host {
            Host::Named(destination) => return Ok(destination),
            Host::Address { ip, port } => (ip, port),
        };
        let routes = self.routes.lock().unwrap();
        let found = routes.lookup(ip).cloned();
        let node = found.map_err(|error| Refusal::new(Reason::Denied, error.to_string()))?;
        let target = tunnel_model::Target::Tcp(HostPort::from_ip(ip, port));
        Ok(Destination { node, target })
    }

    async fn dial(&self, request: DialRequest) -> Result<Direction, Refusal> {
        let node = request.destination.node.to_string();
        self.dials.lock().unwrap().push(request);
        let known = self.nodes.lock().unwrap().get(&node).copied();
        if let Some(addr) = known {
            let io = TcpStream::connect(addr).await.unwrap();
            io.set_zero_linger().unwrap();
            return Ok(Direction {
                shy: node == "shy",
                ..self.direction(Ok(io))
            });
        }
        let reason = match node.as_str() {
            "offline" => Reason::NodeOffline,
            "denied" => Reason::Denied,
            "refusing" => return Ok(self.direction(Err(Reason::TargetRefused))),
            "slow" => return Ok(self.direction(Err(Reason::TargetTimeout))),
            "busy" => Reason::Overloaded,
            "never" => {
                let _told = NotifyOnDrop(Arc::clone(&self.gave_up));
                self.waiting.notify_one();
                std::future::pending().await
            }
            _ => Reason::UnknownNode,
        };
        Err(Refusal::new(reason, format!("{node}: {reason}")))
    }
}

impl Direct {
    fn direction(&self, target: Result<TcpStream, Reason>) -> Direction {
        Direction {
            target: target.map_err(|reason| Refusal::new(reason, format!("the edge says {reason}"))),
            shy: false,
            _ended: NotifyOnDrop(Arc::clone(&self.ended)),
        }
    }
}

pub(crate) struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A stream as a tunnel gives it: dropped before it is shut down, it is reset; one that the edge refuses takes what is
/// written and fails when it is read.
pub(crate) struct Direction {
    target: Result<TcpStream, Refusal>,
    /// It waits to be told something before it answers.
    shy: bool,
    _ended: NotifyOnDrop,
}

impl Dialled for Direction {
    async fn established(&mut self) -> Result<(), Refusal> {
        if self.shy {
            std::future::pending().await
        }
        self.target.as_ref().map(|_| ()).map_err(Clone::clone)
    }
}

impl AsyncRead for Direction {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.target {
            Ok(io) => Pin::new(io).poll_read(cx, buf),
            Err(refusal) => Poll::Ready(Err(io::Error::other(refusal.clone()))),
        }
    }
}

impl AsyncWrite for Direction {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.target {
            Ok(io) => {
                let written = ready!(Pin::new(io).poll_write(cx, buf));
                self.shy &= written.is_err();
                Poll::Ready(written)
            }
            Err(_) => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.target {
            Ok(io) => Pin::new(io).poll_flush(cx),
            Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Ok(io) = &mut self.target else {
            return Poll::Ready(Ok(()));
        };
        ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
        Poll::Ready(socket2::SockRef::from(&*io).set_linger(None))
    }
}
