//! The edge's end: several gateway addresses at once, directly or through a proxy.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{error::Elapsed, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;
use tunnel_model::{GatewayAddr, HostPort, Reason, Refusal};

use super::{
    Connection, Limits, handshake,
    proxy::{Proxies, Proxy, ProxyError},
};
use crate::quic;

/// How long one address has to itself before the next is tried beside it (RFC 8305 section 5).
pub(super) const STAGGER: Duration = Duration::from_millis(250);
/// How long TCP may take to connect: three tries of its first segment.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// How long the handshake may take after that; a lossy link with a long round trip needs several tries.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);
/// How many addresses one attempt tries.
const MAX_ADDRESSES: usize = 16;

/// No gateway could be reached, and what stood in the way of each that was tried.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No name gave an address.
    #[error("no gateway address resolves: {}", quic::join(.0))]
    Resolve(Vec<(GatewayAddr, String)>),
    /// None of the gateways let us in.
    #[error("no gateway can be reached: {}", quic::join(.0))]
    Connect(Vec<(HostPort, Failure)>),
}

/// What stood in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no way to the address, or nothing listens there.
    #[error("{0}")]
    Unreachable(String),
    /// The address was silent.
    #[error("no answer")]
    Silent,
    /// Somebody else's certificate came back.
    #[error(
        "it showed a certificate that this cluster did not issue: something between here and the gateway opens TLS, \
         or another cluster's gateway answers there"
    )]
    Inspected,
    /// HTTP came back where TLS was due.
    #[error("plain HTTP came back: a captive portal or a web server answers there, not the gateway")]
    Portal,
    /// Something else came back.
    #[error("what answers there speaks no TLS; is it a tunnel gateway?")]
    NotTls,
    /// What answers there turned us away.
    #[error("{0}")]
    Refused(Refusal),
    /// The proxy on the way failed.
    #[error("{0}")]
    Proxy(ProxyError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

impl Failure {
    /// As a reason and a sentence.
    pub fn to_refusal(&self) -> Refusal {
        let reason = match self {
            Self::Refused(refusal) => return refusal.clone(),
            Self::Inspected => Reason::Unauthenticated,
            Self::Unreachable(_) | Self::Silent | Self::Portal | Self::NotTls | Self::Proxy(_) => {
                Reason::TargetUnreachable
            }
        };
        Refusal::new(reason, self.to_string())
    }
}

impl DialError {
    /// As one refusal: that of a gateway that answered, if one did; else that none can be reached.
    pub fn to_refusal(&self) -> Refusal {
        let answered = |failure: &&Failure| match failure {
            Failure::Refused(refusal) => !matches!(refusal.reason, Reason::CarrierLost | Reason::IdleTimeout),
            Failure::Inspected => true,
            _ => false,
        };
        let nobody = || Refusal::new(Reason::TargetUnreachable, self.to_string());
        self.failures().find(answered).map_or_else(nobody, Failure::to_refusal)
    }

    /// What stood in the way of each address that was tried.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        let connect = match self {
            Self::Resolve(_) => [].as_slice(),
            Self::Connect(failures) => failures,
        };
        connect.iter().map(|(_, failure)| failure)
    }
}

/// Dials gateways.
#[derive(Debug, Clone)]
pub struct Dialer {
    limits: Limits,
    proxies: Arc<Proxies>,
    connections: TaskTracker,
}

/// One way to a gateway.
#[derive(Debug, Clone)]
enum Way {
    Direct(SocketAddr),
    /// The proxy resolves the name.
    Through(Proxy, GatewayAddr),
}

impl Dialer {
    /// A dialer that goes through these proxies.
    pub fn new(limits: Limits, proxies: Proxies) -> Self {
        Self {
            limits,
            proxies: Arc::new(proxies),
            connections: TaskTracker::new(),
        }
    }

    /// Dials all gateways, each address a little after the one before; the first that is through wins. Names are resolved
    /// here, or by the proxy where one stands between.
    pub async fn dial(&self, gateways: &[GatewayAddr], tls: rustls::ClientConfig) -> Result<Connection, DialError> {
        let through = |gateway: &GatewayAddr| self.proxies.of(gateway).cloned();
        let (proxied, direct): (Vec<_>, Vec<_>) = gateways.iter().cloned().partition(|g| through(g).is_some());
        let mut ways = VecDeque::new();
        for gateway in proxied {
            if let Some(proxy) = through(&gateway) {
                ways.push_back(Way::Through(proxy, gateway));
            }
        }
        if !direct.is_empty() {
            match quic::resolve(&direct).await {
                Ok(addresses) => ways.extend(addresses.into_iter().map(Way::Direct)),
                Err(_) if !ways.is_empty() => {}
                Err(quic::DialError::Resolve(failures)) => return Err(DialError::Resolve(failures)),
                Err(quic::DialError::Connect(_)) => return Err(DialError::Resolve(Vec::new())),
            }
        }
        self.race(ways, tls).await
    }

    /// Dials addresses that are resolved already, without a proxy.
    pub async fn dial_addresses(
        &self,
        addresses: &[SocketAddr],
        tls: rustls::ClientConfig,
    ) -> Result<Connection, DialError> {
        self.race(addresses.iter().copied().map(Way::Direct).collect(), tls)
            .await
    }

    async fn race(&self, ways: VecDeque<Way>, tls: rustls::ClientConfig) -> Result<Connection, DialError> {
        let tls = Arc::new(tls);
        let attempt = |way: Way| {
            let (limits, tasks, tls) = (self.limits.clone(), self.connections.clone(), Arc::clone(&tls));
            async move {
                let place = way.place();
                (place, way.connect(tls, &limits, &tasks).await)
            }
        };
        first(ways.into_iter().take(MAX_ADDRESSES).map(attempt))
            .await
            .map_err(DialError::Connect)
    }

    /// Waits until every connection has said its farewell.
    pub async fn wait_idle(&self) {
        self.connections.close();
        self.connections.wait().await;
        self.connections.reopen();
    }
}

impl Way {
    fn place(&self) -> HostPort {
        match self {
            Self::Direct(address) => HostPort::from_ip(address.ip(), address.port()),
            Self::Through(_, gateway) => gateway.0.clone(),
        }
    }

    async fn connect(
        self,
        tls: Arc<rustls::ClientConfig>,
        limits: &Limits,
        tasks: &TaskTracker,
    ) -> Result<Connection, Failure> {
        let tcp = match self {
            Self::Direct(address) => connect_tcp(address).await?,
            Self::Through(proxy, gateway) => proxy.connect(&gateway.0).await?,
        };
        let silent = |_: Elapsed| Failure::Silent;
        timeout(HANDSHAKE_DEADLINE, handshake::connect(tcp, tls, limits, tasks))
            .await
            .map_err(silent)?
    }
}

pub(super) async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, Failure> {
    match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| Failure::Unreachable(error.to_string())),
        Err(_) => Err(Failure::Silent),
    }
}

/// Starts the attempts, each a little after the one before or as soon as that has failed; the first success wins.
pub(super) async fn first<T, P, F>(
    attempts: impl Iterator<Item = impl Future<Output = (P, Result<T, F>)> + Send + 'static>,
) -> Result<T, Vec<(P, F)>>
where
    T: Send + 'static,
    P: std::fmt::Display + Send + 'static,
    F: std::fmt::Display + Send + 'static,
{
    let mut failures = Vec::new();
    let mut running = JoinSet::new();
    let mut waiting = attempts;
    loop {
        let next = waiting.next();
        let last = next.is_none();
        if let Some(attempt) = next {
            running.spawn(attempt);
        }
        // The attempts have deadlines of their own.
        let ended = if last {
            Ok(running.join_next().await)
        } else {
            timeout(STAGGER, running.join_next()).await
        };
        match ended {
            Ok(Some(Ok((_, Ok(success))))) => return Ok(success),
            Ok(Some(Ok((place, Err(failure))))) => {
                debug!(%place, %failure, "not reached");
                failures.push((place, failure));
            }
            // The attempt was ended with its runtime, or it is time for the next.
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) if last => return Err(failures),
            Ok(None) => {}
        }
    }
}
