//! Which flow a datagram belongs to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::{sync::mpsc, task::yield_now};
use tunnel_proto::{StreamId, TRANSIT, decode_datagram};

use super::{
    super::shared::{Shared, now},
    MAX_WAITING,
};
use crate::link::Connection;

/// Datagrams that are handed out before other tasks have their turn; below what a flow may have waiting.
const BATCH: usize = 64;

/// How much of datagrams may wait for the readers of a session's flows, in bytes; beyond it, those that arrive are dropped.
const MAX_WAITING_BYTES: usize = 512 * 1024;
/// What a packet that waits takes beside its bytes.
const PER_PACKET: usize = 64;

/// The flows of a session, by id.
#[derive(Debug, Default)]
pub(in crate::session) struct Routes {
    flows: Mutex<HashMap<StreamId, mpsc::Sender<Bytes>>>,
    /// Bytes that wait, of all flows together.
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

impl Routes {
    /// A packet was dropped at this end.
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many packets were dropped at this end: of no flow that is open, or without room.
    pub(in crate::session) fn drops(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, mpsc::Sender<Bytes>>> {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits: a flow whose reader is slow loses its own packets. Those that are no flow's but about the link are put
    /// into `timings`.
    fn hand_out(&self, datagrams: &mut Vec<Bytes>, timings: &mut Vec<Bytes>) {
        let flows = self.lock();
        for datagram in datagrams.drain(..) {
            let taken = match decode_datagram(datagram) {
                Some((TRANSIT, packet)) => {
                    timings.push(packet);
                    true
                }
                Some((id, packet)) => flows.get(&id).is_some_and(|to| self.give(to, &packet)),
                None => false,
            };
            if !taken {
                self.dropped();
            }
        }
    }

    fn give(&self, to: &mpsc::Sender<Bytes>, packet: &[u8]) -> bool {
        let size = packet.len() + PER_PACKET;
        // Only this task adds.
        if self.waiting.load(Ordering::Relaxed) + size > MAX_WAITING_BYTES {
            return false;
        }
        let Ok(room) = to.try_reserve() else {
            return false;
        };
        self.waiting.fetch_add(size, Ordering::Relaxed);
        // Copied: the packet is a slice of all that the kernel gave with it, and would hold on to 64 KiB of that.
        room.send(Bytes::copy_from_slice(packet));
        true
    }

    fn taken(&self, packets: &[Bytes]) {
        let size = packets.iter().map(|packet| packet.len() + PER_PACKET).sum();
        self.waiting.fetch_sub(size, Ordering::Relaxed);
    }
}

/// A flow's place in [`Routes`] until it is dropped, and the datagrams that came for it.
#[derive(Debug)]
pub(super) struct Route {
    shared: Arc<Shared>,
    id: StreamId,
    arrived: mpsc::Receiver<Bytes>,
}

impl Route {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        let (sender, arrived) = mpsc::channel(MAX_WAITING);
        shared.routes.lock().insert(id, sender);
        Self { shared, id, arrived }
    }

    /// Waits for packets and adds so many to `packets` at most.
    pub(super) fn poll_recv_many(&mut self, cx: &mut Context<'_>, packets: &mut Vec<Bytes>, most: usize) -> Poll<()> {
        let before = packets.len();
        ready!(self.arrived.poll_recv_many(cx, packets, most));
        self.shared.routes.taken(&packets[before..]);
        Poll::Ready(())
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.routes.lock().remove(&self.id);
        // Nobody sends any more.
        while let Ok(packet) = self.arrived.try_recv() {
            self.shared.routes.taken(&[packet]);
        }
    }
}

/// Hands out the datagrams of a connection, which is that of the carrier of this number, until it is lost.
pub(in crate::session) async fn read_datagrams(shared: Arc<Shared>, connection: Connection, carrier: u64) {
    let mut datagrams = Vec::with_capacity(BATCH);
    let mut timings = Vec::new();
    while let Some(first) = connection.read_datagram().await {
        datagrams.push(first);
        while datagrams.len() < BATCH
            && let Some(Some(next)) = connection.read_datagram().now_or_never()
        {
            datagrams.push(next);
        }
        let full = datagrams.len() == BATCH;
        shared.routes.hand_out(&mut datagrams, &mut timings);
        for packet in timings.drain(..) {
            // One that was superseded has nothing to say of the link of now.
            let _ = shared.drive(carrier, |state| state.handle_timing(&packet, now()));
        }
        if full {
            yield_now().await;
        }
    }
}
