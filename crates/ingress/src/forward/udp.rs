//! Forwards of packets: a flow for each client of a UDP port, until it is idle.

mod clients;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tunnel_daemon::{
    shutdown::Tasks,
    udp::{IDLE, IDLE_UNANSWERED, MAX_PACKET},
};
use tunnel_model::{Reason, Refusal, TraceId};

pub use self::clients::ClientLimits;
use self::clients::Clients;
use super::Forward;
use crate::{DialFlow, DialRequest, DialledFlow, IngressMetrics, Way};

/// Between two looks for clients that are gone.
const SWEEP: Duration = Duration::from_secs(1);
/// Packets of a client that wait for its flow, beyond which those that arrive are dropped.
const MAX_WAITING: usize = 64;
/// Packets that are taken from the socket before other tasks have their turn.
const BATCH: usize = 64;

/// Serves a port until `tasks` is stopping or the forward is taken back.
///
/// Packets of a client whose flow does not stand yet are held, a few of them; whatever finds no room is dropped, as
/// packets may be. A client that is refused hears nothing, and the log says why.
///
/// # Errors
/// Where the socket will never receive again.
pub async fn serve<D: DialFlow>(
    socket: UdpSocket,
    forward: Arc<Forward>,
    behind: Arc<D>,
    limits: ClientLimits,
    metrics: IngressMetrics,
    tasks: Tasks,
) -> io::Result<()> {
    let stopping = tasks.stopping();
    let port = Arc::new(Port {
        socket,
        forward,
        behind,
        metrics,
    });
    let mut clients = Clients::<mpsc::Sender<Bytes>>::new(limits);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        tokio::select! {
            ready = port.socket.readable() => ready?,
            _ = sweep.tick() => {
                clients.retain(|packets| !packets.is_closed());
                continue;
            }
            () = stopping.cancelled() => return Ok(()),
            () = port.forward.closed.cancelled() => return Ok(()),
        }
        for _ in 0..BATCH {
            let (length, client) = match port.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier answer met on its way; the socket goes on.
                Err(error) => {
                    tracing::debug!(%error, "a packet to a client was turned back");
                    continue;
                }
            };
            let packet = Bytes::copy_from_slice(&buffer[..length]);
            if !port.take(&mut clients, client, packet, &tasks) {
                port.metrics.packet_dropped();
            }
        }
    }
}

/// A port and what lies behind it.
struct Port<D> {
    socket: UdpSocket,
    forward: Arc<Forward>,
    behind: Arc<D>,
    metrics: IngressMetrics,
}

impl<D: DialFlow> Port<D> {
    /// Hands a packet to its client's flow, which is opened for the first; says whether there was room.
    fn take(
        self: &Arc<Self>,
        clients: &mut Clients<mpsc::Sender<Bytes>>,
        client: SocketAddr,
        packet: Bytes,
        tasks: &Tasks,
    ) -> bool {
        let packet = match clients.get(client).map(|packets| packets.try_send(packet.clone())) {
            Some(Ok(())) => return true,
            Some(Err(mpsc::error::TrySendError::Full(_))) => return false,
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => packet,
        };
        let (sender, packets) = mpsc::channel(MAX_WAITING);
        if !clients.insert(client, sender.clone()) {
            self.metrics.turned_away();
            return false;
        }
        let port = Arc::clone(self);
        let closed = self.forward.closed.clone();
        tasks.spawn_cut(async move {
            closed.run_until_cancelled_owned(port.run(client, packets)).await;
        });
        sender.try_send(packet).is_ok()
    }

    /// Serves one client until it is idle, or its flow is over.
    async fn run(self: Arc<Self>, client: SocketAddr, mut packets: mpsc::Receiver<Bytes>) {
        let mut flow = match self.open(client).await {
            Ok(flow) => flow,
            Err(refusal) => return self.refused(client, &refusal),
        };
        let mut answers = Vec::new();
        let (mut answered, mut due) = (false, Instant::now() + IDLE_UNANSWERED);
        loop {
            tokio::select! {
                Some(packet) = packets.recv() => {
                    let mut sent = flow.send(&packet);
                    while let Ok(packet) = packets.try_recv() {
                        sent &= flow.send(&packet);
                    }
                    if !sent {
                        self.metrics.packet_dropped();
                    }
                }
                arrived = flow.recv_many(&mut answers) => {
                    if let Err(refusal) = arrived {
                        return if answered { over(client, &refusal) } else { self.refused(client, &refusal) };
                    }
                    if !answered {
                        answered = true;
                        self.metrics.granted(Way::Forward);
                    }
                    for answer in answers.drain(..) {
                        // One that the socket does not take is lost, as packets may be.
                        if self.socket.send_to(&answer, client).await.is_err() {
                            self.metrics.packet_dropped();
                        }
                    }
                }
                () = sleep_until(due) => {
                    let why = Refusal::new(Reason::IdleTimeout, "no packet passed for a while");
                    return flow.end(&why);
                }
            }
            due = Instant::now() + if answered { IDLE } else { IDLE_UNANSWERED };
        }
    }

    async fn open(&self, client: SocketAddr) -> Result<D::Flow, Refusal> {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let principal = self.forward.principal(&*self.behind, client).await?;
        let destination = self.forward.destination.clone();
        let request = DialRequest {
            principal,
            class: self.forward.class.unwrap_or_else(|| self.behind.class(&destination)),
            destination,
            way: Way::Forward,
            trace: TraceId::random(&mut rand::rng()),
            client,
        };
        self.behind.dial_flow(request).await
    }

    fn refused(&self, client: SocketAddr, refusal: &Refusal) {
        self.metrics.refused(refusal.reason);
        tracing::info!(%client, code = %refusal.reason, message = %refusal.message, "refused");
    }
}

fn over(client: SocketAddr, refusal: &Refusal) {
    tracing::debug!(%client, code = %refusal.reason, message = %refusal.message, "a flow is over");
}
