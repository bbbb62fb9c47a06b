//! UDP sockets as QUIC wants them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
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
///
/// With a reset key, an endpoint tells peers of its former life that it does not know them any more (RFC 9000 section
/// 10.3); without, it does so only for connections of this life.
pub(super) fn endpoint_config(reset_key: Option<&[u8; 32]>) -> EndpointConfig {
    let mut config = match reset_key {
        Some(key) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            let mut cid_key = [0; 8];
            cid_key.copy_from_slice(&hmac::sign(&key, b"connection ids").as_ref()[..8]);
            let mut config = EndpointConfig::new(Arc::new(key));
            // An endpoint resets only what bears a connection id of its own making.
            let cid_key = u64::from_be_bytes(cid_key);
            config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)));
            config
        }
        None => EndpointConfig::default(),
    };
    // The ceiling lies within what QUIC allows.
    let _ = config.max_udp_payload_size(MTU_CEILING);
    config
}

/// A socket on any address of both families, or of IPv4 alone where the kernel has no IPv6. Port 0 takes any.
pub(super) fn bind_any(port: u16) -> io::Result<UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into()))
}
