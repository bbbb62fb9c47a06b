//! Figures of an agent, for its operator.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tunnel_carrier::{Tunnel, TunnelStatus};
use tunnel_model::{Class, NodeId, Service, Subnet};

use super::{Phase, Shared};
use crate::{
    budget::Account,
    config::{Bytes, LinkBudget},
    reload::Configuration,
};

/// What `tunnel-edge status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Where the agent stands.
    pub state: Phase,
    /// Since when (RFC 3339, UTC).
    pub since: String,
    /// The node's name, once the gateway has told it.
    pub name: Option<String>,
    /// The node's id.
    pub node: NodeId,
    /// The gateway's address in use, or last used.
    pub gateway: Option<String>,
    /// Why it is not connected.
    pub reason: Option<String>,
    /// The same for a person.
    pub message: Option<String>,
    /// While connected: the link.
    pub link: Option<Link>,
    /// What the link has carried today.
    #[serde(default)]
    pub today: Option<Today>,
    /// When the certificate expires (RFC 3339, UTC).
    pub certificate_expires: String,
    /// What the edge offers.
    pub services: Vec<Service>,
    /// The subnets that it advertises.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Whether the configuration that is in force is there to stay; nothing where nobody can change it.
    #[serde(default)]
    pub configuration: Option<Configuration>,
    /// The agent's version.
    pub version: String,
}

/// What the link has carried on a day of UTC, and what it may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Today {
    /// The day, such as `2026-11-26`.
    pub day: String,
    /// All packets, and then the streams of each class that has carried something or has a budget.
    pub carried: Vec<Share>,
}

/// A part of what the link carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Share {
    /// `all`, or a class.
    pub of: String,
    /// Bytes both ways: of UDP or TCP payload for `all`, of data for a class.
    pub bytes: u64,
    /// What it may be, where that is configured.
    pub budget: Option<u64>,
}

impl Today {
    fn of(account: Account, budget: &LinkBudget) -> Self {
        let share = |of: &str, bytes, budget: Option<Bytes>| Share {
            of: of.to_owned(),
            bytes,
            budget: budget.map(|budget| budget.0),
        };
        let all = share("all", account.carried.all, budget.all);
        let classes = Class::ALL.into_iter().filter_map(|class| {
            let bytes = account.carried.classes.get(&class).copied().unwrap_or_default();
            let limit = budget.of(class);
            (bytes > 0 || limit.is_some()).then(|| share(class.as_str(), bytes, limit))
        });
        Self {
            carried: std::iter::once(all).chain(classes).collect(),
            day: account.day,
        }
    }
}

/// The link to the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    /// What it goes over: `quic`, or `tls` where UDP does not get through.
    #[serde(default)]
    pub carrier: String,
    /// The round trip, in milliseconds.
    pub rtt_ms: f64,
    /// The largest UDP payload that the path carries, in bytes; 0 on TLS.
    pub mtu: u16,
    /// Streams that are open.
    pub streams: usize,
    /// How many of them are of each class; classes that have none are left out.
    #[serde(default)]
    pub classes: BTreeMap<Class, usize>,
    /// Bytes of UDP or TCP payload sent.
    pub sent_bytes: u64,
    /// Bytes of UDP or TCP payload received.
    pub received_bytes: u64,
    /// Packets that were lost on the way to the gateway.
    pub lost_packets: u64,
    /// What the edge holds to when it sends: `link.rate`, or what a thin link was measured to take.
    #[serde(default)]
    pub pace: Option<Pace>,
}

/// What is sent at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pace {
    /// Whole packets with all their headers.
    pub bits_per_second: u64,
    /// Not configured.
    pub measured: bool,
}

impl Pace {
    fn of(status: &TunnelStatus) -> Option<Self> {
        let rate = status.rate.or(status.measured)?;
        Some(Self {
            bits_per_second: rate.bits_per_second(),
            measured: status.rate.is_none(),
        })
    }
}

impl Status {
    pub(super) fn of(shared: &Shared) -> Self {
        let state = shared.state.borrow().clone();
        let settings = Arc::clone(&shared.settings.borrow());
        let status = state.tunnel.as_ref().and_then(Tunnel::status);
        let classes = state.tunnel.as_ref().map(Tunnel::open_by_class).unwrap_or_default();
        let link = status.map(|status| Link {
            carrier: status.carrier.to_string(),
            rtt_ms: status.rtt.as_secs_f64() * 1000.0,
            mtu: status.mtu,
            streams: status.streams,
            classes: Class::ALL
                .into_iter()
                .zip(classes)
                .filter(|(_, open)| *open > 0)
                .collect(),
            sent_bytes: status.sent_bytes,
            received_bytes: status.received_bytes,
            lost_packets: status.lost_packets,
            pace: Pace::of(&status),
        });
        Self {
            state: state.phase,
            since: state.since.to_string(),
            name: state.name,
            node: shared.identity.node(),
            gateway: state.gateway.map(|address| address.to_string()),
            reason: state.why.as_ref().map(|why| why.reason.to_string()),
            message: state.why.map(|why| why.message),
            link,
            today: Some(Today::of(shared.accounts.today(), &settings.budget)),
            certificate_expires: shared.identity.validity().borrow().not_after.to_string(),
            services: settings.targets.services().to_vec(),
            subnets: settings.targets.subnets().to_vec(),
            configuration: None,
            version: crate::VERSION.to_owned(),
        }
    }
}
