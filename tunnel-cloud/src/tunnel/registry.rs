//! Who has a session, with a carrier or waiting for one. One node id has one session: the newest wins, and the older is told
//! why.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc;
use tunnel_carrier::{Carrier, Tunnel};
use tunnel_model::{ChosenClass, Class, Encoding, NodeId, Offer, Reason, Refusal, Service, SessionId, Target};

use super::TunnelMetrics;

/// A session that is kept.
#[derive(Debug, Clone)]
pub(super) struct Live {
    /// Its handle.
    pub(super) tunnel: Tunnel,
    /// Its name, as the edge gave it.
    pub(super) session: SessionId,
    /// Where carriers go that it is to go on over. Boxed, as a queue sets aside room for many of these, for each session.
    pub(super) next: mpsc::Sender<Box<(Carrier, SocketAddr)>>,
}

/// The live sessions by node.
#[derive(Debug)]
pub struct Registry {
    live: Mutex<HashMap<NodeId, Live>>,
    /// The services of sessions where those of some need not travel as they are, or are of a class that their edge has chosen.
    /// What an earlier session offered is not here: its edge may have been another version.
    special: Mutex<HashMap<NodeId, (Tunnel, Vec<Service>)>>,
    metrics: TunnelMetrics,
}

impl Registry {
    /// Nobody is connected.
    pub fn new(metrics: TunnelMetrics) -> Self {
        Self {
            live: Mutex::default(),
            special: Mutex::default(),
            metrics,
        }
    }

    /// Gives the node's place to this session. Says whether another one lost it that was connected.
    pub(super) fn admit(&self, node: NodeId, live: Live) -> bool {
        let older = self.lock().insert(node, live);
        let Some(older) = older else { return false };
        // One that waits is of an agent that was restarted: nobody has taken anything from anybody.
        let connected = older.tunnel.is_connected();
        let message = "a newer connection with this node's certificate took over";
        older.tunnel.close(&Refusal::new(Reason::Superseded, message));
        connected
    }

    /// Gives the place back, unless another session has it by now.
    pub(super) fn leave(&self, node: NodeId, tunnel: &Tunnel) {
        let mut live = self.lock();
        if live.get(&node).is_some_and(|current| current.tunnel.is_same(tunnel)) {
            live.remove(&node);
        }
        drop(live);
        let mut special = self.lock_special();
        if special.get(&node).is_some_and(|(of, _)| of.is_same(tunnel)) {
            special.remove(&node);
        }
    }

    /// Notes what the node offers in this session.
    pub(super) fn offered(&self, node: NodeId, tunnel: &Tunnel, offer: &Offer) {
        let mut all = self.lock_special();
        let is_special = |service: &Service| service.encoding() != Encoding::Raw || service.class.is_some();
        if offer.services.iter().any(is_special) {
            all.insert(node, (tunnel.clone(), offer.services.clone()));
        } else {
            all.remove(&node);
        }
    }

    /// How streams to a target travel in this session of the node's.
    pub fn encoding(&self, node: NodeId, tunnel: &Tunnel, target: &Target) -> Encoding {
        let encoding = |service: &Service| Some(service.encoding());
        self.of_service(node, tunnel, target, encoding).unwrap_or_default()
    }

    /// The class of streams to a target that the node has chosen in this session.
    pub fn class(&self, node: NodeId, tunnel: &Tunnel, target: &Target) -> Option<Class> {
        let class = |service: &Service| service.class.map(ChosenClass::get);
        self.of_service(node, tunnel, target, class)
    }

    fn of_service<T>(
        &self,
        node: NodeId,
        tunnel: &Tunnel,
        target: &Target,
        read: impl FnOnce(&Service) -> Option<T>,
    ) -> Option<T> {
        let all = self.lock_special();
        let (_, services) = all.get(&node).filter(|(of, _)| of.is_same(tunnel))?;
        // The first that is behind it, as the edge finds it.
        services.iter().find(|service| service.is_behind(target)).and_then(read)
    }

    fn lock_special(&self) -> MutexGuard<'_, HashMap<NodeId, (Tunnel, Vec<Service>)>> {
        self.special.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's session of this name, if it is not over.
    pub(super) fn session(&self, node: NodeId, session: SessionId) -> Option<Live> {
        let live = self.lock().get(&node).cloned();
        live.filter(|live| live.session == session && live.tunnel.over().is_none())
    }

    /// The session of a node, which may be waiting for a carrier.
    pub fn get(&self, node: NodeId) -> Option<Tunnel> {
        self.lock().get(&node).map(|live| live.tunnel.clone())
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
        for Live { tunnel, .. } in self.lock().values() {
            tunnel.drain(refusal.clone(), Some(retry_after));
        }
    }

    /// Cuts every session.
    pub fn cut_all(&self, refusal: &Refusal) {
        for Live { tunnel, .. } in self.lock().values() {
            tunnel.close(refusal);
        }
    }

    /// How many nodes have a session.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no node has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many streams are open to all of them.
    pub fn streams(&self) -> u64 {
        let open = |live: &Live| live.tunnel.open_streams() as u64;
        self.lock().values().map(open).sum()
    }

    pub(super) fn metrics(&self) -> &TunnelMetrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Live>> {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
