//! The streams that were granted and are open: who has them, what has passed, and the way to cut them.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::task::AtomicWaker;
use prometheus_client::metrics::gauge::Gauge;
use tracing::info;
use tunnel_identity::UnixTime;
use tunnel_ingress::{DialRequest, Way};
use tunnel_model::{Class, Destination, Principal, Refusal, TraceId};

use super::{audited::Audited, limits::Room, metrics::DialMetrics};

/// The table of granted streams.
#[derive(Debug)]
pub struct Grants {
    open: Mutex<Open>,
    metrics: DialMetrics,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_id: BTreeMap<u64, Arc<Grant>>,
}

/// One granted stream.
#[derive(Debug)]
pub struct Grant {
    /// Its number, from 1; none is given twice in one run of the gateway.
    pub id: u64,
    /// Who has it, as it was when it was granted.
    pub principal: Principal,
    /// Where it leads.
    pub destination: Destination,
    /// How urgent it is.
    pub class: Class,
    /// How it was asked for.
    pub way: Way,
    /// The caller's trace.
    pub trace: TraceId,
    /// When it was granted.
    pub since: UnixTime,
    /// Bytes from the caller to the target.
    up: AtomicU64,
    /// Bytes from the target to the caller.
    down: AtomicU64,
    cut: OnceLock<Refusal>,
    /// Whoever waits to read, to write, or for the cut alone.
    waiting: [AtomicWaker; 3],
}

/// What a waker waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    Read = 0,
    Write = 1,
    Cut = 2,
}

impl Grant {
    /// Bytes from the caller to the target so far.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes from the target to the caller so far.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// Why it was cut, if it was.
    pub fn cut(&self) -> Option<&Refusal> {
        self.cut.get()
    }

    /// Why it was cut, or to be woken when it is.
    pub(super) fn poll_cut(&self, wait: Wait, cx: &Context<'_>) -> Poll<&Refusal> {
        self.waiting[wait as usize].register(cx.waker());
        // Registered first, or a cut in between would wake nobody.
        self.cut.get().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Grants {
    /// Nothing is open.
    pub fn new(metrics: DialMetrics) -> Self {
        Self {
            open: Mutex::default(),
            metrics,
        }
    }

    /// Every stream, oldest first.
    pub fn list(&self) -> Vec<Arc<Grant>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// Has a stream end at once, for this reason; says whether it was not cut before.
    pub fn cut(&self, grant: &Grant, why: Refusal) -> bool {
        let reason = why.reason;
        if grant.cut.set(why).is_err() {
            return false;
        }
        grant.waiting.iter().for_each(AtomicWaker::wake);
        self.metrics.cut(reason);
        info!(
            stream = grant.id,
            principal = %grant.principal,
            to = %grant.destination,
            trace = %grant.trace,
            %reason,
            "stream cut"
        );
        true
    }

    /// Enters a stream that is about to be opened. It leaves the table when what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, request: &DialRequest, room: Room) -> Lease {
        let mut open = self.lock();
        open.last += 1;
        let grant = Arc::new(Grant {
            id: open.last,
            principal: request.principal.clone(),
            destination: request.destination.clone(),
            class: request.class,
            way: request.way,
            trace: request.trace,
            since: SystemTime::now().into(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            cut: OnceLock::new(),
            waiting: Default::default(),
        });
        open.by_id.insert(grant.id, Arc::clone(&grant));
        drop(open);
        let gauge = self.metrics.open(request.class, request.way);
        gauge.inc();
        Lease {
            grants: Arc::clone(self),
            grant,
            room,
            gauge,
            audited: Audited::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place in the table and within the limits, for as long as the stream lives.
#[derive(Debug)]
pub struct Lease {
    grants: Arc<Grants>,
    grant: Arc<Grant>,
    room: Room,
    gauge: Gauge,
    pub(super) audited: Audited,
}

impl Lease {
    /// The stream as it stands in the table.
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Resolves when the stream is cut, which one task may wait for; holds on to nothing of the lease.
    pub fn wait_cut(&self) -> impl Future<Output = Refusal> + Send + use<> {
        let grant = Arc::clone(&self.grant);
        poll_fn(move |cx| grant.poll_cut(Wait::Cut, cx).map(Clone::clone))
    }

    /// Notes bytes from the caller to the target, and says how long the next ones have to wait.
    pub fn sent(&self, bytes: usize) -> Option<Duration> {
        self.grant.up.fetch_add(bytes as u64, Ordering::Relaxed);
        self.room.passed(bytes)
    }

    /// Notes bytes from the target to the caller, and says how long the next ones have to wait.
    pub fn received(&self, bytes: usize) -> Option<Duration> {
        self.grant.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.room.passed(bytes)
    }

    /// How many bytes may pass at once; nothing where bytes are not limited.
    pub(super) fn portion(&self) -> Option<usize> {
        self.room.portion()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.audited.end(&self.grant);
        self.grants.lock().by_id.remove(&self.grant.id);
        self.gauge.dec();
    }
}
