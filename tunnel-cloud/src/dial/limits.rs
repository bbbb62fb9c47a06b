//! What one principal and one node may use: streams at once, opens in a second, bytes in a second.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::{NonZeroU32, NonZeroU64},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tunnel_model::{Identity, NodeName, Principal, Reason, Refusal, UserName};

use super::bucket::{Bucket, PerSecond};
use crate::config::RawLimits;

/// How many principals, and how many nodes, are kept account of at once. Idle ones are forgotten.
const MOST_ACCOUNTS: usize = 65_536;
/// How many there may be before idle ones are looked for.
const FEW_ACCOUNTS: usize = 1024;
/// Between two looks for idle accounts when there is room for no more.
const LOOK: Duration = Duration::from_secs(1);
/// The longest time that a debt of bytes may stop a stream, so that a faster rate is soon felt.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Who is kept account of. Whoever has one IPv6 address has a /64 of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    User(UserName),
    Node(NodeName),
    Address(IpAddr),
    Nobody,
}

impl Holder {
    fn of(principal: &Principal) -> Self {
        match (&principal.identity, principal.ip()) {
            (Identity::User(name), _) => Self::User(name.clone()),
            (Identity::Node { name, .. }, _) => Self::Node(name.clone()),
            (Identity::Address, Some(IpAddr::V6(ip))) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::Address(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            (Identity::Address, Some(ip)) => Self::Address(ip),
            (Identity::Address, None) => Self::Nobody,
        }
    }
}

/// Keeps principals and nodes within the limits of the configuration.
#[derive(Debug)]
pub(super) struct Limiter {
    started: Instant,
    limits: Arc<Limits>,
    principals: Accounts<Holder>,
    nodes: Accounts<NodeName>,
}

/// The limits in force. They may change while streams run; no rate of bytes is 0.
#[derive(Debug, Default)]
struct Limits {
    streams: AtomicUsize,
    principal_opens: AtomicU64,
    node_opens: AtomicU64,
    principal_bytes: AtomicU64,
    node_bytes: AtomicU64,
}

impl Limits {
    fn set(&self, raw: &RawLimits) {
        let count = |n: NonZeroU32| u64::from(n.get());
        let bytes = |n: Option<NonZeroU64>| n.map_or(0, NonZeroU64::get);
        let streams = usize::try_from(raw.streams_per_principal.get()).unwrap_or(usize::MAX);
        self.streams.store(streams, Ordering::Relaxed);
        for (limit, value) in [
            (&self.principal_opens, count(raw.principal_opens_per_second)),
            (&self.node_opens, count(raw.node_opens_per_second)),
            (&self.principal_bytes, bytes(raw.principal_bytes_per_second)),
            (&self.node_bytes, bytes(raw.node_bytes_per_second)),
        ] {
            limit.store(value, Ordering::Relaxed);
        }
    }
}

fn rate(limit: &AtomicU64) -> Option<PerSecond> {
    PerSecond::new(limit.load(Ordering::Relaxed))
}

impl Limiter {
    pub(super) fn new(raw: &RawLimits) -> Self {
        let limits = Limits::default();
        limits.set(raw);
        Self {
            started: Instant::now(),
            limits: Arc::new(limits),
            principals: Accounts::default(),
            nodes: Accounts::default(),
        }
    }

    /// Puts other limits in force, for streams that are open too.
    pub(super) fn set(&self, raw: &RawLimits) {
        self.limits.set(raw);
    }

    /// Makes room for one more stream of a principal to a node.
    pub(super) fn admit(&self, principal: &Principal, node: &NodeName) -> Result<Room, Refusal> {
        let now = since(self.started);
        let full = || Refusal::new(Reason::Overloaded, "too many users at once; try again later");
        let of_principal = self.principals.get(Holder::of(principal), now).ok_or_else(full)?;
        let of_node = self.nodes.get(node.clone(), now).ok_or_else(full)?;
        let too_often = |who: String, rate: PerSecond, key: &str| {
            let message = format!("{who} {rate} streams a second, and more were tried; try again later (limits.{key})");
            Refusal::new(Reason::RateLimited, message)
        };
        if let Some(rate) = rate(&self.limits.principal_opens)
            && of_principal.opens.take(1, rate, now).is_err()
        {
            let who = format!("{principal} may open");
            return Err(too_often(who, rate, "principal_opens_per_second"));
        }
        if let Some(rate) = rate(&self.limits.node_opens)
            && of_node.opens.take(1, rate, now).is_err()
        {
            let who = format!("all together may open to {node}");
            return Err(too_often(who, rate, "node_opens_per_second"));
        }
        let most = self.limits.streams.load(Ordering::Relaxed);
        if of_principal.streams.fetch_add(1, Ordering::Relaxed) >= most {
            of_principal.streams.fetch_sub(1, Ordering::Relaxed);
            let message =
                format!("{principal} has {most} streams open, as many as it may (limits.streams_per_principal)");
            return Err(Refusal::new(Reason::RateLimited, message));
        }
        of_node.streams.fetch_add(1, Ordering::Relaxed);
        Ok(Room {
            started: self.started,
            limits: Arc::clone(&self.limits),
            principal: of_principal,
            node: of_node,
        })
    }
}

/// The room of one stream, given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    started: Instant,
    limits: Arc<Limits>,
    principal: Arc<Account>,
    node: Arc<Account>,
}

impl Room {
    /// How many bytes may pass at once, so that streams take turns; nothing where bytes are not limited.
    pub(super) fn portion(&self) -> Option<usize> {
        let rates = [&self.limits.principal_bytes, &self.limits.node_bytes].map(rate);
        let least = rates.into_iter().flatten().min()?;
        // A tenth of a second's worth.
        Some(
            usize::try_from(least.get() / 10)
                .unwrap_or(usize::MAX)
                .clamp(1024, 256 * 1024),
        )
    }

    /// Notes that bytes have passed, and says how long the next ones have to wait for it.
    pub(super) fn passed(&self, bytes: usize) -> Option<Duration> {
        let wait = [
            (&self.principal, &self.limits.principal_bytes),
            (&self.node, &self.limits.node_bytes),
        ]
        .into_iter()
        .filter_map(|(account, limit)| {
            let rate = rate(limit)?;
            Some(account.bytes.borrow(bytes as u64, rate, since(self.started)))
        })
        .max()?;
        (!wait.is_zero()).then_some(wait.min(LONGEST_WAIT))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for account in [&self.principal, &self.node] {
            account.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What one of them uses.
#[derive(Debug, Default)]
struct Account {
    streams: AtomicUsize,
    opens: Bucket,
    bytes: Bucket,
}

impl Account {
    fn is_idle(&self, now: u64) -> bool {
        self.streams.load(Ordering::Relaxed) == 0 && self.opens.is_full(now) && self.bytes.is_full(now)
    }
}

/// The accounts by their holder; what a holder who is not in it has used has been made good.
#[derive(Debug)]
struct Accounts<K> {
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    by_holder: HashMap<K, Arc<Account>>,
    /// From how many on idle ones are looked for, and from when on if there is no room.
    look_at: usize,
    look_again: u64,
}

impl<K> Default for Accounts<K> {
    fn default() -> Self {
        Self {
            held: Mutex::new(Held {
                by_holder: HashMap::new(),
                look_at: FEW_ACCOUNTS,
                look_again: 0,
            }),
        }
    }
}

impl<K: Eq + Hash> Accounts<K> {
    /// The account of this holder; nothing if there are too many.
    fn get(&self, holder: K, now: u64) -> Option<Arc<Account>> {
        let mut held = self.lock();
        if let Some(account) = held.by_holder.get(&holder) {
            return Some(Arc::clone(account));
        }
        let many = held.by_holder.len();
        if many >= held.look_at && (many < MOST_ACCOUNTS || now >= held.look_again) {
            held.forget_idle(now);
        }
        if held.by_holder.len() >= MOST_ACCOUNTS {
            return None;
        }
        let account = Arc::<Account>::default();
        held.by_holder.insert(holder, Arc::clone(&account));
        Some(account)
    }

    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Held<K> {
    fn forget_idle(&mut self, now: u64) {
        // Whoever has a clone of it is about to use it.
        self.by_holder
            .retain(|_, account| Arc::strong_count(account) > 1 || !account.is_idle(now));
        self.look_at = (2 * self.by_holder.len()).clamp(FEW_ACCOUNTS, MOST_ACCOUNTS);
        self.look_again = now.saturating_add(u64::try_from(LOOK.as_nanos()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_beyond_a_second_are_refused_until_time_has_passed() {
        let limiter = limiter("principal_opens_per_second = 2");
        for _ in 0..2 {
            assert!(limiter.admit(&user("alice"), &node("edge1")).is_ok());
        }
        let refusal = limiter.admit(&user("alice"), &node("edge2")).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "user:alice may open 2 streams a second, and more were tried; try again later (limits.principal_opens_per_second) [rate-limited]"
        );
        assert!(limiter.admit(&user("bob"), &node("edge1")).is_ok());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(limiter.admit(&user("alice"), &node("edge1")).is_ok());
        assert!(limiter.admit(&user("alice"), &node("edge1")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_opened_to_so_often_whoever_opens() {
        let limiter = limiter("node_opens_per_second = 1");
        assert!(limiter.admit(&user("alice"), &node("edge1")).is_ok());
        let refusal = limiter.admit(&user("bob"), &node("edge1")).unwrap_err();
        assert_eq!(refusal.reason, Reason::RateLimited);
        assert!(limiter.admit(&user("bob"), &node("edge2")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_makes_room_for_the_next() {
        let limiter = limiter("streams_per_principal = 1");
        let first = limiter.admit(&user("alice"), &node("edge1")).unwrap();
        assert!(limiter.admit(&user("alice"), &node("edge2")).is_err());
        drop(first);
        assert!(limiter.admit(&user("alice"), &node("edge2")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_all_streams_of_a_principal_count_together() {
        let limiter = limiter("principal_bytes_per_second = 1000");
        let streams = ["edge1", "edge2"].map(|name| limiter.admit(&user("alice"), &node(name)).unwrap());
        assert_eq!(streams[0].passed(1000), None);
        assert_eq!(streams[1].passed(500), Some(Duration::from_millis(500)));
        let bob = limiter.admit(&user("bob"), &node("edge1")).unwrap();
        assert_eq!(bob.passed(1000), None);
        limiter.set(&RawLimits::default());
        assert_eq!((streams[0].passed(1 << 30), streams[0].portion()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_network_card_share_their_limits() {
        let limiter = limiter("principal_opens_per_second = 1");
        let from = |ip: &str| limiter.admit(&Principal::address(ip.parse().unwrap()), &node("edge1"));
        assert!(from("2001:db8::1").is_ok());
        assert!(from("2001:db8::2:3").is_err());
        assert!(from("2001:db8:0:1::1").is_ok());
        assert!(from("10.0.0.1").is_ok() && from("10.0.0.2").is_ok());
    }

    /// T5
    #[tokio::test(start_paused = true)]
    async fn whoever_is_idle_is_forgotten_and_never_are_there_too_many() {
        let accounts = Accounts::default();
        let held: Vec<_> = (0..10).map(|n| accounts.get(n, 0).unwrap()).collect();
        held[0].streams.fetch_add(1, Ordering::Relaxed);
        drop(held);
        for n in 10..200_000u32 {
            assert!(accounts.get(n, u64::from(n)).is_some());
        }
        let known = accounts.lock();
        assert!(known.by_holder.len() <= FEW_ACCOUNTS + 1, "{}", known.by_holder.len());
        assert!(known.by_holder.contains_key(&0) && !known.by_holder.contains_key(&1));
        drop(known);

        let busy = Accounts::default();
        let all: Vec<_> = (0..MOST_ACCOUNTS).map(|n| busy.get(n, 0).unwrap()).collect();
        assert!(busy.get(MOST_ACCOUNTS, 0).is_none());
        assert!(busy.get(7, 0).is_some());
        drop(all);
        assert!(busy.get(MOST_ACCOUNTS, 0).is_none(), "it was looked just now");
        assert!(busy.get(MOST_ACCOUNTS, 2_000_000_000).is_some());
    }

    fn limiter(limits: &str) -> Limiter {
        Limiter::new(&toml::from_str(limits).unwrap())
    }

    fn user(name: &str) -> Principal {
        Principal::user(name.parse().unwrap(), Vec::new())
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }
}
