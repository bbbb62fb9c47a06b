//! From a caller's wish to a stream: name, policy, limits, session, edge, target. The first that says no is the answer.
//!
//! | module | what |
//! |---|---|
//! | `rights` | the policy in force, and verdicts on those who ask |
//! | `limits`, `bucket` | what one principal and one node may use |
//! | [`grants`] | the table of open streams: counted, listed, cut |
//! | `stream` | an open stream, which keeps to all of this |
//! | `far` | what a stream leads to: a node, or the cloud side |
//! | `cloud` | services of the cloud side, dialled by the gateway |
//! | [`explain`] | the same way walked for an administrator, hop by hop |

mod bucket;
mod cloud;
pub mod explain;
mod far;
pub mod grants;
mod limits;
mod metrics;
mod rights;
mod stream;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tracing::debug;
use tunnel_carrier::Tunnel;
use tunnel_daemon::memory::MemoryGuard;
use tunnel_model::{
    Destination, Identity, NodeName, Policy, Principal, Reason, Refusal, RouteError, Rule, UserName, Verdict, Zone,
};
use tunnel_proto::Open;

use self::{cloud::CloudServices, far::Place, limits::Limiter, rights::Rights};
use crate::{
    config::{Config, RawLimits},
    directory::LiveDirectory,
    ingress::{Credential, Dial, DialRequest},
    state::State,
    tunnel::Registry,
    users::Users,
};

pub use self::{
    far::Far,
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
    pub users: Arc<Users>,
    /// Who there is.
    pub directory: Arc<LiveDirectory>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What is open.
    pub grants: Arc<Grants>,
    cloud: CloudServices,
    rights: Rights,
    limiter: Limiter,
    /// How many streams may be open to one node.
    streams_per_node: AtomicUsize,
    /// Whether there is memory for more.
    memory: MemoryGuard,
    metrics: DialMetrics,
}

impl Gateway {
    /// The gateway of this configuration, with nothing open.
    pub fn new(
        config: &Config,
        state: &State,
        registry: Arc<Registry>,
        memory: MemoryGuard,
        metrics: DialMetrics,
    ) -> Self {
        let gateway = Self {
            zone: config.zone.clone(),
            users: Arc::clone(&state.users),
            directory: Arc::clone(&state.directory),
            registry,
            grants: Arc::new(Grants::new(metrics.clone())),
            cloud: CloudServices::new(config.services.clone()),
            rights: Rights::new(Policy::default()),
            limiter: Limiter::new(&config.limits),
            streams_per_node: AtomicUsize::new(0),
            memory,
            metrics,
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
        let verdict = self
            .directory
            .read(|all| rights::judge(&policy, all, principal, destination));
        let rule = match verdict {
            Verdict::Allowed { rule } => policy.rules().get(rule).cloned(),
            Verdict::Denied(_) => None,
        };
        (verdict, rule)
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
        let cut = |grant: &&Arc<Grant>| self.grants.cut(grant, rights::denied(&grant.principal, &grant.destination));
        lost.iter().filter(cut).count()
    }

    /// Cuts every stream of a user who is no more, and says how many.
    pub fn user_removed(&self, user: &UserName) -> usize {
        self.rights.changed();
        let refusal = Refusal::new(Reason::Denied, format!("user {user} was removed"));
        let of_user = |grant: &Arc<Grant>| matches!(&grant.principal.identity, Identity::User(name) if name == user);
        let cut = |grant: &Arc<Grant>| of_user(grant) && self.grants.cut(grant, refusal.clone());
        self.grants.list().iter().filter(|grant| cut(grant)).count()
    }

    /// Whether rights and limits let a stream come to be; `find` then looks for what it needs at the far side. What is
    /// returned with it has entered the table of open streams.
    pub fn admit<T>(
        &self,
        request: &DialRequest,
        find: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<(T, Lease), Refusal> {
        let before = self.rights.changes();
        // Rights come before the directory, so that names cannot be tried out without any.
        self.may(request)?;
        let room = self.room(request)?;
        let found = find()?;
        let lease = self.grants.enter(request, room);
        if self.rights.changes() != before {
            // Whoever changed them may have gone through the table before this stream was in it.
            self.may(request)?;
        }
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
        match self.judge(&request.principal, &request.destination).0 {
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

    /// Where a destination is, if it takes one more stream.
    fn find(&self, destination: &Destination) -> Result<Place, Refusal> {
        if destination.node.is_reserved() {
            self.cloud.find(&destination.target).map(Place::Cloud)
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

    async fn open(
        &self,
        request: &DialRequest,
        place: &Place,
        lease: Lease,
    ) -> Result<Granted<Far>, Refusal> {
        let open = Open {
            target: request.destination.target.clone(),
            class: request.class,
            trace: request.trace,
            principal: request.principal.to_string(),
            node: None,
        };
        let opening = async {
            match place {
                Place::Node(tunnel) => tunnel.open(&open, DIAL_DEADLINE).await.map(Far::Node),
                Place::Cloud(target) => self.cloud.connect(target).await.map(Far::Cloud),
            }
        };
        tokio::select! {
            opened = opening => Ok(Granted::new(opened?, lease)),
            why = lease.wait_cut() => Err(why),
        }
    }
}

impl Dial for Gateway {
    type Stream = Granted<Far>;

    async fn authenticate(&self, credential: Option<Credential>, client: SocketAddr) -> Result<Principal, Refusal> {
        match credential {
            Some(credential) => Ok(self.users.authenticate(&credential)?.at(client.ip())),
            None if self.rights.policy().names_address(client.ip()) => Ok(Principal::address(client.ip())),
            None => Err(Refusal::new(
                Reason::Unauthenticated,
                "this gateway wants a credential: Basic NAME:SECRET or Bearer SECRET",
            )),
        }
    }

    fn zone(&self) -> &Zone {
        &self.zone
    }

    fn route(&self, ip: IpAddr) -> Result<NodeName, Refusal> {
        Err(Refusal::new(Reason::Denied, RouteError::NoRoute(ip).to_string()))
    }

    async fn dial(&self, request: DialRequest) -> Result<Self::Stream, Refusal> {
        let dialled = match self.admit(&request, || self.find(&request.destination)) {
            Ok((place, lease)) => self.open(&request, &place, lease).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &dialled {
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
        dialled
    }
}
