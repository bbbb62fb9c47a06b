//! Accepting callers, within limits, until told to stop.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::TcpListener;
use tunnel_daemon::{
    accept::{Accepted, Acceptor},
    shutdown::Tasks,
};

use super::{Dial, Door, IngressMetrics, client::Client, session::Session};

/// How many connections an [`Acceptor`] for this port should take at once; callers beyond it wait in the backlog.
pub const CONNECTIONS: usize = 16_384;

/// What each caller is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once from one address; beyond it they are reset.
    pub per_address: usize,
    /// Connections at once from one network, a /24 of IPv4 or a /64 of IPv6; beyond it they are reset.
    pub per_network: usize,
    /// From the connection to its first complete request, and from the first byte of a later one to its end.
    pub handshake: Duration,
    /// Between two requests.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_address: 1_024,
            per_network: 4_096,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// Accepts callers, on a listener made by [`listen`](super::listen), until `tasks` is stopping, and serves each in a task of its own.
///
/// Once it is stopping, connections between two requests end, and those in the middle of one end after it. Those that
/// are still open when drain is over are reset, and so are those of a door that is closed meanwhile.
///
/// # Errors
/// Where the listener will never accept again.
pub async fn serve<D: Dial>(
    mut acceptor: Acceptor<TcpListener>,
    door: Door,
    behind: Arc<D>,
    limits: Limits,
    metrics: IngressMetrics,
    tasks: Tasks,
) -> io::Result<()> {
    let stopping = tasks.stopping();
    let closed = door.closed();
    let callers = Callers::default();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted?,
            () = stopping.cancelled() => return Ok(()),
            () = closed.cancelled() => return Ok(()),
        };
        let Accepted { io, peer, permit } = accepted;
        // From here on, dropping the connection resets it.
        let client = Client::new(io);
        let Some(place) = callers.admit(peer.ip().to_canonical(), &limits) else {
            metrics.turned_away();
            continue;
        };
        let session = Session {
            behind: Arc::clone(&behind),
            door: door.clone(),
            limits,
            metrics: metrics.clone(),
            stopping: stopping.clone(),
            tasks: tasks.clone(),
            peer,
            certificate: None,
        };
        let closed = closed.clone();
        tasks.spawn_cut(async move {
            let _held = (permit, place);
            // It is large, and whoever waits for two things at once holds room for it twice and moves it.
            closed.run_until_cancelled_owned(Box::pin(session.run(client))).await;
        });
    }
}

/// How many connections each address and each network has.
#[derive(Debug, Clone, Default)]
struct Callers(Arc<Mutex<HashMap<Origin, usize>>>);

/// Whose connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    Address(IpAddr),
    /// Its first address.
    Network(IpAddr),
}

/// The place of one connection among those of its address and its network.
struct Place {
    callers: Callers,
    origins: [Origin; 2],
}

impl Callers {
    fn admit(&self, address: IpAddr, limits: &Limits) -> Option<Place> {
        let origins = [Origin::Address(address), Origin::network_of(address)];
        let mut counts = self.lock();
        let has_room =
            |(origin, limit): (&Origin, usize)| counts.get(origin).is_none_or(|&count| count < limit) && limit > 0;
        if !origins
            .iter()
            .zip([limits.per_address, limits.per_network])
            .all(has_room)
        {
            return None;
        }
        for origin in origins {
            *counts.entry(origin).or_default() += 1;
        }
        Some(Place {
            callers: self.clone(),
            origins,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        // A place is given and taken back within one lock; a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// The network that is commonly one customer's.
    fn network_of(address: IpAddr) -> Self {
        Self::Network(match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.callers.lock();
        for origin in self.origins {
            if let Some(count) = counts.get_mut(&origin) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&origin);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_is_forgotten_with_the_last() {
        let limits = Limits {
            per_address: 2,
            ..Limits::default()
        };
        let callers = Callers::default();
        let admit = |address: &str| callers.admit(address.parse().unwrap(), &limits);
        let first = admit("192.0.2.1").unwrap();
        let second = admit("192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let other = admit("192.0.2.2").unwrap();
        drop(first);
        let third = admit("192.0.2.1").unwrap();
        drop((second, third, other));
        assert!(callers.lock().is_empty());
    }

    /// T5
    #[test]
    fn a_network_has_so_many_places_for_all_its_addresses() {
        let limits = Limits {
            per_network: 2,
            ..Limits::default()
        };
        let callers = Callers::default();
        let admit = |address: &str| callers.admit(address.parse().unwrap(), &limits);
        for (one, another, third, elsewhere) in [
            ("192.0.2.1", "192.0.2.254", "192.0.2.7", "192.0.3.1"),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8::2", "2001:db8:0:1::1"),
        ] {
            let held = (admit(one).unwrap(), admit(another).unwrap());
            assert!(admit(third).is_none(), "{third}");
            assert!(admit(elsewhere).is_some(), "{elsewhere}");
            drop(held);
            assert!(admit(third).is_some(), "{third}");
        }
        assert!(callers.lock().is_empty());
    }
}
