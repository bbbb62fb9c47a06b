//! The gateway's end: one UDP port, peers told apart by ALPN once their handshake is through.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Endpoint, TokioRuntime, crypto::rustls::QuicServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tracing::debug;
use tunnel_identity::tls::ALPN_ENROL;

use super::{Limits, peer_chain, refusal_of, socket};

/// A handshake that takes longer is somebody who only holds the door.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From this many unfinished handshakes on, a peer must prove its address first (QUIC Retry, RFC 9000 section 8.1.2).
const RETRY_ABOVE: usize = 256;
/// More unfinished handshakes than this are refused.
const MAX_HANDSHAKES: usize = 4096;

/// What a peer connected for, by its ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To carry a session (`tunnel/1`).
    Tunnel,
    /// To get or renew a certificate (`tunnel-enrol/1`).
    Enrol,
}

/// A connection whose handshake is through. TLS has checked that the peer holds the key of its certificate and no more:
/// who it is and whether it may be here is for the caller to decide, at each connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub connection: quinn::Connection,
    /// What for.
    pub purpose: Purpose,
    /// The peer's certificate chain, leaf first; empty if it showed none.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Accepts connections on one UDP port.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    accepted: mpsc::Receiver<Accepted>,
    _acceptor: JoinSet<()>,
}

impl Server {
    /// Binds the port. Needs a tokio runtime.
    ///
    /// The reset key is to be the same after a restart: peers whose connections went with the process before then hear so
    /// at their next packet, and need not find out by silence.
    pub fn bind(
        address: SocketAddr,
        tls: rustls::ServerConfig,
        reset_key: &[u8; 32],
        limits: &Limits,
    ) -> io::Result<Self> {
        let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(limits.transport())
            .migration(true)
            .max_incoming(MAX_HANDSHAKES)
            .incoming_buffer_size(16 * 1024)
            .incoming_buffer_size_total(16 * 1024 * 1024);
        let socket = socket::bind(address)?;
        let endpoint = Endpoint::new(
            socket::endpoint_config(Some(reset_key)),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )?;
        let (sender, accepted) = mpsc::channel(128);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept_loop(endpoint.clone(), sender));
        Ok(Self {
            endpoint,
            accepted,
            _acceptor: acceptor,
        })
    }

    /// The next connection whose handshake is through.
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Takes no new connections; those that are there go on.
    pub fn stop_accepting(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Waits until every connection has said its farewell.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// Never waits for a peer: each handshake is a task of its own, and their number is bounded.
async fn accept_loop(endpoint: Endpoint, accepted: mpsc::Sender<Accepted>) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &mut handshakes, &accepted),
                None => break,
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

fn admit(incoming: quinn::Incoming, handshakes: &mut JoinSet<()>, accepted: &mpsc::Sender<Accepted>) {
    if handshakes.len() >= MAX_HANDSHAKES {
        incoming.refuse();
        return;
    }
    if handshakes.len() >= RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
        if let Err(error) = incoming.retry() {
            error.into_incoming().refuse();
        }
        return;
    }
    let accepted = accepted.clone();
    handshakes.spawn(async move {
        let from = incoming.remote_address();
        match timeout(HANDSHAKE_DEADLINE, incoming).await {
            Ok(Ok(connection)) => {
                // A caller that does not keep up makes handshakes wait, and thereby bounds them.
                let _ = accepted.send(identify(connection)).await;
            }
            Ok(Err(error)) => debug!(%from, reason = %refusal_of(&error), "handshake failed"),
            Err(_) => debug!(%from, reason = "deadline", "handshake failed"),
        }
    });
}

fn identify(connection: quinn::Connection) -> Accepted {
    let data = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    let enrol = data
        .and_then(|data| data.protocol)
        .is_some_and(|alpn| alpn == ALPN_ENROL);
    Accepted {
        purpose: if enrol { Purpose::Enrol } else { Purpose::Tunnel },
        chain: peer_chain(&connection),
        connection,
    }
}
