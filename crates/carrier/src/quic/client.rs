//! The edge's end: one UDP socket for its whole life, several gateway addresses at once.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Endpoint, TokioRuntime, crypto::rustls::QuicClientConfig};
use tokio::{net::lookup_host, task::JoinSet, time::timeout};
use tracing::debug;
use tunnel_identity::tls::SERVER_NAME;
use tunnel_model::{GatewayAddr, Reason, Refusal};

use super::{Limits, refusal_of, socket};

/// How long one address has to itself before the next is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long a handshake may take; a lossy link with a long round trip needs several tries.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);
/// How long a name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);
/// How many addresses one attempt tries.
const MAX_ADDRESSES: usize = 16;

/// No gateway could be reached, and the reason for each address that was tried.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No name gave an address.
    #[error("no gateway address resolves: {}", join(.0))]
    Resolve(Vec<(GatewayAddr, String)>),
    /// None of the addresses let us in.
    #[error("no gateway can be reached: {}", join(.0))]
    Connect(Vec<(SocketAddr, Refusal)>),
}

pub(crate) fn join<A: std::fmt::Display, B: std::fmt::Display>(failures: &[(A, B)]) -> String {
    let each: Vec<_> = failures.iter().map(|(a, b)| format!("{a}: {b}")).collect();
    each.join("; ")
}

impl DialError {
    /// As one refusal: that of a gateway that answered, if one did; else that none can be reached.
    pub fn to_refusal(&self) -> Refusal {
        let answered = |refusal: &&Refusal| {
            !matches!(
                refusal.reason,
                Reason::TargetUnreachable | Reason::CarrierLost | Reason::IdleTimeout
            )
        };
        let nobody = || Refusal::new(Reason::TargetUnreachable, self.to_string());
        self.refusals().find(answered).cloned().unwrap_or_else(nobody)
    }

    /// What each address that was tried said.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        let connect = match self {
            Self::Resolve(_) => [].as_slice(),
            Self::Connect(failures) => failures,
        };
        connect.iter().map(|(_, refusal)| refusal)
    }
}

/// Dials gateways, always from the same local port, so that NATs and firewalls see one flow.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    limits: Limits,
}

impl Dialer {
    /// Binds the local port; 0 takes any. Needs a tokio runtime.
    pub fn bind(port: u16, limits: Limits) -> io::Result<Self> {
        let socket = socket::bind_any(port)?;
        let endpoint = Endpoint::new(socket::endpoint_config(None), None, socket, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, limits })
    }

    /// Resolves the addresses and dials them all, each a little after the one before; the first that is through wins.
    pub async fn dial(
        &self,
        gateways: &[GatewayAddr],
        tls: rustls::ClientConfig,
    ) -> Result<quinn::Connection, DialError> {
        let addresses = resolve(gateways).await?;
        self.dial_addresses(&addresses, tls).await
    }

    /// Like [`Self::dial`], with addresses that are resolved already.
    pub async fn dial_addresses(
        &self,
        addresses: &[SocketAddr],
        tls: rustls::ClientConfig,
    ) -> Result<quinn::Connection, DialError> {
        let mut failures = Vec::new();
        let config = match self.client_config(tls) {
            Ok(config) => config,
            Err(refusal) => {
                return Err(DialError::Connect(
                    addresses.iter().map(|a| (*a, refusal.clone())).collect(),
                ));
            }
        };
        let mut attempts = JoinSet::new();
        let mut waiting = addresses.iter().take(MAX_ADDRESSES).copied();
        loop {
            let next = waiting.next();
            if let Some(address) = next {
                attempts.spawn(attempt(self.endpoint.clone(), config.clone(), address));
            }
            let patience = if next.is_some() {
                STAGGER
            } else {
                HANDSHAKE_DEADLINE * 2
            };
            match timeout(patience, attempts.join_next()).await {
                Ok(Some(Ok((_, Ok(connection))))) => return Ok(connection),
                Ok(Some(Ok((address, Err(refusal))))) => {
                    debug!(%address, %refusal, "gateway not reached");
                    failures.push((address, refusal));
                }
                // The attempt was ended with its runtime, or it is time for the next address.
                Ok(Some(Err(_))) | Err(_) => {}
                Ok(None) if next.is_none() => return Err(DialError::Connect(failures)),
                Ok(None) => {}
            }
        }
    }

    fn client_config(&self, tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, Refusal> {
        let crypto = QuicClientConfig::try_from(tls)
            .map_err(|e| Refusal::new(Reason::Internal, format!("TLS settings: {e}")))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.limits.transport());
        Ok(config)
    }

    /// Takes a new socket, on the same port where it is free, under the connections that run; they migrate.
    pub fn rebind(&self) -> io::Result<()> {
        let port = self.endpoint.local_addr()?.port();
        let socket = socket::bind_any(port).or_else(|_| socket::bind_any(0))?;
        self.endpoint.rebind(socket)
    }

    /// The local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Waits until every connection has said its farewell.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// All addresses of all gateways: first ones first, IPv6 and IPv4 in turn (RFC 8305 section 4).
pub async fn resolve(gateways: &[GatewayAddr]) -> Result<Vec<SocketAddr>, DialError> {
    let mut addresses = Vec::new();
    let mut failures = Vec::new();
    for gateway in gateways {
        match timeout(RESOLVE_DEADLINE, lookup_host((gateway.0.host(), gateway.0.port()))).await {
            Ok(Ok(found)) => {
                let (v6, v4): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv6);
                let longer = v6.len().max(v4.len());
                addresses.extend((0..longer).flat_map(|i| [v6.get(i), v4.get(i)]).flatten().copied());
            }
            Ok(Err(error)) => failures.push((gateway.clone(), error.to_string())),
            Err(_) => failures.push((gateway.clone(), "the resolver does not answer".to_owned())),
        }
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    if addresses.is_empty() {
        return Err(DialError::Resolve(failures));
    }
    Ok(addresses)
}

async fn attempt(
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> (SocketAddr, Result<quinn::Connection, Refusal>) {
    let unreachable = |message: String| Refusal::new(Reason::TargetUnreachable, message);
    let connecting = match endpoint.connect_with(config, address, SERVER_NAME) {
        Ok(connecting) => connecting,
        Err(error) => return (address, Err(unreachable(error.to_string()))),
    };
    let result = match timeout(HANDSHAKE_DEADLINE, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(refusal_of(&error)),
        Err(_) => Err(unreachable("no answer to the handshake".to_owned())),
    };
    (address, result)
}
