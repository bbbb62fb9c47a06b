//! Who is connected. One node id has one session: the newest wins, and the older is told why.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tunnel_carrier::Tunnel;
use tunnel_model::{NodeId, Reason, Refusal};

use super::TunnelMetrics;

/// The live sessions by node.
#[derive(Debug)]
pub struct Registry {
    live: Mutex<HashMap<NodeId, Tunnel>>,
    metrics: TunnelMetrics,
}

impl Registry {
    /// Nobody is connected.
    pub fn new(metrics: TunnelMetrics) -> Self {
        Self {
            live: Mutex::default(),
            metrics,
        }
    }

    /// Gives the node's place to this session. Says whether another one lost it.
    pub fn admit(&self, node: NodeId, tunnel: Tunnel) -> bool {
        let older = self.change(|live| live.insert(node, tunnel));
        if let Some(older) = &older {
            let message = "a newer connection with this node's certificate took over";
            older.close(&Refusal::new(Reason::Superseded, message));
        }
        older.is_some()
    }

    /// Gives the place back, unless another session has it by now.
    pub fn leave(&self, node: NodeId, tunnel: &Tunnel) {
        self.change(|live| {
            if live.get(&node).is_some_and(|current| current.is_same(tunnel)) {
                live.remove(&node);
            }
        });
    }

    /// The session of a node that is connected.
    pub fn get(&self, node: NodeId) -> Option<Tunnel> {
        self.lock().get(&node).cloned()
    }

    /// Cuts the node's session, if it has one, and tells it why.
    pub fn disconnect(&self, node: NodeId, refusal: &Refusal) {
        if let Some(tunnel) = self.get(node) {
            tunnel.close(refusal);
        }
    }

    /// Asks every edge to let its streams end and come back later; not all at the same time.
    pub fn drain(&self, retry_after: Duration) {
        let refusal = Refusal::new(Reason::Draining, "the gateway is about to stop");
        for tunnel in self.lock().values() {
            tunnel.drain(refusal.clone(), Some(retry_after));
        }
    }

    /// Cuts every session.
    pub fn cut_all(&self, refusal: &Refusal) {
        for tunnel in self.lock().values() {
            tunnel.close(refusal);
        }
    }

    /// How many nodes are connected.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no node is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many streams are open to all of them.
    pub fn streams(&self) -> u64 {
        self.lock().values().map(|tunnel| tunnel.open_streams() as u64).sum()
    }

    pub(super) fn metrics(&self) -> &TunnelMetrics {
        &self.metrics
    }

    fn change<R>(&self, change: impl FnOnce(&mut HashMap<NodeId, Tunnel>) -> R) -> R {
        let mut live = self.lock();
        let result = change(&mut live);
        self.metrics.online.set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        result
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Tunnel>> {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
