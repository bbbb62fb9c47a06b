//! A host of a lab.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::process::Command;

use super::netns::Namespace;
use crate::wait::wait_until;

const BACKLOG: u32 = 1_024;

/// A machine of the lab: a network namespace, with an address but for routers between networks.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    addr: Mutex<Ipv4Addr>,
}

impl Host {
    pub(super) fn new(lab: &str, name: &str, addr: Ipv4Addr) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            namespace: Namespace::create(format!("{lab}-{name}"))?,
            addr: Mutex::new(addr),
        })
    }

    /// What the lab calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address: a router's is the one towards its hosts.
    #[must_use]
    pub fn addr(&self) -> Ipv4Addr {
        *self.addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its address with a port.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddrV4::new(self.addr(), port).into()
    }

    /// A command that runs on this host. It is killed when its child is dropped.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // `ip netns exec` becomes the program, so the child's process id is the program's.
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.namespace.name()])
            .arg(program)
            .kill_on_drop(true);
        command
    }

    /// Calls `f` in this host's network, in a thread of its own: the sockets that it makes belong there
    /// for good.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        self.namespace.enter(f)
    }

    /// A UDP socket of this host, for the test itself to use. Port 0 is any.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn udp(&self, port: u16) -> anyhow::Result<UdpSocket> {
        let socket = self
            .namespace
            .enter(|| Ok(std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
        socket.set_nonblocking(true)?;
        Ok(UdpSocket::from_std(socket)?)
    }

    /// A TCP listener of this host, for the test itself to use. Port 0 is any.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn listen(&self, port: u16) -> anyhow::Result<TcpListener> {
        let socket = self.tcp()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        Ok(socket.listen(BACKLOG)?)
    }

    /// A TCP connection from this host, for the test itself to use.
    ///
    /// # Errors
    /// Where the peer cannot be reached or refuses.
    pub async fn connect(&self, to: SocketAddr) -> anyhow::Result<TcpStream> {
        let connecting = self.tcp()?.connect(to);
        connecting
            .await
            .with_context(|| format!("{} could not connect to {to}", self.name))
    }

    /// Waits until something accepts connections at `to`, as seen from this host.
    ///
    /// # Errors
    /// Where nothing does `within` the time.
    pub async fn wait_for_port(&self, to: SocketAddr, within: Duration) -> anyhow::Result<()> {
        wait_until(
            &format!("{to} accepts connections from {}", self.name),
            within,
            async || self.connect(to).await.is_ok(),
        )
        .await
    }

    fn tcp(&self) -> anyhow::Result<TcpSocket> {
        self.namespace.enter(|| Ok(TcpSocket::new_v4()?))
    }

    pub(super) fn namespace_path(&self) -> PathBuf {
        self.namespace.path()
    }

    pub(super) fn ip(&self, commands: &[&str]) -> anyhow::Result<()> {
        self.namespace.ip(commands)
    }

    pub(super) fn system(&self, program: &str, args: &str) -> anyhow::Result<()> {
        self.namespace.system(program, args)
    }

    pub(super) fn iptables(&self, args: &str) -> anyhow::Result<()> {
        self.system("iptables", &format!("--wait {args}"))
    }

    /// Makes a router of it, and of its own accord it shall say nothing that a test would count.
    pub(super) fn route_packets(&self) -> anyhow::Result<()> {
        self.namespace.enter(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("could not make a router")?;
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                // Kernels without IPv6 have nothing to turn off.
                if std::fs::exists(&path)? {
                    std::fs::write(&path, "1").with_context(|| path.clone())?;
                }
            }
            Ok(())
        })
    }

    /// Connects its `eth0` to the bridge `br0` of a router.
    pub(super) fn plug_into(&self, router: &Host, prefix: u8, gateway: Ipv4Addr) -> anyhow::Result<()> {
        let port = format!("v{}", self.name);
        router.ip(&[
            &format!(
                "link add {port} type veth peer name eth0 netns {}",
                self.namespace.name()
            ),
            &format!("link set {port} master br0 up"),
        ])?;
        self.ip(&["link set eth0 up"])?;
        self.take_addr(self.addr(), prefix, gateway)
    }

    /// Takes an address, in the place of the one before.
    pub(super) fn take_addr(&self, addr: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> anyhow::Result<()> {
        self.ip(&[
            "addr flush dev eth0",
            &format!("addr add {addr}/{prefix} dev eth0"),
            &format!("route replace default via {gateway}"),
        ])?;
        *self.addr.lock().unwrap_or_else(PoisonError::into_inner) = addr;
        Ok(())
    }
}
