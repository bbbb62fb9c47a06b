//! Scrapes that are on their way, so that who asks the same meanwhile waits for the same answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::bases::Key;

/// The answer to a scrape, as callers get it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

/// Those that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_key: Mutex<HashMap<Key, Landing>>,
}

/// Where an answer comes in.
pub(crate) type Landing = watch::Receiver<Option<Arc<Page>>>;

/// What whoever asks has to do.
pub(crate) enum Turn {
    /// Scrape.
    Lead(Lead),
    /// Wait.
    Follow(Landing),
}

/// A scrape that others may wait for. When it is dropped without an answer, each of them sees to itself.
pub(crate) struct Lead {
    flights: Arc<Flights>,
    key: Key,
    answer: watch::Sender<Option<Arc<Page>>>,
}

impl Flights {
    pub(crate) fn turn(self: &Arc<Self>, key: &Key) -> Turn {
        let mut by_key = self.lock();
        // One that has landed is older than this request.
        if let Some(landing) = by_key.get(key).filter(|landing| landing.borrow().is_none()) {
            return Turn::Follow(landing.clone());
        }
        let (answer, landing) = watch::channel(None);
        by_key.insert(key.clone(), landing);
        Turn::Lead(Lead {
            flights: Arc::clone(self),
            key: key.clone(),
            answer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Landing>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// Tells those who wait. Whoever asks from now on gets another answer.
    pub(crate) fn land(self, page: &Arc<Page>) {
        self.answer.send_replace(Some(Arc::clone(page)));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut by_key = self.flights.lock();
        let own = self.answer.subscribe();
        if by_key.get(&self.key).is_some_and(|landing| landing.same_channel(&own)) {
            by_key.remove(&self.key);
        }
    }
}

/// Waits for the answer of another's scrape; nothing if there will be none.
pub(crate) async fn follow(mut landing: Landing) -> Option<Arc<Page>> {
    match landing.wait_for(Option::is_some).await {
        Ok(page) => page.clone(),
        Err(_) => None,
    }
}
