//! From a caller's wish to a stream: name, policy, limits, session, edge, target. The first that says no is the answer.
//!
//! | module | what |
//! |---|---|
//! | `rights` | the policy in force, and verdicts on those who ask |
//! | `route` | from an address to a node |
//! | `limits`, `bucket` | what one principal and one node may use |
//! | [`grants`] | the table of open streams: counted, listed, cut |
//! | `audited` | what the audit log hears of a stream |
//! | `stream`, `flow` | an open stream, or flow of packets, which keeps to all of this |
//! | `far` | what a stream leads to: a node, or the cloud side |
//! | `encoded` | streams that are compressed, or are scrapes, on their way |
//! | `cloud` | services of the cloud side, dialled by the gateway |
//! | `changes` | other configuration, and what it cuts |
//! | [`explain`] | the same way walked for an administrator, hop by hop |

mod audited;
mod bucket;
mod changes;
mod cloud;
mod encoded;
pub mod explain;
mod far;
mod flow;
pub mod grants;
mod limits;
mod metrics;
#[cfg(test)]
mod pipe;
mod rights;
mod route;
mod stream;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tracing::debug;
use tunnel_carrier::Tunnel;
use tunnel_daemon::memory::MemoryGuard;
use tunnel_ingress::{Credential, Dial, DialFlow, DialRequest, Tls};
use tunnel_model::{
    Class, Destination, Encoding, Host, HostPort, NodeName, Policy, Principal, Protocol, Reason, Refusal, Rule, Target,
    UserName, Verdict, Zone,
};
use tunnel_proto::Open;

use self::{
    audited::Audited,
    cloud::CloudServices,
    encoded::Encodings,
    far::{FarFlow, Place},
    limits::Limiter,
    rights::Rights,
};
use crate::{
    audit::{
        Audit, Refused,
        record::{Event, Why},
    },
    config::{Config, RawLimits},
    directory::LiveDirectory,
    state::State,
    tunnel::Registry,
    users::{Authenticator, Users},
};

pub use self::{
    far::Far,
    flow::GrantedFlow,
    grants::{Grant, Grants, Lease},
    metrics::DialMetrics,
    stream::{Carried, Granted},
};

/// How long an edge and its target may take to answer. The edge's own deadline is shorter, so that its reason arrives.
const DIAL_DEADLINE: Duration = Duration::from_secs(15);

/// What the ways in see of the gateway.
pub struct Gateway {
    /// The zone under which nodes have names.
    pub zone: Zone,
    /// Who may come in.
    authenticator: Authenticator,
    /// The users of its own.
    users: Arc<Users>,
    /// The gateway's certificate towards users.
    tls: Arc<Tls>,
    /// Who there is.
    pub directory: Arc<LiveDirectory>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What is open.
    pub grants: Arc<Grants>,
    cloud: CloudServices,
    encodings: Encodings,
    rights: Rights,
    limiter: Limiter,
    /// How many streams may be open to one node.
    streams_per_node: AtomicUsize,
    /// Whether there is memory for more.
    memory: MemoryGuard,
    metrics: DialMetrics,
    audit: Arc<Audit>,
}

impl Gateway {
    /// The gateway of this configuration, with nothing open.
    pub fn new(
        config: &Config,
        state: &State,
        authenticator: Authenticator,
        tls: Arc<Tls>,
        registry: Arc<Registry>,
        memory: MemoryGuard,
        metrics: DialMetrics,
    ) -> Self {
        let gateway = Self {
            zone: config.zone.clone(),
            users: Arc::clone(&state.users),
            authenticator,
            tls,
            directory: Arc::clone(&state.directory),
            registry,
            grants: Arc::new(Grants::new(metrics.clone())),
            cloud: CloudServices::new(config.services.clone()),
            encodings: Encodings::new(&metrics),
            rights: Rights::new(Policy::default()),
            limiter: Limiter::new(&config.limits),
            streams_per_node: AtomicUsize::new(0),
            memory,
            metrics,
            audit: Arc::clone(&state.audit),
        };
        gateway.set_limits(&config.limits);
        gateway.set_rules(config.rules.clone());
        gateway
    }

    /// Puts other rules in force, and cuts the streams that lose their right by it.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.metrics.rules.set(i64::try_from(rules.len()).unwrap_or(i64::MAX));
        self.rights.replace(Policy::compile(rules));
        self.recheck();
    }

    /// Puts other limits in force.
    pub fn set_limits(&self, limits: &RawLimits) {
        self.limiter.set(limits);
        let streams = usize::try_from(limits.streams_per_node.get()).unwrap_or(usize::MAX);
        self.streams_per_node.store(streams, Ordering::Relaxed);
    }

    /// What the policy says about whoever asks, and the rule that allows it.
    pub fn judge(&self, principal: &Principal, destination: &Destination) -> (Verdict, Option<Rule>) {
        let policy = self.rights.policy();
        let verdict = self.verdict(&policy, principal, destination);
        let rule = match verdict {
            Verdict::Allowed { rule } => policy.rules().get(rule).cloned(),
            Verdict::Denied(_) => None,
        };
        (verdict, rule)
    }

    fn verdict(&self, policy: &Policy, principal: &Principal, destination: &Destination) -> Verdict {
        self.directory
            .read(|all| rights::judge(policy, all, principal, destination))
    }

    /// Judges every open stream again, once policy, a user or a node's labels have changed; cuts those that would not be
    /// granted now, and says how many.
    pub fn recheck(&self) -> usize {
        self.rights.changed();
        let open = self.grants.list();
        if open.is_empty() {
            return 0;
        }
        let policy = self.rights.policy();
        let groups: HashMap<_, _> = self.users.list().into_iter().map(|u| (u.name, u.groups)).collect();
        // The directory is held for reading only, and is not left while streams are woken.
        let lost = self.directory.read(|all| {
            let lost = |grant: &Arc<Grant>| {
                let principal = rights::refresh(&grant.principal, &groups, all);
                !rights::judge(&policy, all, &principal, &grant.destination).is_allowed()
            };
            open.into_iter().filter(lost).collect::<Vec<_>>()
        });
        let cut = |grant: &&Arc<Grant>| {
            self.grants
                .cut(grant, rights::denied(&grant.principal, &grant.destination))
        };
        lost.iter().filter(cut).count()
    }

    /// Whether rights and limits let a stream come to be; `find` then looks for what it needs at the far side. What is
    /// returned with it has entered the table of open streams, and is on record.
    pub fn admit<T>(
        &self,
        request: &DialRequest,
        find: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<(T, Lease), Refusal> {
        let admitted = self.enter(request, find);
        if let Err(refusal) = &admitted {
            audited::refuse(&self.audit, request, refusal);
        }
        admitted
    }

    fn enter<T>(
        &self,
        request: &DialRequest,
        find: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<(T, Lease), Refusal> {
        let before = self.rights.changes();
        // Rights come before the directory, so that names cannot be tried out without any.
        self.may(request)?;
        let room = self.room(request)?;
        let found = find()?;
        let mut lease = self.grants.enter(request, room);
        if self.rights.changes() != before {
            // Whoever changed them may have gone through the table before this stream was in it, and who asks was found
            // out before as well.
            let message = "rights have changed this very moment; try again";
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        // In the table by now: a user who is removed from here on is looked for there.
        self.is_current(&request.principal)?;
        lease.audited = Audited::grant(&self.audit, request, lease.grant())?;
        debug!(
            stream = lease.grant().id,
            principal = %request.principal,
            to = %request.destination,
            class = %request.class,
            way = request.way.as_str(),
            client = %request.client,
            trace = %request.trace,
            "stream granted"
        );
        Ok((found, lease))
    }

    fn may(&self, request: &DialRequest) -> Result<(), Refusal> {
        match self.verdict(&self.rights.policy(), &request.principal, &request.destination) {
            Verdict::Allowed { .. } => Ok(()),
            Verdict::Denied(denial) => {
                self.metrics.denied(denial);
                Err(rights::denied(&request.principal, &request.destination))
            }
        }
    }

    fn room(&self, request: &DialRequest) -> Result<limits::Room, Refusal> {
        if self.memory.is_short() {
            let message = "the gateway is short of memory; try again later";
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        self.limiter.admit(&request.principal, &request.destination.node)
    }

    /// Where a destination is, if it takes one more stream by this protocol.
    fn find(&self, destination: &Destination, protocol: Protocol) -> Result<Place, Refusal> {
        if destination.node.is_reserved() {
            self.cloud.find(&destination.target, protocol).map(Place::Cloud)
        } else {
            self.session(&destination.node).map(Place::Node)
        }
    }

    /// The session of a node, if it takes one more stream.
    pub fn session(&self, name: &NodeName) -> Result<Tunnel, Refusal> {
        let node = self.directory.reach(name)?;
        let Some(tunnel) = self.registry.get(node) else {
            let message = format!("{name} has just lost its session; try again");
            return Err(Refusal::new(Reason::NodeOffline, message));
        };
        let most = self.streams_per_node.load(Ordering::Relaxed);
        if tunnel.open_streams() >= most {
            let message = format!("{name} has {most} streams open, as many as it may");
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        Ok(tunnel)
    }

    /// How a stream to a destination travels: as its edge offers, while there is room for it.
    fn encoding(&self, destination: &Destination, tunnel: &Tunnel) -> Encoding {
        let node = self.directory.reach(&destination.node);
        let offered = node.map(|node| self.registry.encoding(node, tunnel, &destination.target));
        self.encodings.possible(offered.unwrap_or_default())
    }

    /// Opens a byte stream to where it was found.
    async fn open(&self, request: &DialRequest, place: &Place, lease: Lease) -> Result<Granted<Far>, Refusal> {
        let opening = async {
            match place {
                Place::Node(tunnel) => {
                    let encoding = self.encoding(&request.destination, tunnel);
                    let open = header(request, Protocol::Tcp, encoding);
                    let stream = tunnel.open(&open, DIAL_DEADLINE).await?;
                    Ok(self.encodings.far(stream, encoding, &request.destination))
                }
                Place::Cloud(target) => self.cloud.connect(target).await.map(Far::Cloud),
            }
        };
        let far = unless_cut(&lease, opening).await?;
        Ok(Granted::new(far, lease))
    }

    /// Likewise a flow of packets.
    async fn open_flow(&self, request: &DialRequest, place: &Place, lease: Lease) -> Result<GrantedFlow, Refusal> {
        let opening = async {
            match place {
                Place::Node(tunnel) => {
                    let open = header(request, Protocol::Udp, Encoding::Raw);
                    let stream = tunnel.open(&open, DIAL_DEADLINE).await?;
                    Ok(FarFlow::Node(Box::new(stream.into_flow())))
                }
                Place::Cloud(target) => self.cloud.connect_flow(target).await.map(FarFlow::Cloud),
            }
        };
        let far = unless_cut(&lease, opening).await?;
        Ok(GrantedFlow::new(far, lease))
    }
}

/// What the far end is told.
fn header(request: &DialRequest, protocol: Protocol, encoding: Encoding) -> Open {
    Open {
        target: request.destination.target.clone(),
        protocol,
        encoding,
        class: request.class,
        trace: request.trace,
        principal: request.principal.to_string(),
        node: None,
    }
}

/// What is opened, unless the right to it is lost meanwhile.
async fn unless_cut<T>(lease: &Lease, opening: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::select! {
        opened = opening => opened.inspect_err(|refusal| lease.audited.refused(refusal.reason)),
        why = lease.wait_cut() => Err(why),
    }
}

fn log_refused(request: &DialRequest, refusal: &Refusal) {
    debug!(
        principal = %request.principal,
        to = %request.destination,
        way = request.way.as_str(),
        client = %request.client,
        trace = %request.trace,
        reason = %refusal.reason,
        error = refusal.message,
        "dial refused"
    );
}

impl Dial for Gateway {
    type Stream = Granted<Far>;

    async fn authenticate(&self, credential: Option<Credential>, client: SocketAddr) -> Result<Principal, Refusal> {
        match credential {
            Some(credential) => match self.authenticator.authenticate(&credential, client).await {
                Ok(principal) => Ok(principal),
                Err(refusal) => {
                    let why = Why::from(&refusal);
                    let event = Event::AuthenticationRefused { client, why };
                    self.audit.refusal(Refused::Authentication, &event);
                    Err(refusal)
                }
            },
            None if self.rights.policy().names_address(client.ip()) => Ok(Principal::address(client.ip())),
            None => Err(Refusal::new(
                Reason::Unauthenticated,
                "this gateway wants a credential: Basic NAME:SECRET, Bearer SECRET or TOKEN, or a client certificate",
            )),
        }
    }

    fn tls(&self) -> Option<Arc<Tls>> {
        Some(Arc::clone(&self.tls))
    }

    fn user(&self, name: &UserName) -> Result<Principal, Refusal> {
        self.users.by_name(name).ok_or_else(|| {
            let message = format!("there is no user {name}, on whose behalf this forward was configured");
            Refusal::new(Reason::Unauthenticated, message)
        })
    }

    fn zone(&self) -> &Zone {
        &self.zone
    }

    fn destination(&self, principal: &Principal, host: Host, _: u16) -> Result<Destination, Refusal> {
        let (ip, port) = match host {
            Host::Named(destination) => return Ok(destination),
            Host::Address { ip, port } => (ip, port),
        };
        let policy = self.rights.policy();
        let may = |destination: &Destination| self.verdict(&policy, principal, destination).is_allowed();
        let node = route::node_towards(&self.directory, may, principal, Protocol::Tcp, (ip, port).into())?;
        let target = Target::Tcp(HostPort::from_ip(ip, port));
        Ok(Destination { node, target })
    }

    fn class(&self, destination: &Destination) -> Class {
        let chosen = || {
            let node = self.directory.reach(&destination.node).ok()?;
            let tunnel = self.registry.get(node)?;
            self.registry.class(node, &tunnel, &destination.target)
        };
        chosen().unwrap_or_else(|| destination.target.class())
    }

    async fn dial(&self, request: DialRequest) -> Result<Self::Stream, Refusal> {
        let dialled = match self.admit(&request, || self.find(&request.destination, Protocol::Tcp)) {
            Ok((place, lease)) => self.open(&request, &place, lease).await,
            Err(refusal) => Err(refusal),
        };
        dialled.inspect_err(|refusal| log_refused(&request, refusal))
    }
}

impl DialFlow for Gateway {
    type Flow = GrantedFlow;

    async fn dial_flow(&self, request: DialRequest) -> Result<GrantedFlow, Refusal> {
        let dialled = match self.admit(&request, || self.find(&request.destination, Protocol::Udp)) {
            Ok((place, lease)) => self.open_flow(&request, &place, lease).await,
            Err(refusal) => Err(refusal),
        };
        dialled.inspect_err(|refusal| log_refused(&request, refusal))
    }
}
