//! Which flow a datagram belongs to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::{sync::mpsc, task::yield_now};
use tunnel_proto::{StreamId, decode_datagram};

use super::{super::shared::Shared, MAX_WAITING};
use crate::link::Connection;

/// Datagrams that are handed out before other tasks have their turn; below what a flow may have waiting.
const BATCH: usize = 64;

/// The flows of a session, by id.
#[derive(Debug, Default)]
pub(in crate::session) struct Routes {
    flows: Mutex<HashMap<StreamId, mpsc::Sender<Bytes>>>,
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

    /// Never waits: a flow whose reader is slow loses its own packets.
    fn hand_out(&self, datagrams: &mut Vec<Bytes>) {
        let flows = self.lock();
        for datagram in datagrams.drain(..) {
            let taken =
                decode_datagram(datagram).and_then(|(id, packet)| flows.get(&id).map(|flow| flow.try_send(packet)));
            if !matches!(taken, Some(Ok(()))) {
                self.dropped();
            }
        }
    }
}

/// A flow's place in [`Routes`] until it is dropped.
#[derive(Debug)]
pub(super) struct Route {
    shared: Arc<Shared>,
    id: StreamId,
}

impl Route {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        shared.routes.lock().insert(id, sender);
        (Self { shared, id }, receiver)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.routes.lock().remove(&self.id);
    }
}

/// Hands out the datagrams of a connection until it is lost.
pub(in crate::session) async fn read_datagrams(shared: Arc<Shared>, connection: Connection) {
    let mut datagrams = Vec::with_capacity(BATCH);
    while let Some(first) = connection.read_datagram().await {
        datagrams.push(first);
        while datagrams.len() < BATCH
            && let Some(Some(next)) = connection.read_datagram().now_or_never()
        {
            datagrams.push(next);
        }
        let full = datagrams.len() == BATCH;
        shared.routes.hand_out(&mut datagrams);
        if full {
            yield_now().await;
        }
    }
}
