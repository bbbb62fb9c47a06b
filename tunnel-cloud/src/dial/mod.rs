//! From a caller's wish to a stream: name, policy, session, edge. The first that says no is the answer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tunnel_daemon::memory::MemoryGuard;
use tunnel_model::{Ask, Labels, NodeName, Policy, Principal, Reason, Refusal, RouteError, Verdict, Zone};
use tunnel_proto::Open;

use crate::{
    directory::LiveDirectory,
    ingress::{Credential, Dial, DialRequest, Dialled, Tls},
    tunnel::Registry,
    users::Authenticator,
};

/// How long an edge and its target may take to answer. The edge's own deadline is shorter, so that its reason arrives.
const DIAL_DEADLINE: Duration = Duration::from_secs(15);

/// What the ways in see of the gateway.
pub struct Gateway {
    /// The zone under which nodes have names.
    pub zone: Zone,
    /// Who may come in.
    pub authenticator: Authenticator,
    /// The gateway's certificate towards users.
    pub tls: Arc<Tls>,
    /// Who may reach what.
    pub policy: Policy,
    /// Who there is.
    pub directory: Arc<LiveDirectory>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// How many streams may be open to one node.
    pub streams_per_node: usize,
    /// Whether there is memory for more.
    pub memory: MemoryGuard,
}

impl Dial for Gateway {
    type Stream = tunnel_carrier::Stream;

    async fn authenticate(&self, credential: Option<Credential>, client: SocketAddr) -> Result<Principal, Refusal> {
        let credential = credential.ok_or_else(|| {
            let message =
                "this gateway wants a credential: Basic NAME:SECRET, Bearer SECRET or TOKEN, or a client certificate";
            Refusal::new(Reason::Unauthenticated, message)
        })?;
        self.authenticator.authenticate(&credential, client).await
    }

    fn tls(&self) -> Option<Arc<Tls>> {
        Some(Arc::clone(&self.tls))
    }

    fn zone(&self) -> &Zone {
        &self.zone
    }

    fn route(&self, ip: IpAddr) -> Result<NodeName, Refusal> {
        Err(Refusal::new(Reason::Denied, RouteError::NoRoute(ip).to_string()))
    }

    async fn dial(&self, request: DialRequest) -> Result<Self::Stream, Refusal> {
        let DialRequest {
            principal, destination, ..
        } = &request;
        // Rights come before the directory, so that names cannot be tried out without any.
        let unknown = Labels::default();
        let verdict = self.directory.read(|all| {
            self.policy.decide(&Ask {
                principal,
                node: &destination.node,
                labels: all.by_name(&destination.node).map_or(&unknown, |node| &node.labels),
                target: &destination.target,
            })
        });
        if let Verdict::Denied(_) = verdict {
            let message = format!(
                "{principal} may not reach {} on {}",
                destination.target, destination.node
            );
            return Err(Refusal::new(Reason::Denied, message));
        }
        let node = self.directory.reach(&destination.node)?;
        let name = &destination.node;
        let Some(tunnel) = self.registry.get(node) else {
            return Err(Refusal::new(
                Reason::NodeOffline,
                format!("{name} has just lost its session; try again"),
            ));
        };
        if self.memory.is_short() {
            return Err(Refusal::new(
                Reason::Overloaded,
                "the gateway is short of memory; try again later",
            ));
        }
        if tunnel.open_streams() >= self.streams_per_node {
            let message = format!("{name} has {} streams open, as many as it may", self.streams_per_node);
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        let open = Open {
            target: destination.target.clone(),
            class: request.class,
            trace: request.trace,
            principal: principal.to_string(),
            node: None,
        };
        tunnel.open(&open, DIAL_DEADLINE).await
    }
}

impl Dialled for tunnel_carrier::Stream {
    async fn established(&mut self) -> Result<(), Refusal> {
        Self::established(self).await
    }
}
