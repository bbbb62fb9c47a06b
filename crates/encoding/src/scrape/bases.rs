//! What is kept of each target between two scrapes, within bounds: whoever was not asked for longest is forgotten, which
//! costs one whole body.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sha2::{Digest, Sha256};
use tunnel_codec::scrape::{Decoder, Encoder, Limits};

use super::MAX_BODY;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of one owner, in bytes.
    pub of_one: usize,
    /// In all, in bytes.
    pub in_all: usize,
}

/// The most targets of one owner.
const TARGETS: usize = 64;

/// What encodes or decodes the bodies of one target.
pub(crate) trait Coder: Send + 'static {
    fn fresh() -> Self;
}

impl Coder for Encoder {
    fn fresh() -> Self {
        // The last body, and the one before for a peer that did not get the last.
        Self::new(limits(2))
    }
}

impl Coder for Decoder {
    fn fresh() -> Self {
        // There is never more than one scrape of a target on its way.
        Self::new(limits(1))
    }
}

fn limits(history: usize) -> Limits {
    Limits {
        max_body: MAX_BODY,
        history,
    }
}

/// What an edge keeps.
#[derive(Debug)]
pub struct Encoders(pub(crate) Bases<Encoder>);

impl Encoders {
    /// Nothing yet, and never more than this.
    pub fn new(room: Room) -> Self {
        Self(Bases::new(room))
    }
}

/// Names a request of somebody's: the same bytes to the same target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    owner: String,
    request: [u8; 32],
}

impl Key {
    pub(crate) fn new(owner: &str, target: &str, head: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(target.as_bytes());
        hash.update([0]);
        hash.update(head);
        Self {
            owner: owner.to_owned(),
            request: hash.finalize().into(),
        }
    }
}

/// What is kept of one target.
#[derive(Debug)]
pub(crate) struct Base<C> {
    coder: Mutex<C>,
    /// Its bodies are too long to be held.
    large: AtomicBool,
}

impl<C> Base<C> {
    pub(crate) fn coder(&self) -> MutexGuard<'_, C> {
        // A coder changes as its last step, so that a panic leaves nothing half done.
        self.coder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_large(&self) -> bool {
        self.large.load(Ordering::Relaxed)
    }

    pub(crate) fn set_large(&self) {
        self.large.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Held<C> {
    base: Arc<Base<C>>,
    memory: usize,
    used: u64,
}

/// The bases of many targets.
#[derive(Debug)]
pub(crate) struct Bases<C> {
    room: Room,
    all: Mutex<All<C>>,
}

#[derive(Debug)]
struct All<C> {
    held: HashMap<Key, Held<C>>,
    uses: u64,
}

impl<C: Coder> Bases<C> {
    pub(crate) fn new(room: Room) -> Self {
        let all = All {
            held: HashMap::new(),
            uses: 0,
        };
        Self {
            room,
            all: Mutex::new(all),
        }
    }

    /// What is kept for this key; a new one keeps nothing yet.
    pub(crate) fn get(&self, key: &Key) -> Arc<Base<C>> {
        let mut all = self.lock();
        all.uses += 1;
        let used = all.uses;
        let held = all.held.entry(key.clone()).or_insert_with(|| Held {
            base: Arc::new(Base {
                coder: Mutex::new(C::fresh()),
                large: AtomicBool::new(false),
            }),
            memory: 0,
            used,
        });
        held.used = used;
        let base = Arc::clone(&held.base);
        all.forget(self.room, key);
        base
    }

    /// Notes how much is kept for this key now, and makes room.
    pub(crate) fn note(&self, key: &Key, memory: usize) {
        let mut all = self.lock();
        if let Some(held) = all.held.get_mut(key) {
            held.memory = memory;
            all.forget(self.room, key);
        }
    }

    /// Forgets what is kept for this key.
    pub(crate) fn drop(&self, key: &Key) {
        self.lock().held.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.lock().held.contains_key(key)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> MutexGuard<'_, All<C>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> All<C> {
    /// Makes room for what this key's owner has, first at the owner's own expense.
    fn forget(&mut self, room: Room, key: &Key) {
        let own = |other: &Key| other.owner == key.owner;
        while self.count(own) > TARGETS || self.memory(own) > room.of_one {
            self.forget_oldest(own);
        }
        while self.memory(|_| true) > room.in_all {
            self.forget_oldest(|_| true);
        }
    }

    fn count(&self, of: impl Fn(&Key) -> bool) -> usize {
        self.held.keys().filter(|key| of(key)).count()
    }

    fn memory(&self, of: impl Fn(&Key) -> bool) -> usize {
        let held = self.held.iter().filter(|(key, _)| of(key));
        held.map(|(_, held)| held.memory).sum()
    }

    fn forget_oldest(&mut self, of: impl Fn(&Key) -> bool) {
        let held = self.held.iter().filter(|(key, _)| of(key));
        let oldest = held.min_by_key(|(_, held)| held.used).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.held.remove(&oldest);
        }
    }
}
