//! Writes behind how nodes come and go.
//!
//! At most one note per node waits, the latest: memory is bounded by the number of nodes, however slow the store is,
//! and a node that flaps costs one row.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tunnel_model::NodeId;

use crate::store::{Presence, Store, StoreError};

/// How long to wait after the store has refused.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Saver {
    store: Arc<dyn Store>,
    unsaved: Mutex<BTreeMap<NodeId, Presence>>,
    wake: Notify,
}

impl Saver {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            unsaved: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// To be written soon, in place of what waits for the same node.
    pub(super) fn note(&self, presence: Presence) {
        self.lock().insert(presence.id, presence);
        self.wake.notify_one();
    }

    pub(super) async fn run(&self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut failing = false;
        while stop.run_until_cancelled(self.wake.notified()).await.is_some() {
            match self.write().await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the store takes node states again");
                }
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        failing = true;
                        tracing::warn!(%error, "the store takes no node states");
                    }
                    stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
                    self.wake.notify_one();
                }
            }
        }
        self.write().await
    }

    pub(super) async fn write(&self) -> Result<(), StoreError> {
        let batch: Vec<_> = std::mem::take(&mut *self.lock()).into_values().collect();
        if batch.is_empty() {
            return Ok(());
        }
        let written = self.store.set_presence(batch.clone()).await;
        if written.is_err() {
            let mut unsaved = self.lock();
            for presence in batch {
                // What came in the meantime is newer.
                if let Entry::Vacant(vacant) = unsaved.entry(presence.id) {
                    vacant.insert(presence);
                }
            }
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Presence>> {
        // Notes are put in and taken out whole.
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
