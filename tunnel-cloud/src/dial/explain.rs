//! Why somebody reaches something, or does not: the way of a dial, walked hop by hop for an administrator.

use std::net::{IpAddr, Ipv4Addr};

use tunnel_ingress::{DialRequest, Dialled, Way};
use tunnel_model::{
    Class, Destination, Host, HostPort, NodeState, Principal, Protocol, Reason, Refusal, Target, TraceId, Verdict,
};

use super::{Gateway, Lease, far::Place};

/// The hops of a dial, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopName {
    /// Does the name lead to a node?
    Name,
    /// Does the gateway take one more stream of this principal?
    Gateway,
    /// Does a rule allow it?
    Policy,
    /// Is the node connected?
    Session,
    /// Does the edge let anybody reach the target?
    Edge,
    /// Does the target answer?
    Target,
}

impl HopName {
    /// Every hop, in the order of a dial.
    pub const ALL: [Self; 6] = [
        Self::Name,
        Self::Gateway,
        Self::Policy,
        Self::Session,
        Self::Edge,
        Self::Target,
    ];

    /// The hop as it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Gateway => "gateway",
            Self::Policy => "policy",
            Self::Session => "session",
            Self::Edge => "edge",
            Self::Target => "target",
        }
    }
}

/// What the hops said, as far as they were asked: each what it found, the last one perhaps no.
#[derive(Debug, Default)]
pub struct Explained {
    /// Those that said yes.
    pub passed: Vec<(HopName, String)>,
    /// The one that said no.
    pub stopped: Option<(HopName, Refusal)>,
}

type No = (HopName, Refusal);

impl Gateway {
    /// Walks the way of a dial to `wish`, written as a destination or as a caller would write it. The stream is really
    /// opened, and closed at once.
    pub async fn explain(&self, principal: Principal, wish: &str) -> Explained {
        let mut explained = Explained::default();
        explained.stopped = self.walk(principal, wish, &mut explained.passed).await.err();
        explained
    }

    async fn walk(&self, principal: Principal, wish: &str, passed: &mut Vec<(HopName, String)>) -> Result<(), No> {
        let stop = |hop| move |refusal| (hop, refusal);
        let destination = self.destination(wish).map_err(stop(HopName::Name))?;
        let found = self.describe(&destination).map_err(stop(HopName::Name))?;
        passed.push((HopName::Name, found));

        let ip = principal.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let request = DialRequest {
            principal,
            destination,
            class: Class::default(),
            way: Way::Explain,
            trace: TraceId::random(&mut rand::rng()),
            client: (ip, 0).into(),
        };
        let room = self.room(&request).map_err(stop(HopName::Gateway))?;
        // It is taken again by the dial itself.
        drop(room);
        passed.push((HopName::Gateway, "takes one more stream".to_owned()));

        match self.judge(&request.principal, &request.destination) {
            (Verdict::Allowed { rule: place }, Some(rule)) => {
                passed.push((HopName::Policy, format!("rule {place} allows it: {rule}")));
            }
            (Verdict::Denied(denial), _) => {
                return Err((HopName::Policy, Refusal::new(Reason::Denied, denial.to_string())));
            }
            (Verdict::Allowed { .. }, None) => {}
        }
        let node = &request.destination.node;
        let protocol = self.protocol_of(&request.destination);
        let (place, lease) = self
            .admit(&request, || self.find(&request.destination, protocol))
            .map_err(stop(HopName::Session))?;
        let found = match &place {
            Place::Node(tunnel) => format!("{node} has {} streams open", tunnel.open_streams()),
            Place::Cloud(target) => format!("the gateway itself dials {target}"),
        };
        passed.push((HopName::Session, found));
        self.knock(&request, protocol, &place, lease, passed).await
    }

    /// By which protocol a target is asked for: what it says itself, else what the service is declared to be.
    fn protocol_of(&self, destination: &Destination) -> Protocol {
        let Destination { node, target } = destination;
        let declared = || match target {
            Target::Service(_) if node.is_reserved() => self.cloud.protocol(target),
            Target::Service(name) => self.directory.read(|all| {
                let services = &all.by_name(node)?.services;
                let service = services.iter().find(|service| service.name == *name)?;
                Some(service.protocol)
            }),
            _ => None,
        };
        target.protocol().or_else(declared).unwrap_or_default()
    }

    async fn knock(
        &self,
        request: &DialRequest,
        protocol: Protocol,
        place: &Place,
        lease: Lease,
        passed: &mut Vec<(HopName, String)>,
    ) -> Result<(), No> {
        let target = &request.destination.target;
        let lets = format!("lets anybody reach {target} whom the gateway lets");
        let answered = match protocol {
            Protocol::Tcp => match self.open(request, place, lease).await {
                Ok(mut stream) => stream.established().await.map(|()| "answers"),
                Err(refusal) => Err(refusal),
            },
            Protocol::Udp => match self.open_flow(request, place, lease).await {
                Ok(mut flow) => flow
                    .established()
                    .await
                    .map(|()| "takes packets; only an answer shows who listens"),
                Err(refusal) => Err(refusal),
            },
        };
        let refusal = match answered {
            Ok(found) => {
                passed.push((HopName::Edge, lets));
                passed.push((HopName::Target, format!("{target} {found}")));
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        let hop = hop_of(refusal.reason);
        match hop {
            HopName::Target => passed.push((HopName::Edge, lets)),
            HopName::Session => passed.retain(|(name, _)| *name != HopName::Session),
            _ => {}
        }
        Err((hop, refusal))
    }

    /// What is meant: a destination as rules and listings write it, or a host and port as a caller does, perhaps with
    /// `udp:` before it.
    pub fn destination(&self, wish: &str) -> Result<Destination, Refusal> {
        let unreadable = match wish.parse::<Destination>() {
            Ok(destination) => return Ok(destination),
            Err(error) => error,
        };
        let (protocol, host) = match wish.strip_prefix("udp:") {
            Some(host) => (Protocol::Udp, host),
            None => (Protocol::Tcp, wish),
        };
        match Host::parse(host, &self.zone) {
            Ok(Host::Named(Destination { node, target })) => Ok(Destination {
                node,
                target: match target {
                    Target::Port(port) => Target::local(protocol, port),
                    Target::Tcp(address) => Target::remote(protocol, address),
                    other => other,
                },
            }),
            Ok(Host::Address { ip, port }) => Ok(Destination {
                // Not as the caller would hear it: an administrator may know of every route.
                node: (self.directory.route(ip)).map_err(|error| Refusal::new(Reason::Denied, error.to_string()))?,
                target: Target::remote(protocol, HostPort::from_ip(ip, port)),
            }),
            Err(_) => Err(Refusal::new(Reason::BadRequest, unreadable.to_string())),
        }
    }

    fn describe(&self, destination: &Destination) -> Result<String, Refusal> {
        let node = &destination.node;
        let known = self.directory.read(|all| {
            all.by_name(node).map(|record| {
                let state = match record.state {
                    NodeState::Online { .. } => "online",
                    NodeState::Offline { .. } => "offline",
                };
                match record.labels.to_string() {
                    labels if labels.is_empty() => format!("node {node} ({state})"),
                    labels => format!("node {node} ({state}; {labels})"),
                }
            })
        });
        match known {
            Some(found) => Ok(format!("{found}, {}", destination.target)),
            None if node.is_reserved() => Ok(format!("the cloud side, {}", destination.target)),
            // Revoked, or never there.
            None => Err(self
                .directory
                .reach(node)
                .err()
                .unwrap_or_else(|| Refusal::new(Reason::UnknownNode, format!("no node is named {node}")))),
        }
    }
}

/// Who says this, when a stream is opened.
fn hop_of(reason: Reason) -> HopName {
    match reason {
        Reason::TargetRefused | Reason::TargetTimeout | Reason::TargetUnreachable | Reason::TargetReset => {
            HopName::Target
        }
        Reason::CarrierLost | Reason::Superseded | Reason::Revoked | Reason::IdleTimeout => HopName::Session,
        _ => HopName::Edge,
    }
}
