//! The live directory: which nodes there are, and which of them can be reached now.
//!
//! It is the store's list of nodes held in memory. Changes by operators are durable before they show; how nodes come
//! and go shows at once and is written behind, since the next start finds out anew who is connected.

mod routes;
mod saver;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tunnel_identity::UnixTime;
use tunnel_model::{
    Delta, Directory, Labels, NodeId, NodeName, NodeRecord, NodeState, Offer, ParseLabelError, Reason, Refusal,
    ReservedName, Revision,
};

use crate::store::{EnrolError, Enrolment, Node, Presence, Store, StoreError};
use routes::Routes;
pub use routes::{ApproveError, RouteEntry, RouteState};
use saver::Saver;

/// How many changes a follower may lag behind before it gets the whole list.
const HISTORY: usize = 65_536;

/// All nodes, in memory and in the store.
pub struct LiveDirectory {
    store: Arc<dyn Store>,
    nodes: RwLock<Nodes>,
    revision: watch::Sender<Revision>,
    saver: Saver,
    /// Held across an operator's change of store and memory, so that both see changes in the same order.
    changing: Mutex<()>,
}

struct Nodes {
    /// Those that may connect.
    directory: Directory,
    /// What the directory does not say about them.
    enrolled_at: BTreeMap<NodeId, u64>,
    /// Those that may not, but are still listed.
    revoked: BTreeMap<NodeId, Node>,
    /// Which of them lead to which subnets.
    routes: Routes,
    /// The stay of each node that is online.
    stays: BTreeMap<NodeId, u64>,
    last_stay: u64,
}

/// One unbroken time of a node being online; the session that began it holds it, and ends it.
#[derive(Debug, PartialEq, Eq)]
pub struct Stay {
    node: NodeId,
    number: u64,
}

/// A node's labels were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// There is no such node, or no longer.
    #[error("no such node")]
    UnknownNode,
    /// A label cannot be.
    #[error(transparent)]
    Label(#[from] ParseLabelError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LiveDirectory {
    /// Reads every node from the store. Nobody is online at first: a node that was when the store was last written has
    /// lost its gateway, at the latest now.
    ///
    /// Revisions continue from the time in microseconds, so that none of an earlier start comes again and a follower
    /// of that one gets the whole list.
    pub async fn load(store: Arc<dyn Store>, now: UnixTime) -> Result<Self, StoreError> {
        let (revoked, mut live): (Vec<_>, Vec<_>) =
            store.nodes().await?.into_iter().partition(|n| n.revoked_at.is_some());
        for node in &mut live {
            if let NodeState::Online { .. } = node.record.state {
                node.record.state = NodeState::Offline {
                    since: now.secs(),
                    why: Some(Reason::CarrierLost),
                };
            }
        }
        let enrolled_at = live.iter().map(|n| (n.record.id, n.enrolled_at)).collect();
        let mut directory = Directory::new(HISTORY);
        directory.apply_delta(Delta::Whole {
            to: Revision(now.secs().saturating_mul(1_000_000)),
            nodes: live.into_iter().map(|n| n.record).collect(),
        });
        let mut routes = Routes::new(store.approvals().await?);
        directory.iter().for_each(|node| routes.refresh(node));
        Ok(Self {
            revision: watch::Sender::new(directory.revision()),
            saver: Saver::new(Arc::clone(&store)),
            store,
            nodes: RwLock::new(Nodes {
                directory,
                enrolled_at,
                revoked: revoked.into_iter().map(|n| (n.record.id, n)).collect(),
                routes,
                stays: BTreeMap::new(),
                last_stay: 0,
            }),
            changing: Mutex::default(),
        })
    }

    /// Looks at the nodes that may connect. Hold nothing else meanwhile, and be brief.
    pub fn read<R>(&self, look: impl FnOnce(&Directory) -> R) -> R {
        look(&self.lock().directory)
    }

    /// The id of a node that is online; what stands in the way otherwise, with since when and why.
    pub fn reach(&self, name: &NodeName) -> Result<NodeId, Refusal> {
        let nodes = self.lock();
        let Some(node) = nodes.directory.by_name(name) else {
            return Err(match nodes.revoked_named(name) {
                Some(_) => Refusal::new(Reason::Revoked, format!("node {name} was revoked")),
                None => Refusal::new(Reason::UnknownNode, format!("no node is named {name}")),
            });
        };
        match node.state {
            NodeState::Online { .. } => Ok(node.id),
            NodeState::Offline { since, why } => Err(offline(name, since, why)),
        }
    }

    /// Whether a certificate that names this node is worth nothing: the node was revoked, removed or never there.
    pub fn is_revoked(&self, id: NodeId) -> bool {
        self.lock().directory.get(id).is_none()
    }

    /// Every node, revoked ones too, by name.
    pub fn list(&self) -> Vec<Node> {
        let nodes = self.lock();
        let live = nodes.directory.iter().map(|record| Node {
            record: record.clone(),
            enrolled_at: nodes.enrolled_at.get(&record.id).copied().unwrap_or_default(),
            revoked_at: None,
        });
        let mut list: Vec<_> = live.chain(nodes.revoked.values().cloned()).collect();
        list.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        list
    }

    /// The node of this name, revoked or not.
    pub fn get(&self, name: &NodeName) -> Option<Node> {
        let nodes = self.lock();
        if let Some(revoked) = nodes.revoked_named(name) {
            return Some(revoked.clone());
        }
        nodes.directory.by_name(name).map(|record| Node {
            record: record.clone(),
            enrolled_at: nodes.enrolled_at.get(&record.id).copied().unwrap_or_default(),
            revoked_at: None,
        })
    }

    /// Changes with each change of the directory; with it a follower waits, then asks for [`Self::delta_since`].
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// What a follower at `from` lacks; nothing if it is up to date.
    pub fn delta_since(&self, from: Revision) -> Option<Delta> {
        self.lock().directory.delta_since(from)
    }

    /// Lets a node join: spends its token, and durably so before this returns.
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<Node, EnrolError> {
        if enrolment.name.is_reserved() {
            return Err(ReservedName(enrolment.name).into());
        }
        let node = self.store.enrol(enrolment).await?;
        self.change(|nodes| {
            nodes.enrolled_at.insert(node.record.id, node.enrolled_at);
            nodes.directory.upsert(node.record.clone());
        });
        Ok(node)
    }

    /// A session of the node has begun. Supersedes an earlier stay, whose end will then go unnoticed. What the node offers
    /// is taken to be as before until it says so. `None` if it was revoked or removed in the meantime.
    pub fn online(&self, id: NodeId, agent_version: String, now: UnixTime) -> Option<Stay> {
        self.change(|nodes| {
            self.update(nodes, id, |node| {
                node.state = NodeState::Online { since: now.secs() };
                node.agent_version = agent_version;
            })
            .then(|| {
                nodes.last_stay += 1;
                nodes.stays.insert(id, nodes.last_stay);
                Stay {
                    node: id,
                    number: nodes.last_stay,
                }
            })
        })
    }

    /// The node says what it offers. Does nothing if a later session has begun.
    pub fn declare(&self, stay: &Stay, offer: Offer) {
        self.change(|nodes| {
            if nodes.stays.get(&stay.node) == Some(&stay.number) {
                self.update(nodes, stay.node, |node| {
                    node.services = offer.services;
                    node.subnets = offer.subnets;
                });
                if let Some(node) = nodes.directory.get(stay.node) {
                    nodes.routes.refresh(node);
                }
            }
        });
    }

    /// A session of the node has ended. Does nothing if a later one has begun.
    pub fn offline(&self, stay: Stay, why: Reason, now: UnixTime) {
        self.change(|nodes| {
            if nodes.stays.get(&stay.node) != Some(&stay.number) {
                return;
            }
            nodes.stays.remove(&stay.node);
            self.update(nodes, stay.node, |node| {
                node.state = NodeState::Offline {
                    since: now.secs(),
                    why: Some(why),
                };
            });
        });
    }

    /// Changes what a node says of itself, to be saved soon; says whether there is such a node.
    fn update(&self, nodes: &mut Nodes, id: NodeId, change: impl FnOnce(&mut NodeRecord)) -> bool {
        nodes.directory.update(id, |node| {
            change(node);
            self.saver.note(Presence {
                id,
                state: node.state.clone(),
                services: node.services.clone(),
                subnets: node.subnets.clone(),
                agent_version: node.agent_version.clone(),
            });
        })
    }

    /// Sets and removes labels of a node that may connect, and returns what it then has.
    pub async fn edit_labels(
        &self,
        id: NodeId,
        set: &[(String, String)],
        remove: &[String],
    ) -> Result<Labels, LabelError> {
        let _changing = self.changing.lock().await;
        let mut labels = self
            .read(|d| d.get(id).map(|node| node.labels.clone()))
            .ok_or(LabelError::UnknownNode)?;
        for key in remove {
            labels.remove(key);
        }
        set.iter().try_for_each(|(key, value)| labels.set(key, value))?;
        if !self.store.set_labels(id, labels.clone()).await? {
            return Err(LabelError::UnknownNode);
        }
        self.change(|nodes| nodes.directory.update(id, |node| node.labels = labels.clone()));
        Ok(labels)
    }

    /// Revokes a node, so that its certificate is worth nothing from now on; says whether there is such a node. Its live
    /// session is the caller's to cut.
    pub async fn revoke(&self, id: NodeId, now: UnixTime) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        if !self.store.revoke_node(id, now.secs()).await? {
            return Ok(false);
        }
        self.change(|nodes| {
            nodes.stays.remove(&id);
            if let Some(mut record) = nodes.directory.get(id).cloned() {
                nodes.routes.forget(id, &record.name);
                if let NodeState::Online { .. } = record.state {
                    record.state = NodeState::Offline {
                        since: now.secs(),
                        why: Some(Reason::Revoked),
                    };
                }
                nodes.directory.remove(id);
                let revoked = Node {
                    record,
                    enrolled_at: nodes.enrolled_at.remove(&id).unwrap_or_default(),
                    revoked_at: Some(now.secs()),
                };
                nodes.revoked.insert(id, revoked);
            }
        });
        Ok(true)
    }

    /// Forgets a node, so that its certificate is worth nothing and its name is free; says whether there was one. Its live
    /// session is the caller's to cut.
    pub async fn remove(&self, id: NodeId) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let removed = self.store.remove_node(id).await?;
        self.change(|nodes| {
            nodes.stays.remove(&id);
            nodes.enrolled_at.remove(&id);
            nodes.revoked.remove(&id);
            if let Some(node) = nodes.directory.get(id) {
                nodes.routes.forget(id, &node.name);
            }
            nodes.directory.remove(id);
        });
        Ok(removed)
    }

    /// Writes to the store how nodes come and go, until told to stop; then what is left, and returns. What sessions that
    /// end even later say is left to [`Self::flush`].
    ///
    /// # Errors
    /// What was left could not be written.
    pub async fn save(&self, stop: CancellationToken) -> Result<(), StoreError> {
        self.saver.run(stop).await
    }

    /// Writes what is left to write, once every session has ended.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.saver.write().await
    }

    fn change<R>(&self, change: impl FnOnce(&mut Nodes) -> R) -> R {
        let mut nodes = self.lock_mut();
        let result = change(&mut nodes);
        let revision = nodes.directory.revision();
        // Still locked, or an older revision could be announced after a newer one.
        self.revision
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
        result
    }

    fn lock(&self) -> RwLockReadGuard<'_, Nodes> {
        // A change that panicked midway has changed one node at most, and the store knows that one too.
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mut(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nodes {
    fn revoked_named(&self, name: &NodeName) -> Option<&Node> {
        self.revoked.values().find(|node| node.record.name == *name)
    }
}

fn offline(name: &NodeName, since: u64, why: Option<Reason>) -> Refusal {
    let since = UnixTime::from_secs(since);
    let message = match why {
        Some(why) => format!("node {name} is offline since {since}: {why}"),
        None => format!("node {name} has not connected since it joined at {since}"),
    };
    Refusal::new(Reason::NodeOffline, message)
}

#[cfg(test)]
pub(crate) mod tests;
