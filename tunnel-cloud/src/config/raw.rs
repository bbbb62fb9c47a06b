//! The configuration file as it is written. What is said here about a key is what `config schema` prints.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tunnel_daemon::logs::LogConfig;
use tunnel_model::{GatewayAddr, Zone};

use crate::oidc::config::RawOidc;

/// The configuration of tunnel-cloud.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// The directory of keys and store that `tunnel-cloud init` made; relative to this file
    pub state: PathBuf,
    /// The suffix of the nodes' names: a node is NODE or NODE.ZONE
    #[serde(default)]
    pub zone: Zone,
    /// The Unix socket for commands; admin.sock in the state directory unless set
    #[serde(default)]
    pub admin: Option<PathBuf>,
    /// Where the gateway listens
    #[serde(default)]
    pub listen: RawListen,
    /// What edges are told about the gateway
    pub gateway: RawGateway,
    /// Identity providers whose tokens are taken
    #[serde(default)]
    pub oidc: Vec<RawOidc>,
    /// How the gateway logs
    #[serde(default)]
    pub log: LogConfig,
    /// What the gateway allows itself and others
    #[serde(default)]
    pub limits: RawLimits,
}

/// The table `listen`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// For edges, IP:PORT (UDP)
    pub public: SocketAddr,
    /// For users, IP:PORT: HTTP proxy and SOCKS5, with credentials
    pub proxy: SocketAddr,
    /// For monitoring, IP:PORT on loopback: metrics and health, without credentials
    pub metrics: SocketAddr,
}

impl Default for RawListen {
    fn default() -> Self {
        Self {
            public: (Ipv4Addr::UNSPECIFIED, 7000).into(),
            proxy: (Ipv4Addr::LOCALHOST, 7080).into(),
            metrics: (Ipv4Addr::LOCALHOST, 7090).into(),
        }
    }
}

/// The table `gateway`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawGateway {
    /// Where edges reach the gateway, HOST:PORT each, the best first; written into join tokens
    pub advertise: Vec<GatewayAddr>,
}

/// The table `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// How many nodes may be connected at once
    pub nodes: NonZeroU32,
    /// How many streams may be open to one node
    pub streams_per_node: NonZeroU32,
    /// How many connections the proxy port serves at once
    pub proxy_connections: NonZeroU32,
    /// MiB of memory at 95 % of which new work is refused; the control group's limit unless set
    pub memory_mib: Option<NonZeroU32>,
}

impl Default for RawLimits {
    fn default() -> Self {
        let limit = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            nodes: limit(20_000),
            streams_per_node: limit(1024),
            proxy_connections: limit(16_384),
            memory_mib: None,
        }
    }
}
