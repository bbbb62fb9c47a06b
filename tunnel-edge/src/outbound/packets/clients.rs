//! The clients of a UDP listener, which are as many as somebody invents: bounded, and the one that has been silent for
//! longest gives way.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{Sender, error::TrySendError},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Clients of one listener at once: half of the streams that a gateway lets an edge open, so that others have their turn.
const CLIENTS: usize = 32;
/// How long a client that waits for an answer keeps its place. Resolvers ask again after five seconds (resolv.conf(5)).
const WAITS: Duration = Duration::from_secs(5);

/// When a client last had to do with its flow; shared with the flow's task.
#[derive(Debug)]
pub(super) struct Life {
    last: Mutex<Last>,
    over: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    /// The service had the last word.
    answered: bool,
}

impl Life {
    /// A packet went to the service.
    pub(super) fn asked(&self, now: Instant) {
        self.set(now, false);
    }

    /// A packet came from the service.
    pub(super) fn answered(&self, now: Instant) {
        self.set(now, true);
    }

    /// Resolves when the client has lost its place.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    fn set(&self, at: Instant, answered: bool) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Last { at, answered };
    }

    fn last(&self) -> Last {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Client {
    packets: Sender<Bytes>,
    life: Arc<Life>,
    /// Dropped with the client, this ends its flow.
    _place: DropGuard,
}

/// The clients that have a flow.
pub(super) struct Clients {
    all: HashMap<SocketAddr, Client>,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self { all: HashMap::new() }
    }

    /// Hands a packet to its client's flow, or drops it where too many wait there. Gives it back if there is no flow.
    pub(super) fn hand_over(&mut self, client: SocketAddr, packet: Bytes) -> Option<Bytes> {
        let Entry::Occupied(known) = self.all.entry(client) else {
            return Some(packet);
        };
        match known.get().packets.try_send(packet) {
            Ok(()) | Err(TrySendError::Full(_)) => None,
            Err(TrySendError::Closed(packet)) => {
                known.remove();
                Some(packet)
            }
        }
    }

    /// Gives a new client a place, perhaps another one's. Nothing if there is none.
    pub(super) fn insert(&mut self, client: SocketAddr, packets: Sender<Bytes>, now: Instant) -> Option<Arc<Life>> {
        if self.all.len() >= CLIENTS {
            self.all.remove(&self.idlest(now)?);
        }
        let over = CancellationToken::new();
        let life = Arc::new(Life {
            last: Mutex::new(Last {
                at: now,
                answered: false,
            }),
            over: over.clone(),
        });
        let client_of = Client {
            packets,
            life: Arc::clone(&life),
            _place: over.drop_guard(),
        };
        self.all.insert(client, client_of);
        Some(life)
    }

    /// The client that has been silent for longest, of those that are not waiting for an answer that may still come.
    fn idlest(&self, now: Instant) -> Option<SocketAddr> {
        let lasts = self.all.iter().map(|(client, known)| (client, known.life.last()));
        lasts
            .filter(|(_, last)| last.answered || now.saturating_duration_since(last.at) >= WAITS)
            .min_by_key(|(_, last)| last.at)
            .map(|(client, _)| *client)
    }

    /// Forgets the clients whose flow is over.
    pub(super) fn forget_gone(&mut self) {
        self.all.retain(|_, client| !client.packets.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// B5: source addresses are for everybody to invent.
    #[test]
    fn b5_clients_without_end_take_so_many_places_and_those_who_wait_keep_theirs() {
        let (mut clients, now) = (Clients::new(), Instant::now());
        let kept: Vec<_> = (0..10_000).filter_map(|n| insert(&mut clients, n, now)).collect();
        assert_eq!((kept.len(), clients.all.len()), (CLIENTS, CLIENTS));
        assert!(kept.iter().all(|(life, _)| !life.is_over()));
        let later = now + WAITS;
        assert!(insert(&mut clients, 20_000, later).is_some(), "they waited long enough");
        assert_eq!(kept.iter().filter(|(life, _)| life.is_over()).count(), 1);
    }

    #[test]
    fn the_client_that_was_answered_longest_ago_gives_way() {
        let (mut clients, now) = (Clients::new(), Instant::now());
        let all: Vec<_> = (0..32).map(|n| insert(&mut clients, n, now).unwrap()).collect();
        let after = |millis| now + Duration::from_millis(millis);
        all[7].0.answered(after(20));
        all[9].0.answered(after(10));
        all[9].0.asked(after(30));
        assert!(insert(&mut clients, 100, after(40)).is_some());
        assert!(all[7].0.is_over() && !all[9].0.is_over());
        assert!(insert(&mut clients, 101, after(40)).is_none(), "all others wait");
    }

    #[test]
    fn a_packet_of_a_client_whose_flow_is_over_comes_back() {
        let (mut clients, now) = (Clients::new(), Instant::now());
        let (_life, packets) = insert(&mut clients, 1, now).unwrap();
        let packet = || Bytes::from_static(b"packet");
        assert_eq!(clients.hand_over(client(2), packet()), Some(packet()));
        assert_eq!(clients.hand_over(client(1), packet()), None);
        drop(packets);
        assert_eq!(clients.hand_over(client(1), packet()), Some(packet()));
        assert!(clients.all.is_empty());
    }

    fn insert(clients: &mut Clients, n: u16, now: Instant) -> Option<(Arc<Life>, mpsc::Receiver<Bytes>)> {
        let (sender, packets) = mpsc::channel(1);
        clients.insert(client(n), sender, now).map(|life| (life, packets))
    }

    fn client(n: u16) -> SocketAddr {
        ([127, 0, 0, 1], n + 1).into()
    }
}
