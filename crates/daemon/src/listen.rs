//! Listeners of TCP: where one that asks for no credential may listen, and one whose connections never end by accident.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::error::{CliError, Exit};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens for connections that are reset when they are dropped, unless [`end_on_close`] was called: a program that was
/// killed must not make half an answer look whole. They inherit what is set here, so that it costs each of them nothing
/// (tcp(7), socket(7)); it must stand before the first can come.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.set_zero_linger()?;
    // Finds peers that vanished, and with them the streams that nobody reads any more.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Has the connection end like any other when it is dropped: its peer gets all that was written.
pub fn end_on_close(connection: &TcpStream) {
    // One that is broken already cannot be ended.
    let _ = SockRef::from(connection).set_linger(None);
}

/// A listener without credentials was given an address that other machines reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can be reached from other machines, and this listener asks for no credential")]
pub struct NotLocal(
    /// The address that was refused.
    pub SocketAddr,
);

/// Lets an address pass only if it is a loopback address; a Unix socket is always local.
///
/// An IPv4-mapped IPv6 address counts as the IPv4 address it holds. The unspecified address is not local: it means
/// every interface.
pub fn require_local(addr: SocketAddr) -> Result<SocketAddr, NotLocal> {
    if addr.ip().to_canonical().is_loopback() {
        Ok(addr)
    } else {
        Err(NotLocal(addr))
    }
}

impl From<NotLocal> for CliError {
    fn from(error: NotLocal) -> Self {
        Self::new(Exit::Failure, "listen-not-local", error.to_string())
            .with_hint("use a loopback address such as 127.0.0.1, and let a proxy with access control face the network")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_passes_in_every_spelling() {
        for addr in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            let addr = addr.parse().unwrap();
            assert_eq!(require_local(addr), Ok(addr));
        }
    }

    #[test]
    fn an_address_that_others_reach_is_refused_by_name() {
        for addr in [
            "0.0.0.0:9",
            "[::]:9",
            "10.0.0.1:9",
            "[::ffff:10.0.0.1]:9",
            "[fe80::1]:9",
            "192.0.2.1:9",
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            let error = CliError::from(require_local(addr).unwrap_err());
            assert_eq!(error.code(), "listen-not-local");
            assert!(error.message().contains(&addr.to_string()));
        }
    }
}
