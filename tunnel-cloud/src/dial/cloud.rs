//! Services of the cloud side: declared in the gateway's configuration, dialled by the gateway itself.

mod flow;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};
use tunnel_daemon::{listen::end_on_close, udp};
use tunnel_model::{HostPort, Protocol, Reason, Refusal, Target};

pub(super) use self::flow::CloudFlow;
use crate::config::CloudService;

/// How long a service may take to be resolved and to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Connections being made at once: each holds a descriptor that others need too.
const MAX_CONNECTING: usize = 256;

/// The services of the cloud side.
#[derive(Debug)]
pub(super) struct CloudServices {
    services: ArcSwap<Vec<CloudService>>,
    connecting: Semaphore,
}

impl CloudServices {
    pub(super) fn new(services: Vec<CloudService>) -> Self {
        Self {
            services: ArcSwap::from_pointee(services),
            connecting: Semaphore::new(MAX_CONNECTING),
        }
    }

    /// Those in force.
    pub(super) fn services(&self) -> Arc<Vec<CloudService>> {
        self.services.load_full()
    }

    /// Puts others in force, and returns those that were.
    pub(super) fn replace(&self, services: Vec<CloudService>) -> Arc<Vec<CloudService>> {
        self.services.swap(Arc::new(services))
    }

    /// Where a target is that is asked for by this protocol. Only services have a place on the cloud side.
    pub(super) fn find(&self, target: &Target, protocol: Protocol) -> Result<HostPort, Refusal> {
        let services = self.services.load();
        let service = leads_to(&services, target).ok_or_else(|| {
            let message = format!("the cloud side has no {target}; add a [[service]] to the gateway's cloud.toml");
            Refusal::new(Reason::UnknownService, message)
        })?;
        if service.protocol != protocol {
            let message = format!(
                "{target} of the cloud side is reached by {}, and was asked for by {protocol}",
                service.protocol
            );
            return Err(Refusal::new(Reason::BadRequest, message));
        }
        Ok(service.target.clone())
    }

    /// By which protocol a target is reached.
    pub(super) fn protocol(&self, target: &Target) -> Option<Protocol> {
        leads_to(&self.services.load(), target).map(|service| service.protocol)
    }

    /// Connects to a service. Its name is resolved once, and exactly an address that was judged is dialled.
    pub(super) async fn connect(&self, target: &HostPort) -> Result<CloudStream, Refusal> {
        let connected = async { first_of(&addresses(target).await?, target, TcpStream::connect).await };
        let io = self.in_time(target, connected).await?;
        CloudStream::new(io).map_err(|error| unreachable(target, &error))
    }

    /// Gives a flow to a service a socket of its own; the address is found as that of a connection is. Whether anything
    /// listens there, only its answers can tell.
    pub(super) async fn connect_flow(&self, target: &HostPort) -> Result<CloudFlow, Refusal> {
        let connect = async |address| {
            let socket = udp::connect(address).await?;
            // A new socket takes nothing before the runtime has looked at it, and the first packet is there already.
            socket.writable().await?;
            Ok(socket)
        };
        let connected = async { first_of(&addresses(target).await?, target, connect).await };
        let socket = self.in_time(target, connected).await?;
        Ok(CloudFlow::new(socket, target.clone()))
    }

    async fn in_time<T>(
        &self,
        target: &HostPort,
        connected: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let Ok(_place) = self.connecting.try_acquire() else {
            let message =
                format!("{MAX_CONNECTING} connections to services of the cloud side are being made; try again");
            return Err(Refusal::new(Reason::Overloaded, message));
        };
        timeout(CONNECT_DEADLINE, connected).await.unwrap_or_else(|_| {
            let message = format!(
                "{target} did not answer the gateway within {} s",
                CONNECT_DEADLINE.as_secs()
            );
            Err(Refusal::new(Reason::TargetTimeout, message))
        })
    }
}

/// The service that is meant.
pub(super) fn leads_to<'a>(services: &'a [CloudService], target: &Target) -> Option<&'a CloudService> {
    match target {
        Target::Service(name) => services.iter().find(|service| service.name == *name),
        _ => None,
    }
}

/// Where a service may be dialled.
async fn addresses(target: &HostPort) -> Result<Vec<SocketAddr>, Refusal> {
    match target.ip() {
        Some(ip) => Ok(vec![(ip.to_canonical(), target.port()).into()]),
        None => resolve(target).await,
    }
}

async fn resolve(target: &HostPort) -> Result<Vec<SocketAddr>, Refusal> {
    let found = lookup_host((target.host(), target.port())).await;
    let found = found.map_err(|error| unreachable(target, &error))?;
    let (fit, unfit): (Vec<_>, Vec<_>) = found
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
        .partition(|address| may_be_named(address.ip()));
    match (fit.is_empty(), unfit.first()) {
        (true, Some(address)) => {
            let message = format!(
                "{target} resolves to {}, which serves this machine alone; write the address itself if it is meant",
                address.ip()
            );
            Err(Refusal::new(Reason::Denied, message))
        }
        _ => Ok(fit),
    }
}

/// Whether a name may lead there. Whoever answers for a name could otherwise choose the metadata service of the machine
/// (link-local, and the addresses beyond it that large clouds use), or something that is no host at all.
fn may_be_named(ip: IpAddr) -> bool {
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0 || ip == ALIBABA)
        }
        IpAddr::V6(ip) => !(ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified() || ip == AWS),
    }
}

/// Tries the addresses in turn; the refusal is the last one's.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    target: &HostPort,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Refusal> {
    let mut refusal = Refusal::new(
        Reason::TargetUnreachable,
        format!("the gateway finds no address of {target}"),
    );
    for &address in addresses {
        match connect(address).await {
            Ok(connected) => return Ok(connected),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refusal = refused(&address, target),
            Err(error) => refusal = unreachable(target, &error),
        }
    }
    Err(refusal)
}

fn refused(address: &impl fmt::Display, target: &HostPort) -> Refusal {
    let message = format!("nothing listens at {address}, where the gateway looks for {target}");
    Refusal::new(Reason::TargetRefused, message)
}

fn unreachable(target: &HostPort, error: &io::Error) -> Refusal {
    Refusal::new(
        Reason::TargetUnreachable,
        format!("the gateway cannot reach {target}: {error}"),
    )
}

/// A connection to a service of the cloud side. Dropping it before both directions have ended resets it.
#[derive(Debug)]
pub struct CloudStream {
    io: TcpStream,
    read_to_end: bool,
    written_to_end: bool,
}

impl CloudStream {
    fn new(io: TcpStream) -> io::Result<Self> {
        io.set_nodelay(true)?;
        io.set_zero_linger()?;
        Ok(Self {
            io,
            read_to_end: false,
            written_to_end: false,
        })
    }

    fn direction_ended(&self) {
        if self.read_to_end && self.written_to_end {
            end_on_close(&self.io);
        }
    }
}

impl AsyncRead for CloudStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut stream.io).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            stream.read_to_end = true;
            stream.direction_ended();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CloudStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(Pin::new(&mut stream.io).poll_shutdown(cx))?;
        stream.written_to_end = true;
        stream.direction_ended();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// T4
    #[test]
    fn t4_a_name_leads_neither_to_metadata_nor_to_what_is_no_host() {
        for ip in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(!may_be_named(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.0.0.7",
            "::1",
            "fd00::7",
            "2001:db8::1",
            "100.100.100.201",
        ] {
            assert!(may_be_named(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn the_cloud_side_has_its_services_and_nothing_else() {
        let services = services("127.0.0.1:5000");
        let registry = "service:registry".parse().unwrap();
        let found = services.find(&registry, Protocol::Tcp).unwrap();
        assert_eq!(found.to_string(), "127.0.0.1:5000");
        for target in ["service:web", "port:5000", "tcp:127.0.0.1:5000", "udp:5000"] {
            let refusal = services.find(&target.parse().unwrap(), Protocol::Tcp).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnknownService, "{target}");
        }
    }

    #[test]
    fn a_service_has_one_protocol_and_is_not_found_by_another() {
        for (own, other) in [(Protocol::Tcp, Protocol::Udp), (Protocol::Udp, Protocol::Tcp)] {
            let services = services_by(own, "127.0.0.1:5000");
            let registry = "service:registry".parse().unwrap();
            assert_eq!(services.protocol(&registry), Some(own));
            assert!(services.find(&registry, own).is_ok());
            let refusal = services.find(&registry, other).unwrap_err();
            assert_eq!(refusal.reason, Reason::BadRequest, "{refusal}");
        }
    }

    #[tokio::test]
    async fn a_flow_goes_to_the_service_and_hears_that_nothing_listens_there() {
        let server = udp::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let target = server.local_addr().unwrap().to_string().parse().unwrap();
        let services = services("127.0.0.1:1");
        let flow = services.connect_flow(&target).await.unwrap();
        assert!(flow.send(b"question"));
        let mut heard = [0; 16];
        let (length, from) = server.recv_from(&mut heard).await.unwrap();
        assert_eq!(&heard[..length], b"question");
        let (mut answers, sizes) = (Vec::new(), [0, 12, 9_000]);
        for size in sizes {
            server.send_to(&vec![7; size], from).await.unwrap();
        }
        while answers.len() < sizes.len() {
            flow.recv_many(&mut answers).await.unwrap();
        }
        assert_eq!(answers.iter().map(bytes::Bytes::len).collect::<Vec<_>>(), sizes);

        drop(server);
        assert!(flow.send(b"question"));
        let refusal = flow.recv_many(&mut answers).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TargetRefused);
    }

    #[tokio::test]
    async fn a_service_is_resolved_and_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let services = services("127.0.0.1:1");
        let target = format!("localhost:{port}").parse().unwrap();
        let (stream, accepted) = tokio::join!(services.connect(&target), listener.accept());
        let (mut stream, mut served) = (stream.unwrap(), accepted.unwrap().0);
        stream.write_all(b"all of it").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        served.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"all of it");
        drop(served);
        got.clear();
        stream.read_to_end(&mut got).await.unwrap();
    }

    /// N9
    #[tokio::test]
    async fn n9_a_connection_that_is_dropped_before_its_end_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let services = services("127.0.0.1:1");
        let (stream, accepted) = tokio::join!(services.connect(&target), listener.accept());
        let (mut stream, mut served) = (stream.unwrap(), accepted.unwrap().0);
        stream.write_all(b"half").await.unwrap();
        served.read_exact(&mut [0; 4]).await.unwrap();
        drop(stream);
        let error = served.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_service_that_does_not_run_is_told_as_such() {
        // Bound and not listening: nobody else gets the port, and nothing answers there.
        let idle = tokio::net::TcpSocket::new_v4().unwrap();
        idle.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let target = idle.local_addr().unwrap().to_string().parse().unwrap();
        let refusal = services("127.0.0.1:1").connect(&target).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TargetRefused);
    }

    fn services(target: &str) -> CloudServices {
        services_by(Protocol::Tcp, target)
    }

    fn services_by(protocol: Protocol, target: &str) -> CloudServices {
        CloudServices::new(vec![CloudService {
            name: "registry".parse().unwrap(),
            target: target.parse().unwrap(),
            protocol,
        }])
    }
}
