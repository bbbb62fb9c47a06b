//! Handshakes that are not through yet: how many there may be, and how many from one place.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};

/// More handshakes than this wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 4096;
/// From one network, of so many addresses as one site or one provider's street may have.
const MAX_OF_NETWORK: usize = 256;
/// A handshake that is older gives way to a new one of the same network. An honest one over a link with a round trip of
/// 800 ms takes 2 s.
const SLOW: Duration = Duration::from_secs(3);

/// The first 24 bits of an IPv4 address, or the first 64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 3]),
    V6([u8; 8]),
}

impl Network {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[derive(Debug)]
struct Handshake {
    task: AbortHandle,
    since: Instant,
}

/// The handshakes.
#[derive(Debug, Default)]
pub(super) struct Doors {
    tasks: JoinSet<()>,
    networks: HashMap<Network, VecDeque<Handshake>>,
    /// Which network each is of.
    origins: HashMap<Id, Network>,
}

impl Doors {
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < MAX_HANDSHAKES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Runs a handshake, unless there are too many of its network and the oldest of them is not slow yet.
    pub(super) fn admit(&mut self, ip: IpAddr, now: Instant, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let network = Network::of(ip);
        let same = self.networks.entry(network).or_default();
        if same.len() >= MAX_OF_NETWORK {
            match same.front() {
                Some(oldest) if oldest.since + SLOW <= now => {
                    oldest.task.abort();
                    same.pop_front();
                }
                _ => return false,
            }
        }
        let task = self.tasks.spawn(task);
        self.origins.insert(task.id(), network);
        same.push_back(Handshake { task, since: now });
        true
    }

    /// Waits until a handshake has ended, however it did; for ever while there is none.
    pub(super) async fn closed(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return std::future::pending().await,
        };
        let Some(network) = self.origins.remove(&id) else {
            return;
        };
        if let Some(same) = self.networks.get_mut(&network) {
            same.retain(|handshake| handshake.task.id() != id);
            if same.is_empty() {
                self.networks.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn t5_one_network_cannot_take_all_the_room() {
        let mut doors = Doors::default();
        let now = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for i in 0..MAX_OF_NETWORK {
            assert!(doors.admit(
                IpAddr::from([192, 0, 2, u8::try_from(i % 256).unwrap()]),
                now,
                pending()
            ));
        }
        assert!(!doors.admit(ip("192.0.2.7"), now, pending()));
        assert!(!doors.admit(ip("::ffff:192.0.2.7"), now, pending()));
        assert!(doors.admit(ip("192.0.3.7"), now, pending()));
        assert!(doors.admit(ip("2001:db8::1"), now, pending()));
        // Those that are slow give way.
        assert!(doors.admit(ip("192.0.2.7"), now + SLOW, pending()));
        doors.closed().await;
        assert_eq!(doors.tasks.len(), MAX_OF_NETWORK + 2);
    }

    #[tokio::test]
    async fn a_handshake_that_is_through_makes_room() {
        let mut doors = Doors::default();
        assert!(doors.admit([192, 0, 2, 1].into(), Instant::now(), async {}));
        doors.closed().await;
        assert!(doors.is_empty() && doors.networks.is_empty() && doors.origins.is_empty());
    }
}
