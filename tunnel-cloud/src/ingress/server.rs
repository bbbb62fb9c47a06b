//! Accepting callers, within limits, until told to stop.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::TcpListener;
use tunnel_daemon::{
    accept::{Accepted, Acceptor},
    shutdown::Tasks,
};

use super::{Dial, IngressMetrics, client::Client, session::Session};

/// How many connections an [`Acceptor`] for this port should take at once; callers beyond it wait in the backlog.
pub const CONNECTIONS: usize = 16_384;

/// What each caller is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once from one address; beyond it they are reset.
    pub per_address: usize,
    /// From the connection to its first complete request, and from the first byte of a later one to its end.
    pub handshake: Duration,
    /// Between two requests.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_address: 1_024,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// Accepts callers, on a listener made by [`listen`](super::listen), until `tasks` is stopping, and serves each in a task of its own.
///
/// Once it is stopping, connections between two requests end, and those in the middle of one end after it. Those that
/// are still open when drain is over are reset.
///
/// # Errors
/// Where the listener will never accept again.
pub async fn serve<D: Dial>(
    mut acceptor: Acceptor<TcpListener>,
    gateway: Arc<D>,
    limits: Limits,
    metrics: IngressMetrics,
    tasks: Tasks,
) -> io::Result<()> {
    let stopping = tasks.stopping();
    let callers = Callers::default();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted?,
            () = stopping.cancelled() => return Ok(()),
        };
        let Accepted { io, peer, permit } = accepted;
        // From here on, dropping the connection resets it.
        let client = Client::new(io);
        let Some(place) = callers.admit(peer.ip().to_canonical(), limits.per_address) else {
            metrics.turned_away();
            continue;
        };
        let session = Session {
            gateway: Arc::clone(&gateway),
            limits,
            metrics: metrics.clone(),
            stopping: stopping.clone(),
            tasks: tasks.clone(),
            peer,
            certificate: None,
        };
        tasks.spawn_cut(async move {
            let _held = (permit, place);
            session.run(client).await;
        });
    }
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Callers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// The place of one connection among those of its address.
struct Place {
    callers: Callers,
    address: IpAddr,
}

impl Callers {
    fn admit(&self, address: IpAddr, limit: usize) -> Option<Place> {
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        (*count < limit).then(|| {
            *count += 1;
            Place {
                callers: self.clone(),
                address,
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Each change is one step; a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.callers.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_is_forgotten_with_the_last() {
        let callers = Callers::default();
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = callers.admit(here, 2).unwrap();
        let second = callers.admit(here, 2).unwrap();
        assert!(callers.admit(here, 2).is_none());
        let other = callers.admit(there, 2).unwrap();
        drop(first);
        let third = callers.admit(here, 2).unwrap();
        drop((second, third, other));
        assert!(callers.lock().is_empty());
    }
}
