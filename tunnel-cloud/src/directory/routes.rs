//! Which node leads to which addresses: what a node advertises, as far as an operator has approved it.
//!
//! A node that is offline keeps its routes. Its addresses would otherwise fall to a less specific route for as long, and
//! so to other machines that have the same addresses.

use std::collections::{BTreeMap, HashMap};

use tunnel_identity::UnixTime;
use tunnel_model::{NodeId, NodeName, NodeRecord, RouteError, RouteTable, Subnet};

use super::LiveDirectory;
use crate::store::{Approval, StoreError};

/// A subnet that a node advertises, or is approved for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// The node's name.
    pub node: NodeName,
    /// The subnet.
    pub subnet: Subnet,
    /// Whether addresses of the subnet lead to the node.
    pub state: RouteState,
    /// Whether they lead to other nodes as well, so that none of them is reached by its address alone.
    pub ambiguous: bool,
    /// Since when it is approved, in seconds since 1970-01-01 UTC.
    pub approved_at: Option<u64>,
}

/// How far a route has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteState {
    /// The node advertises it, and nobody has approved it.
    Advertised,
    /// It is advertised and approved: addresses lead there.
    Approved,
    /// It is approved, and the node does not advertise it any longer.
    Withdrawn,
}

/// A route was not approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApproveError {
    /// There is no such node, or no longer.
    #[error("no such node")]
    UnknownNode,
    /// The node does not offer to be the way to the subnet.
    #[error("the node does not advertise {subnet}, it advertises: {}", list(.advertised))]
    NotAdvertised {
        /// What was to be approved.
        subnet: Subnet,
        /// What could be.
        advertised: Vec<Subnet>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(subnets: &[Subnet]) -> String {
    if subnets.is_empty() {
        return "nothing".to_owned();
    }
    let texts: Vec<_> = subnets.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// What was approved, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Routes {
    approved: HashMap<NodeId, BTreeMap<Subnet, u64>>,
    active: RouteTable,
}

impl Routes {
    pub(super) fn new(approvals: Vec<Approval>) -> Self {
        let mut routes = Self::default();
        for Approval {
            node,
            subnet,
            approved_at,
        } in approvals
        {
            routes.approved.entry(node).or_default().insert(subnet, approved_at);
        }
        routes
    }

    /// Takes over what a node advertises now.
    pub(super) fn refresh(&mut self, node: &NodeRecord) {
        let approved = self.approved.get(&node.id);
        let wanted =
            |net: &Subnet| approved.is_some_and(|approved| approved.contains_key(net)) && node.subnets.contains(net);
        let gone: Vec<_> = self.active.of_node(&node.name).filter(|net| !wanted(net)).collect();
        for net in gone {
            self.active.remove(net, &node.name);
        }
        for net in node.subnets.iter().filter(|net| wanted(net)) {
            self.active.insert(*net, &node.name);
        }
    }

    /// A node may not connect any more.
    pub(super) fn forget(&mut self, id: NodeId, name: &NodeName) {
        self.approved.remove(&id);
        self.active.remove_node(name);
    }

    fn of(&self, node: &NodeRecord) -> Vec<RouteEntry> {
        let none = BTreeMap::new();
        let approved = self.approved.get(&node.id).unwrap_or(&none);
        let mut subnets: Vec<_> = node.subnets.iter().chain(approved.keys()).copied().collect();
        subnets.sort_unstable();
        subnets.dedup();
        let entry = |subnet| {
            let approved_at = approved.get(&subnet).copied();
            let state = match approved_at {
                None => RouteState::Advertised,
                Some(_) if node.subnets.contains(&subnet) => RouteState::Approved,
                Some(_) => RouteState::Withdrawn,
            };
            RouteEntry {
                node: node.name.clone(),
                subnet,
                state,
                ambiguous: state == RouteState::Approved && self.active.is_ambiguous(subnet),
                approved_at,
            }
        };
        subnets.into_iter().map(entry).collect()
    }
}

impl LiveDirectory {
    /// The node that leads to an address.
    pub fn route(&self, ip: std::net::IpAddr) -> Result<NodeName, RouteError> {
        self.lock().routes.active.lookup(ip).cloned()
    }

    /// Every subnet that a node advertises or is approved for, by node.
    pub fn routes(&self) -> Vec<RouteEntry> {
        let nodes = self.lock();
        nodes.directory.iter().flat_map(|node| nodes.routes.of(node)).collect()
    }

    /// Lets addresses of a subnet lead to a node for as long as it advertises that very subnet.
    pub async fn approve_route(&self, id: NodeId, subnet: Subnet, now: UnixTime) -> Result<(), ApproveError> {
        let _changing = self.changing.lock().await;
        let advertised = self.read(|all| all.get(id).map(|node| node.subnets.clone()));
        let advertised = advertised.ok_or(ApproveError::UnknownNode)?;
        if !advertised.contains(&subnet) {
            return Err(ApproveError::NotAdvertised { subnet, advertised });
        }
        let approved_at = now.secs();
        let approval = Approval {
            node: id,
            subnet,
            approved_at,
        };
        if !self.store.approve_route(approval).await? {
            return Err(ApproveError::UnknownNode);
        }
        self.change_routes(id, |approved| {
            approved.entry(subnet).or_insert(approved_at);
        });
        Ok(())
    }

    /// Takes an approval back; says whether there was one. Streams that run go on.
    pub async fn revoke_route(&self, id: NodeId, subnet: Subnet) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let revoked = self.store.revoke_route(id, subnet).await?;
        self.change_routes(id, |approved| {
            approved.remove(&subnet);
        });
        Ok(revoked)
    }

    fn change_routes(&self, id: NodeId, change: impl FnOnce(&mut BTreeMap<Subnet, u64>)) {
        let mut nodes = self.lock_mut();
        let nodes = &mut *nodes;
        // One that was removed meanwhile has no routes to change.
        if let Some(node) = nodes.directory.get(id) {
            change(nodes.routes.approved.entry(id).or_default());
            nodes.routes.refresh(node);
        }
    }
}

#[cfg(test)]
mod tests;
