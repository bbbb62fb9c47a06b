//! TCP sockets as a carrier wants them.

use std::{io, net::SocketAddr, time::Duration};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Data that the kernel holds and has not sent, in bytes; above it the socket is full (tcp(7), TCP_NOTSENT_LOWAT). What
/// waits in the kernel can no longer be overtaken, and keeps the link busy while this process is woken.
const UNSENT: u32 = 16 * 1024;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Sets what every connection needs. The session pings by itself, so that TCP need not.
pub(super) fn prepare(tcp: &TcpStream, idle_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // Sent data that nobody acknowledges ends the connection no later than silence does.
    socket.set_tcp_user_timeout(Some(idle_timeout))
}

/// A listener. An IPv6 wildcard takes IPv4 too.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        let socket = TcpSocket::new_v6()?;
        SockRef::from(&socket).set_only_v6(!address.ip().is_unspecified())?;
        socket
    } else {
        TcpSocket::new_v4()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether accepting failed for something that is wrong with the one connection (accept(2)); else it is a shortage, and
/// trying again at once would fail again.
pub(super) fn is_about_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::PermissionDenied
            | Kind::TimedOut
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
    )
}
