//! A UDP relay that puts a link between clients and one server, in one process and without
//! privileges.
//!
//! To the server every client has its own source address, as behind a NAT, and
//! [`UdpRelay::rebind`] changes them all, as a NAT does that has lost its table. All clients share the
//! link.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, error};

use crate::config::LinkPair;
use crate::duplex::Duplex;
use crate::link::Packet;
use crate::stats::PairStats;

/// Clients that a relay remembers. One more takes the place of the one that was silent longest.
const MAX_FLOWS: usize = 256;

/// Datagrams from the server that may wait for the relay. More wait in the kernel's buffers, which
/// drop what they cannot hold.
const FROM_SERVER_CAPACITY: usize = 256;

/// Asked of the kernel for each socket, so that bursts are dropped by the link and not before it.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What IPv4 and UDP add to each datagram.
const HEADER_BYTES: u64 = 28;

const LARGEST_DATAGRAM: usize = 65_535;

/// A running relay. It ends when this is dropped.
#[derive(Debug)]
pub struct UdpRelay {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl UdpRelay {
    /// Listens on a free port of loopback and relays to `server`. `up` of the link is towards the
    /// server.
    ///
    /// # Errors
    /// Where the listening socket cannot be made.
    pub async fn start(server: SocketAddr, link: LinkPair, seed: u64) -> io::Result<Self> {
        let (listening, listening_out) = socket(loopback_like(server))?;
        let local_addr = listening.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                link: Duplex::new(link, seed),
                rebind: false,
            }),
            changed: Notify::new(),
        });
        let (to_relay, from_server) = mpsc::channel(FROM_SERVER_CAPACITY);
        let relay = Relay {
            server,
            listening,
            listening_out,
            shared: Arc::clone(&shared),
            flows: HashMap::new(),
            readers: JoinSet::new(),
            to_relay,
            from_server,
        };
        Ok(Self {
            local_addr,
            shared,
            task: tokio::spawn(relay.run()),
        })
    }

    /// Where clients send to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Changes the link. Nothing passes under the old settings after this has returned.
    pub fn set_link(&self, link: LinkPair) {
        self.shared.state().link.set(link);
        self.shared.changed.notify_one();
    }

    /// The settings in force.
    #[must_use]
    pub fn link(&self) -> LinkPair {
        self.shared.state().link.config()
    }

    /// What crossed the link so far.
    #[must_use]
    pub fn stats(&self) -> PairStats {
        self.shared.state().link.stats()
    }

    /// Every client gets a new source address towards the server; answers to the old one are lost.
    pub fn rebind(&self) {
        self.shared.state().rebind = true;
        self.shared.changed.notify_one();
    }

    /// Ends the relay, and returns once its sockets are closed.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // An aborted task reports nothing worth knowing.
        let _ = (&mut self.task).await;
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the handle and the task both touch. The lock is never held across an await.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    link: Duplex<Datagram>,
    rebind: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
struct Datagram {
    client: SocketAddr,
    payload: Vec<u8>,
}

impl Packet for Datagram {
    fn wire_len(&self) -> u64 {
        self.payload.len() as u64 + HEADER_BYTES
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.payload
    }
}

/// The task: owns the sockets and turns the link.
struct Relay {
    server: SocketAddr,
    listening: UdpSocket,
    /// The same socket, to send by without waiting for readiness.
    listening_out: std::net::UdpSocket,
    shared: Arc<Shared>,
    flows: HashMap<SocketAddr, Flow>,
    readers: JoinSet<()>,
    to_relay: mpsc::Sender<Datagram>,
    from_server: mpsc::Receiver<Datagram>,
}

/// A client's socket towards the server.
struct Flow {
    out: std::net::UdpSocket,
    reader: AbortHandle,
    used: Instant,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

enum Event {
    FromClient(Datagram),
    FromServer(Datagram),
    /// The link has something to deliver, or its settings have changed.
    Due,
}

impl Relay {
    async fn run(mut self) {
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        loop {
            let event = match self.next_event(&mut buffer).await {
                Ok(event) => event,
                Err(error) => {
                    error!(%error, "the relay's listening socket failed; the relay ends");
                    return;
                }
            };
            self.handle(event);
        }
    }

    async fn next_event(&mut self, buffer: &mut [u8]) -> io::Result<Event> {
        let wakeup = self.shared.state().link.poll_timeout().map(Instant::from_std);
        tokio::select! {
            received = self.listening.recv_from(buffer) => {
                let (len, client) = received?;
                let payload = buffer[..len].to_vec();
                Ok(Event::FromClient(Datagram { client, payload }))
            }
            Some(datagram) = self.from_server.recv() => Ok(Event::FromServer(datagram)),
            () = sleep_until(wakeup) => Ok(Event::Due),
            () = self.shared.changed.notified() => Ok(Event::Due),
        }
    }

    fn handle(&mut self, event: Event) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let now = Instant::now();
        if std::mem::take(&mut state.rebind) {
            self.flows.clear();
        }
        match event {
            Event::FromClient(datagram) => state.link.up.handle_packet(now.into_std(), datagram),
            Event::FromServer(datagram) => state.link.down.handle_packet(now.into_std(), datagram),
            Event::Due => {}
        }
        // Sent under the lock, so that a change of settings never comes between leaving the link
        // and leaving the process. No socket here blocks.
        while let Some(datagram) = state.link.up.poll_transmit(now.into_std()) {
            if let Err(error) = self.send_to_server(now, &datagram) {
                debug!(%error, client = %datagram.client, "a datagram did not reach the server");
            }
        }
        while let Some(Datagram { client, payload }) = state.link.down.poll_transmit(now.into_std()) {
            if let Err(error) = self.listening_out.send_to(&payload, client) {
                debug!(%error, %client, "a datagram did not reach the client");
            }
        }
    }

    fn send_to_server(&mut self, now: Instant, datagram: &Datagram) -> io::Result<()> {
        if !self.flows.contains_key(&datagram.client) {
            self.open_flow(now, datagram.client)?;
        }
        let Some(flow) = self.flows.get_mut(&datagram.client) else {
            return Ok(());
        };
        flow.used = now;
        match flow.out.send(&datagram.payload) {
            // This is the server's refusal of an earlier datagram; this one has not been sent yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                flow.out.send(&datagram.payload)?;
            }
            sent => {
                sent?;
            }
        }
        Ok(())
    }

    fn open_flow(&mut self, now: Instant, client: SocketAddr) -> io::Result<()> {
        while self.readers.try_join_next().is_some() {}
        if self.flows.len() >= MAX_FLOWS {
            let silent = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(client) = silent.map(|(client, _)| *client) {
                self.flows.remove(&client);
            }
        }
        let (reading, out) = socket(loopback_like(self.server))?;
        out.connect(self.server)?;
        let reader = self.readers.spawn(read_flow(reading, client, self.to_relay.clone()));
        self.flows.insert(client, Flow { out, reader, used: now });
        Ok(())
    }
}

/// Passes on what the server sends to one client.
async fn read_flow(socket: UdpSocket, client: SocketAddr, to_relay: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let payload = match socket.recv(&mut buffer).await {
            Ok(len) => buffer[..len].to_vec(),
            // The server does not listen now; it may later.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                debug!(%error, %client, "a relayed flow failed");
                return;
            }
        };
        if to_relay.send(Datagram { client, payload }).await.is_err() {
            return;
        }
    }
}

async fn sleep_until(wakeup: Option<Instant>) {
    match wakeup {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A free port, on loopback where the server is there too.
fn loopback_like(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(server) if server.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(server) if server.ip().is_loopback() => (Ipv6Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// One socket as two handles: one to wait on, one to send by.
fn socket(addr: SocketAddr) -> io::Result<(UdpSocket, std::net::UdpSocket)> {
    let socket = std::net::UdpSocket::bind(addr)?;
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let out = socket.try_clone()?;
    Ok((UdpSocket::from_std(socket)?, out))
}

#[cfg(test)]
mod tests;
