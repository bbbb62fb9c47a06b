//! The configuration file as it is written. What is said here about a key is what `config schema` prints.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tunnel_daemon::logs::LogConfig;
use tunnel_model::{GatewayAddr, HostPort, Protocol, Rule, ServiceName, Zone};

use super::{addresses::Addresses, forward::RawForward};
use crate::audit::AuditOutput;

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
    /// Ports that always lead to the same target
    #[serde(default)]
    pub forward: Vec<RawForward>,
    /// Identity providers whose tokens are taken
    #[serde(default)]
    pub oidc: Vec<RawOidc>,
    /// How the gateway logs
    #[serde(default)]
    pub log: LogConfig,
    /// The audit log
    #[serde(default)]
    pub audit: RawAudit,
    /// What the gateway allows itself and others
    #[serde(default)]
    pub limits: RawLimits,
    /// Services of the cloud side, which the gateway dials for those whom a rule with nodes = "cloud" lets
    #[serde(default, rename = "service")]
    pub services: Vec<CloudService>,
    /// Who may reach what; nobody reaches anything without a rule
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
}

/// An entry of the list `service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudService {
    /// Its name: edges reach it as NAME.cloud
    pub name: ServiceName,
    /// Where the gateway dials it, HOST:PORT
    pub target: HostPort,
    /// By which protocol, tcp or udp
    #[serde(default, skip_serializing_if = "is_tcp")]
    pub protocol: Protocol,
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_tcp(protocol: &Protocol) -> bool {
    *protocol == Protocol::Tcp
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
    /// For users, IP:PORT or a list of them: TLS whose server name leads to a node, passed on untouched, to the
    /// listener's own port there
    pub sni: Addresses,
    /// For users, IP:PORT or a list of them: HTTP whose Host leads to a node
    pub http: Addresses,
}

impl Default for RawListen {
    fn default() -> Self {
        Self {
            public: (Ipv4Addr::UNSPECIFIED, 7000).into(),
            proxy: (Ipv4Addr::LOCALHOST, 7080).into(),
            metrics: (Ipv4Addr::LOCALHOST, 7090).into(),
            sni: Addresses::default(),
            http: Addresses::default(),
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
    /// How many streams one user, network address or edge may have open
    pub streams_per_principal: NonZeroU32,
    /// How many streams one user, network address or edge may open in a second
    pub principal_opens_per_second: NonZeroU32,
    /// How many streams may be opened to one node in a second
    pub node_opens_per_second: NonZeroU32,
    /// Bytes in a second of all streams of one user, network address or edge, both directions together; as many as go
    /// unless set
    pub principal_bytes_per_second: Option<NonZeroU64>,
    /// Bytes in a second of all streams to one node, both directions together; as many as go unless set
    pub node_bytes_per_second: Option<NonZeroU64>,
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
            streams_per_principal: limit(8192),
            principal_opens_per_second: limit(5000),
            node_opens_per_second: limit(5000),
            principal_bytes_per_second: None,
            node_bytes_per_second: None,
            memory_mib: None,
        }
    }
}

/// The table `audit`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAudit {
    /// The log's directory; audit in the state directory unless set
    pub path: Option<PathBuf>,
    /// The size of a file at which the next is begun, in MiB
    pub max_mib: NonZeroU32,
    /// How many files are kept, the newest included
    pub keep: NonZeroU32,
    /// Where records go; "file" is always among them
    pub outputs: Vec<AuditOutput>,
}

impl Default for RawAudit {
    fn default() -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            path: None,
            max_mib: number(64),
            keep: number(16),
            outputs: vec![AuditOutput::File],
        }
    }
}
