//! Requests and answers of version 1. Fields are added, never given a second meaning. Times are RFC 3339 in UTC.

mod rights;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tunnel_model::{
    ChosenClass, Class, ClusterId, Destination, GroupName, Labels, LossCause, NodeId, NodeName, Protocol, Service,
    Subnet, Target, TokenId, UserName, Zone,
};

pub use crate::directory::RouteState;

pub use rights::*;

/// `POST /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// The only name that a node may take with it.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// The labels that nodes get.
    #[serde(default)]
    pub labels: Labels,
    /// For how long it is good, in seconds.
    pub ttl_seconds: u64,
    /// How many nodes may join with it.
    pub uses: u32,
}

/// A new token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// The public half, by which it is listed and revoked.
    pub id: TokenId,
    /// The token, to be given to the edge. It is shown this once.
    pub token: String,
    /// Its last second.
    pub expires_at: String,
}

/// `GET /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenList {
    /// Oldest first.
    pub tokens: Vec<TokenView>,
}

/// A token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenView {
    /// The public half.
    pub id: TokenId,
    /// What it is still worth.
    pub state: TokenState,
    /// The only name that a node may take with it.
    pub name: Option<NodeName>,
    /// The labels that nodes get.
    pub labels: Labels,
    /// How many more nodes may join with it.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: String,
    /// Its last second.
    pub expires_at: String,
}

/// What a token is still worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// A node may join with it.
    Valid,
    /// As many nodes have joined as may.
    Spent,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// `GET /v1/nodes`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeList {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its id.
    pub id: NodeId,
    /// Whether it can be reached.
    pub state: Connection,
    /// Since when.
    pub since: String,
    /// Why it is offline; nothing if it is online or has never connected.
    pub reason: Option<String>,
    /// While it is online: what its session goes over, `quic`, or `tls` where UDP does not get through.
    #[serde(default)]
    pub carrier: Option<String>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<String>,
    /// What the operator says about it.
    pub labels: Labels,
    /// What it offers.
    pub services: Vec<Service>,
    /// Subnets that it would like to be the way to.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Its agent's version.
    pub agent_version: String,
    /// When it joined.
    pub enrolled_at: String,
}

/// `GET /v1/nodes/NAME/history`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeHistory {
    /// The node's name.
    pub node: NodeName,
    /// The losses of its link that it has told of, oldest first.
    pub losses: Vec<LossView>,
}

/// A loss of a node's link that is over, as the node tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LossView {
    /// Its place in the node's journal.
    pub number: u64,
    /// Why.
    pub cause: LossCause,
    /// When it began, by the node's clock.
    pub begun_at: String,
    /// Until a gateway was greeted again, in seconds.
    pub lasted_seconds: f64,
    /// Bytes that the node had sent on the connection that was lost.
    pub sent_bytes: u64,
    /// Bytes that it had received there.
    pub received_bytes: u64,
    /// What was said at the time.
    pub message: String,
}

/// Whether a node can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// It has a session.
    Online,
    /// It has none.
    Offline,
}

/// `GET /v1/nodes/{name}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeDetail {
    /// The node.
    #[serde(flatten)]
    pub node: NodeView,
    /// Its certificates, newest first.
    pub certificates: Vec<CertificateView>,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateView {
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// When it was issued.
    pub issued_at: String,
    /// Its last second.
    pub expires_at: String,
}

/// `PATCH /v1/nodes/{name}/labels`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditLabels {
    /// Labels to set, as pairs of key and value.
    #[serde(default)]
    pub set: Vec<(String, String)>,
    /// Keys to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// `GET /v1/routes`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteList {
    /// By node and subnet.
    pub routes: Vec<RouteView>,
}

/// A subnet that a node advertises, or is approved for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteView {
    /// The node.
    pub node: NodeName,
    /// The subnet.
    pub subnet: Subnet,
    /// Whether addresses of the subnet lead to the node.
    pub state: RouteState,
    /// Whether they lead to other nodes as well: then only `ADDRESS.via.NODE` reaches one.
    pub ambiguous: bool,
    /// When it was approved, if it was.
    pub approved_at: Option<String>,
}

/// `POST /v1/routes/approve`, `POST /v1/routes/revoke`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRoute {
    /// The node.
    pub node: String,
    /// The subnet.
    pub subnet: Subnet,
}

/// The answer to what has no other answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Done {}

/// `POST /v1/nodes/{name}/ping`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pong {
    /// The node.
    pub node: NodeName,
    /// The round trip through the tunnel, in milliseconds.
    pub round_trip_ms: f64,
}

/// `POST /v1/users`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The name.
    pub name: UserName,
    /// The groups it belongs to.
    #[serde(default)]
    pub groups: Vec<GroupName>,
}

/// A new user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewUser {
    /// The name.
    pub name: UserName,
    /// The secret. It is shown this once.
    pub secret: String,
}

/// `POST /v1/users/{name}/certificates`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifyUser {
    /// A certificate request in DER form (PKCS#10), in base64. Only its key counts.
    pub request: String,
    /// For how long the certificate is to be valid, in seconds.
    pub ttl_s: u64,
}

/// A user's new certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserCertificate {
    /// The user.
    pub user: UserName,
    /// The certificate and the one above it, in PEM form.
    pub certificate: String,
    /// The cluster's root, by which a client knows the gateway, in PEM form.
    pub root: String,
    /// The certificate's last second.
    pub expires_at: String,
}

/// `GET /v1/users`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserList {
    /// By name.
    pub users: Vec<UserView>,
}

/// A user without the secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserView {
    /// The name.
    pub name: UserName,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
    /// When it was made.
    pub created_at: String,
}

/// `POST /v1/forwards`, whose answer goes on for as long as the forward is open: the first line is a
/// [`ForwardOpened`], empty lines are signs of life.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateForward {
    /// Where to listen; port 0 is any that is free.
    pub listen: SocketAddr,
    /// The node to which it leads.
    pub node: NodeName,
    /// What on the node.
    pub target: Target,
    /// What it takes from callers.
    #[serde(default)]
    pub protocol: Protocol,
    /// How urgent its streams are, where that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ChosenClass>,
    /// Whether other machines may be able to use it.
    #[serde(default)]
    pub public: bool,
}

impl CreateForward {
    /// The far end.
    pub fn destination(&self) -> Destination {
        Destination {
            node: self.node.clone(),
            target: self.target.clone(),
        }
    }
}

/// A forward is open.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ForwardOpened {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// `GET /v1/status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// The cluster that it serves.
    pub cluster: ClusterId,
    /// The suffix of the nodes' names.
    pub zone: Zone,
    /// The nodes by condition.
    pub nodes: NodeCounts,
    /// When the issuing authority has to be rotated at the latest.
    pub authority_expires_at: String,
    /// Streams that callers have open, by class; those that have none are left out.
    #[serde(default)]
    pub streams_by_class: BTreeMap<Class, usize>,
    /// What the running gateway says.
    #[serde(flatten)]
    pub gateway: GatewayStatus,
}

/// How many nodes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts {
    /// Connected now.
    pub online: usize,
    /// Enrolled and not connected.
    pub offline: usize,
    /// Revoked and not yet removed.
    pub revoked: usize,
}

/// What only a running gateway knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// When it was started.
    pub started_at: String,
    /// Where it listens.
    pub listen: Listening,
    /// Streams open to nodes.
    pub streams: u64,
}

/// The addresses that a gateway is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// For edges.
    pub public: SocketAddr,
    /// For users.
    pub proxy: SocketAddr,
    /// For monitoring.
    pub metrics: SocketAddr,
    /// For users: TLS, by its server name.
    #[serde(default)]
    pub sni: Vec<SocketAddr>,
    /// For users: HTTP, by its `Host`.
    #[serde(default)]
    pub http: Vec<SocketAddr>,
    /// The forwards of the configuration.
    #[serde(default)]
    pub forwards: Vec<ForwardView>,
}

/// A port that always leads to the same target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardView {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The node to which it leads.
    pub node: NodeName,
    /// What on the node.
    pub target: Target,
    /// What it takes from callers.
    pub protocol: Protocol,
    /// How urgent its streams are, where that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ChosenClass>,
}

/// `POST /v1/backup`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The file to write: absolute, and as the gateway sees it.
    pub path: PathBuf,
}
