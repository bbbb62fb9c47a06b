//! Notices when this machine's way to the gateway changes: another network, another address.
//!
//! The kernel says that something about addresses, routes or links changed (rtnetlink(7)); what exactly does not matter.
//! Asked which local address packets to the gateway now leave from, it gives the one answer that does. Both cost nothing
//! while nothing happens. Where the kernel lets nobody listen, as in some sandboxes, a change is found by the
//! keepalive, only later.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink::SocketAddrNetlink};
use tokio::time::sleep;
use tracing::warn;

/// Multicast groups of rtnetlink: links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// A change of network is many small changes; after the first, the others have this long to follow.
const SETTLE: Duration = Duration::from_millis(250);

/// Watches the way out.
#[derive(Debug)]
pub(super) struct Network {
    /// A netlink socket. It is a datagram socket like any other to those who only receive from it.
    events: Option<tokio::net::UdpSocket>,
    /// From where packets left when it was last asked.
    source: Option<IpAddr>,
}

impl Network {
    /// Starts to watch. Needs a tokio runtime.
    pub(super) fn watch() -> Self {
        let events = subscribe().inspect_err(
            |error| warn!(%error, "changes of the local network are not seen; a lost path is found by its silence"),
        );
        Self {
            events: events.ok(),
            source: None,
        }
    }

    /// Notes from where packets to the gateway leave now.
    pub(super) fn settle_on(&mut self, gateway: SocketAddr) {
        self.source = source_towards(gateway);
    }

    /// From where packets to the gateway left when that was last asked.
    pub(super) fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Returns when packets to the gateway leave from another address than before, or can leave again. Cancel safe.
    pub(super) async fn moved(&mut self, gateway: SocketAddr) {
        loop {
            self.event().await;
            let source = source_towards(gateway);
            let moved = source != self.source;
            self.source = source;
            if moved && source.is_some() {
                return;
            }
        }
    }

    async fn event(&self) {
        let Some(events) = &self.events else {
            return std::future::pending().await;
        };
        while !drain(events) {
            if events.readable().await.is_err() {
                return std::future::pending().await;
            }
        }
        sleep(SETTLE).await;
        // Whatever came meanwhile belongs to this change.
        drain(events);
    }
}

fn subscribe() -> io::Result<tokio::net::UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Reads and forgets all that waits; says whether there was anything.
fn drain(events: &tokio::net::UdpSocket) -> bool {
    let mut any = false;
    let mut message = [0; 8192];
    loop {
        match events.try_recv(&mut message) {
            Ok(_) => any = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
            // The kernel had to drop some for want of room: that too is news.
            Err(_) => return true,
        }
    }
}

/// From which local address packets to there leave. Connecting a UDP socket asks the routing table and sends nothing.
pub(super) fn source_towards(there: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match there.ip().to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((there.ip().to_canonical(), there.port())).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_loopback_leave_from_loopback() {
        let there = "127.0.0.1:9".parse().unwrap();
        assert_eq!(source_towards(there), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(
            source_towards("[::ffff:127.0.0.1]:9".parse().unwrap()),
            Some(Ipv4Addr::LOCALHOST.into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_moves_while_the_network_is_left_alone() {
        let mut network = Network::watch();
        let gateway = "127.0.0.1:9".parse().unwrap();
        network.settle_on(gateway);
        let moved = tokio::time::timeout(Duration::from_secs(60), network.moved(gateway)).await;
        assert!(moved.is_err());
    }
}
