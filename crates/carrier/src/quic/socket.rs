//! UDP sockets as QUIC wants them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use quinn::EndpointConfig;
use socket2::{Domain, Protocol, Socket, Type};

use super::limits::MTU_CEILING;

/// What one burst of a fast sender needs before its reader runs again. The kernel may grant less.
const BUFFER: usize = 4 * 1024 * 1024;

/// A bound socket. An IPv6 wildcard takes IPv4 too.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Smaller buffers work too, only not as fast.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What both ends of a connection are told: datagrams of any size that the path carries are welcome. quinn's own limit
/// is that of an Ethernet frame, which costs a third of the throughput wherever frames may be longer.
pub(super) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // The ceiling lies within what QUIC allows.
    let _ = config.max_udp_payload_size(MTU_CEILING);
    config
}

/// A socket on any address of both families, or of IPv4 alone where the kernel has no IPv6. Port 0 takes any.
pub(super) fn bind_any(port: u16) -> io::Result<UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into()))
}
