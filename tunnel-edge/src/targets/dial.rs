//! Connects to a target that was judged.

use std::{io, net::SocketAddr, time::Duration};

use rustix::io::Errno;
use tokio::{
    net::{TcpStream, UdpSocket, lookup_host},
    time::timeout,
};
use tunnel_daemon::udp;
use tunnel_model::{HostPort, Protocol, Reason, Refusal, Target};

use super::{Goal, Targets, not_allowed};

/// How long a target may take to be resolved and to answer.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A target that was connected to.
#[derive(Debug)]
pub struct Reached<S> {
    /// The socket.
    pub socket: S,
    /// The address that was judged and dialled.
    pub address: SocketAddr,
}

/// Judges a target and connects to it by TCP.
pub async fn dial(targets: &Targets, target: &Target, node: &str) -> Result<Reached<TcpStream>, Refusal> {
    let dialled = async { first_of(&judge(targets, target, Protocol::Tcp, node).await?, node).await };
    let reached = in_time(target, node, dialled).await?;
    // Keystrokes are not to wait for acknowledgements. A socket that refuses this still works.
    let _ = reached.socket.set_nodelay(true);
    Ok(reached)
}

/// Judges a target and gives it a UDP socket of its own, which hears nobody else.
///
/// # Errors
/// As [`dial`]; but whether anything listens there, only its answers can tell.
pub async fn dial_udp(targets: &Targets, target: &Target, node: &str) -> Result<Reached<UdpSocket>, Refusal> {
    let connected = async {
        let mut refusal = no_address(node);
        for address in judge(targets, target, Protocol::Udp, node).await? {
            match udp::connect(address).await {
                Ok(socket) => return Ok(Reached { socket, address }),
                Err(error) => refusal = failed(&error, address, node),
            }
        }
        Err(refusal)
    };
    in_time(target, node, connected).await
}

async fn in_time<T>(
    target: &Target,
    node: &str,
    dialled: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout(DIAL_DEADLINE, dialled).await.unwrap_or_else(|_| {
        let message = format!("{target} did not answer {node} within {} s", DIAL_DEADLINE.as_secs());
        Err(Refusal::new(Reason::TargetTimeout, message))
    })
}

/// The addresses of a target that may be dialled by this protocol.
async fn judge(targets: &Targets, target: &Target, protocol: Protocol, node: &str) -> Result<Vec<SocketAddr>, Refusal> {
    let permit = targets.permit(target, node)?;
    match (permit.protocol, protocol) {
        (Protocol::Udp, Protocol::Tcp) => {
            let message =
                format!("{target} on {node} takes datagrams, and a byte stream was asked for; ask for it by UDP");
            return Err(Refusal::new(Reason::BadRequest, message));
        }
        (Protocol::Tcp, Protocol::Udp) => {
            let message =
                format!("{target} on {node} takes byte streams, and datagrams were asked for; ask for it by TCP");
            return Err(Refusal::new(Reason::BadRequest, message));
        }
        (Protocol::Tcp, Protocol::Tcp) | (Protocol::Udp, Protocol::Udp) => {}
    }
    match permit.goal {
        Goal::Address(address) => Ok(vec![address]),
        Goal::Declared(name) => Ok(resolve(&name, node).await?.collect()),
        Goal::IfAllowed(name) => {
            let allowed = targets.allowed(protocol, resolve(&name, node).await?);
            if allowed.is_empty() {
                return Err(not_allowed(node, protocol, &name.to_string()));
            }
            Ok(allowed)
        }
    }
}

fn no_address(node: &str) -> Refusal {
    Refusal::new(
        Reason::TargetUnreachable,
        format!("{node} finds no address of the target"),
    )
}

async fn resolve(name: &HostPort, node: &str) -> Result<impl Iterator<Item = SocketAddr>, Refusal> {
    lookup_host((name.host(), name.port())).await.map_err(|error| {
        let message = format!("{node} cannot resolve {}: {error}", name.host());
        Refusal::new(Reason::TargetUnreachable, message)
    })
}

/// Tries the addresses in turn; the refusal is the last one's.
async fn first_of(addresses: &[SocketAddr], node: &str) -> Result<Reached<TcpStream>, Refusal> {
    let mut refusal = no_address(node);
    for &address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(Reached { socket, address }),
            Err(error) => refusal = failed(&error, address, node),
        }
    }
    Err(refusal)
}

fn failed(error: &io::Error, address: SocketAddr, node: &str) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            let message = format!("nothing listens at {address} on {node}; start it, or correct the target");
            Refusal::new(Reason::TargetRefused, message)
        }
        io::ErrorKind::TimedOut => Refusal::new(Reason::TargetTimeout, format!("{address} did not answer {node}")),
        _ => match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                let message = format!("{node} is out of descriptors or memory: {error}");
                Refusal::new(Reason::Overloaded, message)
            }
            _ => {
                let message = format!("{node} cannot reach {address}: {error}");
                Refusal::new(Reason::TargetUnreachable, message)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;
    use tunnel_model::{AllowList, Service};

    use super::*;

    #[tokio::test]
    async fn a_listening_service_is_connected_to() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(dial_service(address), listener.accept());
        let reached = dialled.unwrap();
        assert_eq!(reached.address, address);
        assert_eq!(reached.socket.local_addr().unwrap(), accepted.unwrap().1);
    }

    #[tokio::test]
    async fn a_service_that_is_not_running_is_refused_as_such() {
        // Bound and not listening: nobody else gets the port, and nothing answers there.
        let idle = tokio::net::TcpSocket::new_v4().unwrap();
        idle.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let refusal = dial_service(idle.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TargetRefused);
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_what_is_not_allowed_is_refused() {
        let allow: AllowList = ["192.0.2.1:80".parse().unwrap()].into_iter().collect();
        let targets = Targets::new(Vec::new(), allow);
        let target = "tcp:localhost:80".parse().unwrap();
        let refusal = dial(&targets, &target, "edge1").await.unwrap_err();
        assert_eq!(refusal.reason, Reason::NotAllowed);
    }

    #[tokio::test]
    async fn a_service_is_asked_for_by_its_own_protocol_only() {
        let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = echo.local_addr().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let service = Service {
                protocol,
                ..Service::new("dns".parse().unwrap(), HostPort::from_ip(address.ip(), address.port()))
            };
            let targets = Targets::new(vec![service], AllowList::default());
            let target = "service:dns".parse().unwrap();
            let refused = match protocol {
                Protocol::Tcp => dial_udp(&targets, &target, "edge1").await.map(drop),
                Protocol::Udp => {
                    let reached = dial_udp(&targets, &target, "edge1").await.unwrap();
                    assert_eq!(reached.socket.peer_addr().unwrap(), address);
                    dial(&targets, &target, "edge1").await.map(drop)
                }
            };
            assert_eq!(refused.unwrap_err().reason, Reason::BadRequest);
        }
    }

    async fn dial_service(address: SocketAddr) -> Result<Reached<TcpStream>, Refusal> {
        let service = Service::new("web".parse().unwrap(), HostPort::from_ip(address.ip(), address.port()));
        let targets = Targets::new(vec![service], AllowList::default());
        dial(&targets, &"service:web".parse().unwrap(), "edge1").await
    }
}
