//! Services: targets with a name.

use crate::{HostPort, ServiceName};

/// Something on the edge's side that may be reached by name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, unique on the edge.
    pub name: ServiceName,
    /// Where the edge dials it.
    pub target: HostPort,
}

/// What an edge offers when its configuration names no service: name and port on loopback.
pub const DEFAULT_SERVICES: [(&str, u16); 3] = [("ssh", 22), ("kubelet", 10250), ("node-exporter", 9100)];
