//! The clients of a UDP port, which are as many as somebody invents: bounded, for each address and in all.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
};

/// How many clients a port has at once; packets of more are dropped until others are idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// In all.
    pub total: usize,
    /// Of one address.
    pub per_address: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            total: 4_096,
            per_address: 256,
        }
    }
}

/// What a port knows of each client.
#[derive(Debug)]
pub(super) struct Clients<T> {
    limits: ClientLimits,
    all: HashMap<SocketAddr, T>,
    per_address: HashMap<IpAddr, usize>,
}

impl<T> Clients<T> {
    pub(super) fn new(limits: ClientLimits) -> Self {
        Self {
            limits,
            all: HashMap::new(),
            per_address: HashMap::new(),
        }
    }

    pub(super) fn get(&self, client: SocketAddr) -> Option<&T> {
        self.all.get(&client)
    }

    /// Puts a client in, or another value in its place; says whether there was room.
    pub(super) fn insert(&mut self, client: SocketAddr, value: T) -> bool {
        let full = self.all.len() >= self.limits.total;
        match self.all.entry(client) {
            Entry::Occupied(mut known) => {
                known.insert(value);
            }
            Entry::Vacant(place) => {
                let known = self.per_address.get(&client.ip()).copied().unwrap_or_default();
                if full || known >= self.limits.per_address {
                    return false;
                }
                self.per_address.insert(client.ip(), known + 1);
                place.insert(value);
            }
        }
        true
    }

    /// Forgets the clients that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let Self { all, per_address, .. } = self;
        all.retain(|client, value| {
            let kept = keep(value);
            if !kept && let Some(known) = per_address.get_mut(&client.ip()) {
                *known -= 1;
                if *known == 0 {
                    per_address.remove(&client.ip());
                }
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B5: source addresses are for everybody to invent.
    #[test]
    fn b5_clients_without_end_take_so_many_places_and_no_more() {
        let mut clients = Clients::new(ClientLimits::default());
        let taken = (0..100_000u32).filter(|n| clients.insert(client(*n, 53), ())).count();
        assert_eq!(
            (taken, clients.all.len(), clients.per_address.len()),
            (4_096, 4_096, 4_096)
        );
        assert!(
            clients.get(client(7, 53)).is_some() && clients.insert(client(7, 53), ()),
            "who is in stays in"
        );
        clients.retain(|()| false);
        assert!(clients.all.is_empty() && clients.per_address.is_empty());
    }

    #[test]
    fn one_address_has_so_many_clients_and_leaves_room_for_others() {
        let mut clients = Clients::new(ClientLimits::default());
        let taken = (1..=1_000)
            .filter(|port| clients.insert(client(1, *port), *port))
            .count();
        assert_eq!(taken, 256);
        assert!(clients.insert(client(2, 1), 1));
        clients.retain(|port| *port != 7);
        assert!(clients.insert(client(1, 1_000), 1_000), "the place of one that is gone");
        assert!(!clients.insert(client(1, 1_001), 1_001));
    }

    fn client(address: u32, port: u16) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0x0a00_0000 + address), port).into()
    }
}
