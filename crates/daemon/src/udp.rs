//! Sockets of UDP: for packets of clients, and for packets of one peer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

/// What one burst of a fast sender needs before its reader runs again, in bytes. The kernel may grant less.
const BUFFER: usize = 4 * 1024 * 1024;

/// The longest packet of UDP, in bytes, and more.
pub const MAX_PACKET: usize = 0xffff;

/// After how much silence in both directions a flow is over, and a client forgotten: everybody on its way keeps to the same.
/// Resolvers and NATs wait no longer (RFC 4787 section 4.3 allows two minutes at least for what has no well-known port).
pub const IDLE: Duration = Duration::from_secs(60);

/// Likewise while the target has said nothing: so whoever invents clients holds their places for a shorter time.
pub const IDLE_UNANSWERED: Duration = Duration::from_secs(30);

/// A socket for packets of clients. An IPv6 wildcard takes IPv4 too. Needs a tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Smaller buffers work too, only not as fast.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket for packets to and from one address, which hears nobody else.
pub async fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// The error that a connected socket has heard of by [`Interest::ERROR`] and not by a packet, if there is one.
pub fn heard_error(socket: &UdpSocket) -> Option<io::Error> {
    let heard = socket.try_io(Interest::ERROR, || match socket.take_error()? {
        Some(error) => Ok(error),
        None => Err(io::ErrorKind::WouldBlock.into()),
    });
    heard.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connected_socket_hears_its_peer_alone_and_that_nobody_is_there() {
        let peer = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let socket = connect(peer.local_addr().unwrap()).await.unwrap();
        let local = socket.local_addr().unwrap();
        let stranger = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        stranger.send_to(b"poison", local).await.unwrap();
        peer.send_to(b"answer", local).await.unwrap();
        let mut heard = [0; 16];
        let length = socket.recv(&mut heard).await.unwrap();
        assert_eq!(&heard[..length], b"answer");

        assert!(heard_error(&socket).is_none());
        drop(peer);
        socket.send(b"question").await.unwrap();
        socket.ready(Interest::ERROR).await.unwrap();
        let error = heard_error(&socket).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
