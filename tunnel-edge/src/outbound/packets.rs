//! Packets of local clients: a flow for each client, until it is idle or another one needs its place.

mod clients;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::debug;
use tunnel_carrier::{Flow, Relayed};
use tunnel_daemon::udp::{IDLE, IDLE_UNANSWERED, MAX_PACKET};
use tunnel_model::{Protocol, Reason, Refusal, TraceId};

use self::clients::{Clients, Life};
use super::{DIAL_DEADLINE, News, Wanted};
use crate::agent::Shared;

/// Between two looks for clients that are gone.
const SWEEP: Duration = Duration::from_secs(1);
/// Packets of a client that wait for its flow, beyond which those that arrive are dropped.
const MAX_WAITING: usize = 64;
/// Packets that are taken from the socket before other tasks have their turn.
const BATCH: usize = 64;

/// Serves the clients of a socket until the agent stops. What finds no room is dropped, as packets may be; a client that is
/// refused hears nothing, and the log says why.
pub(super) async fn run(shared: Arc<Shared>, socket: UdpSocket, wanted: Wanted, news: Arc<News>) -> io::Result<()> {
    let stopping = shared.tasks.stopping();
    let port = Arc::new(Port {
        socket,
        wanted,
        news,
        shared,
    });
    let mut clients = Clients::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = BytesMut::zeroed(MAX_PACKET);
    loop {
        tokio::select! {
            ready = port.socket.readable() => ready?,
            _ = sweep.tick() => {
                clients.forget_gone();
                continue;
            }
            () = stopping.cancelled() => return Ok(()),
        }
        for _ in 0..BATCH {
            match port.socket.try_recv_from(&mut buffer) {
                Ok((length, client)) => port.take(&mut clients, client, Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier answer met on its way; the socket goes on.
                Err(error) => debug!(%error, "a packet to a client was turned back"),
            }
        }
    }
}

/// A socket and what lies behind it.
struct Port {
    socket: UdpSocket,
    wanted: Wanted,
    news: Arc<News>,
    shared: Arc<Shared>,
}

impl Port {
    /// Hands a packet to its client's flow, which is opened for the first.
    fn take(self: &Arc<Self>, clients: &mut Clients, client: SocketAddr, packet: Bytes) {
        let Some(packet) = clients.hand_over(client, packet) else {
            return;
        };
        let (sender, packets) = mpsc::channel(MAX_WAITING);
        // The channel is empty.
        let _ = sender.try_send(packet);
        if let Some(life) = clients.insert(client, sender, Instant::now()) {
            let port = Arc::clone(self);
            self.shared
                .tasks
                .spawn_cut(async move { port.serve(client, packets, life).await });
        }
    }

    /// Serves one client until its flow is over.
    async fn serve(&self, client: SocketAddr, mut packets: mpsc::Receiver<Bytes>, life: Arc<Life>) {
        let (service, trace) = (&self.wanted.service, TraceId::random(&mut rand::rng()));
        let reached = tokio::select! {
            reached = self.reach(&mut packets, trace) => reached,
            () = life.over() => Err(gave_way()),
        };
        let metrics = &self.shared.metrics;
        metrics.went_out(reached.as_ref().map(drop).map_err(|refusal| refusal.reason));
        let flow = match reached {
            Ok(flow) => flow,
            Err(refusal) if life.is_over() => {
                return debug!(%client, %service, %trace, error = %refusal.message, "no flow");
            }
            Err(refusal) => return self.news.failed(&refusal, trace),
        };
        self.news.worked();
        debug!(%client, %service, %trace, "flow opened");
        let _open = metrics.stream_opened();
        let relayed = self.relay(client, packets, flow, &life).await;
        metrics.relayed(&relayed);
        if let Err(refusal) = relayed.end {
            debug!(%client, %service, %trace, reason = %refusal.reason, error = %refusal.message, "flow over");
        }
    }

    /// A flow to the service, which is there. The packets that wait go out with the wish, for no round trip.
    async fn reach(&self, packets: &mut mpsc::Receiver<Bytes>, trace: TraceId) -> Result<Flow, Refusal> {
        let tunnel = self.shared.tunnel_for(self.wanted.class)?;
        let open = self.wanted.header(Protocol::Udp, trace);
        let mut flow = tunnel.open(&open, DIAL_DEADLINE).await?.into_flow();
        while let Ok(packet) = packets.try_recv() {
            flow.send(&packet);
        }
        flow.established().await?;
        Ok(flow)
    }

    async fn relay(
        &self,
        client: SocketAddr,
        mut packets: mpsc::Receiver<Bytes>,
        mut flow: Flow,
        life: &Life,
    ) -> Relayed {
        let (mut sent, mut received) = (0, 0);
        let mut answers = Vec::new();
        let mut due = Instant::now() + IDLE_UNANSWERED;
        let why = loop {
            tokio::select! {
                Some(packet) = packets.recv() => {
                    life.asked(Instant::now());
                    sent += packet.len() as u64;
                    flow.send(&packet);
                }
                arrived = flow.recv_many(&mut answers) => {
                    if let Err(refusal) = arrived {
                        break refusal;
                    }
                    life.answered(Instant::now());
                    for answer in answers.drain(..) {
                        received += answer.len() as u64;
                        // One that the socket does not take is lost, as packets may be.
                        let _ = self.socket.send_to(&answer, client).await;
                    }
                }
                () = sleep_until(due) => break Refusal::new(Reason::IdleTimeout, "no packet passed for a while"),
                () = life.over() => break gave_way(),
            }
            due = Instant::now() + if received > 0 { IDLE } else { IDLE_UNANSWERED };
        };
        flow.reset(&why);
        // That nothing more came is how flows end.
        let end = if why.reason == Reason::IdleTimeout {
            Ok(())
        } else {
            Err(why)
        };
        Relayed { sent, received, end }
    }
}

fn gave_way() -> Refusal {
    Refusal::new(Reason::Cancelled, "the client's place was needed")
}
