//! The gateway's end: one TCP port, peers told apart by ALPN once their handshake is through.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{Connection, Limits, doors::Doors, handshake, socket};
use crate::quic::Purpose;

/// A handshake that takes longer is somebody who only holds the door.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The first pause when there are no descriptors; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest, and so the longest that the port stays closed after a shortage has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection whose handshake is through. TLS has checked that the peer holds the key of its certificate and no more:
/// who it is and whether it may be here is for the caller to decide, at each connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub connection: Connection,
    /// What for.
    pub purpose: Purpose,
    /// The peer's certificate chain, leaf first; empty if it showed none.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Accepts connections on one TCP port.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepted: mpsc::Receiver<Accepted>,
    stop: watch::Sender<bool>,
    connections: TaskTracker,
    _acceptor: JoinSet<()>,
}

impl Server {
    /// Binds the port. Needs a tokio runtime.
    pub fn bind(address: SocketAddr, tls: rustls::ServerConfig, limits: &Limits) -> io::Result<Self> {
        let listener = socket::listen(address)?;
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(128);
        let (stop, stopped) = watch::channel(false);
        let connections = TaskTracker::new();
        let entrance = Entrance {
            tls: TlsAcceptor::from(Arc::new(tls)),
            limits: limits.clone(),
            connections: connections.clone(),
            accepted: sender,
        };
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept_loop(listener, entrance, stopped));
        Ok(Self {
            address,
            accepted,
            stop,
            connections,
            _acceptor: acceptor,
        })
    }

    /// The next connection whose handshake is through.
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port; connections that are there go on.
    pub fn stop_accepting(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until every connection has said its farewell. Takes none after that.
    pub async fn wait_idle(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

/// What a handshake needs.
#[derive(Clone)]
struct Entrance {
    tls: TlsAcceptor,
    limits: Limits,
    connections: TaskTracker,
    accepted: mpsc::Sender<Accepted>,
}

/// Never waits for a peer: each handshake is a task of its own, and their number is bounded.
async fn accept_loop(listener: TcpListener, entrance: Entrance, mut stopped: watch::Receiver<bool>) {
    let mut doors = Doors::default();
    let mut shortage = None;
    loop {
        tokio::select! {
            accepted = next(&listener, &mut shortage), if doors.has_room() => {
                let (tcp, from) = accepted;
                let admitted = doors.admit(from.ip(), Instant::now(), entrance.clone().serve(tcp, from));
                if !admitted {
                    debug!(%from, reason = "too many handshakes from there", "connection refused");
                }
            }
            () = doors.closed() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    drop(listener);
    // Those that are at the door may come in.
    while !doors.is_empty() {
        doors.closed().await;
    }
}

/// A time without descriptors.
#[derive(Debug)]
struct Shortage {
    until: Instant,
    pause: Duration,
}

/// Takes the next connection. Without descriptors it waits, for the listener stays readable all the while.
async fn next(listener: &TcpListener, shortage: &mut Option<Shortage>) -> (TcpStream, SocketAddr) {
    loop {
        if let Some(shortage) = shortage {
            sleep_until(shortage.until).await;
        }
        match listener.accept().await {
            Ok(accepted) => {
                if shortage.take().is_some() {
                    info!("accepting resumed");
                }
                return accepted;
            }
            Err(error) if socket::is_about_connection(&error) => {}
            Err(error) => {
                let pause = match shortage {
                    Some(shortage) => (shortage.pause * 2).min(LONGEST_PAUSE),
                    None => {
                        warn!(%error, "accepting paused");
                        FIRST_PAUSE
                    }
                };
                let until = Instant::now() + pause;
                *shortage = Some(Shortage { until, pause });
            }
        }
    }
}

impl Entrance {
    async fn serve(self, tcp: TcpStream, from: SocketAddr) {
        let handshake = handshake::accept(tcp, from, self.tls, &self.limits, &self.connections);
        match timeout(HANDSHAKE_DEADLINE, handshake).await {
            Ok(Ok((connection, purpose))) => {
                let chain = connection.peer_chain().to_vec();
                let accepted = Accepted {
                    connection,
                    purpose,
                    chain,
                };
                // A caller that does not keep up makes handshakes wait, and thereby bounds them.
                let _ = self.accepted.send(accepted).await;
            }
            Ok(Err(reason)) => debug!(%from, %reason, "handshake failed"),
            Err(_) => debug!(%from, reason = "deadline", "handshake failed"),
        }
    }
}
