//! What is measured: the tunnel, the bare relay, and the peers that are installed.

mod bare;
mod frp;
mod ours;
mod place;
mod rathole;
mod ssh;

use std::{net::SocketAddr, path::Path};

use crate::{
    load::{Backends, Entry},
    process::{Running, free_ports, free_udp_port},
};

pub(crate) use ours::Ours;
use ours::Way;
pub(crate) use place::Place;

/// Something that carries the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// This project, by a port of the gateway that leads to one target, as with every peer.
    Ours,
    /// The same by its proxy: a name, a credential, any target.
    OursByName,
    /// This project, by a port and over TLS only.
    OursTls,
    /// The same by name, and it is told what the link carries.
    OursTold,
    /// Socket, QUIC stream, socket.
    Bare,
    /// frp, with its QUIC transport.
    FrpQuic,
    /// frp over TLS.
    FrpTls,
    /// rathole, encrypted by Noise.
    RatholeNoise,
    /// rathole over TLS.
    RatholeTls,
    /// OpenSSH, the far end dials.
    SshReverse,
    /// OpenSSH, the near end dials.
    SshLocal,
}

impl Subject {
    pub(crate) const ALL: [Self; 10] = [
        Self::Ours,
        Self::OursByName,
        Self::OursTls,
        Self::Bare,
        Self::FrpQuic,
        Self::FrpTls,
        Self::RatholeNoise,
        Self::RatholeTls,
        Self::SshReverse,
        Self::SshLocal,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "tunnel",
            Self::OursByName => "tunnel (proxy)",
            Self::OursTls => "tunnel (TLS)",
            Self::OursTold => "tunnel, rate configured",
            Self::Bare => "bare relay",
            Self::FrpQuic => "frp (QUIC)",
            Self::FrpTls => "frp (TLS)",
            Self::RatholeNoise => "rathole (noise)",
            Self::RatholeTls => "rathole (TLS)",
            Self::SshReverse => "ssh -R",
            Self::SshLocal => "ssh -L",
        }
    }

    /// Starts it; `None` if it is not installed.
    pub(crate) async fn start(self, place: &Place, backends: Backends, dir: &Path) -> anyhow::Result<Option<Started>> {
        match self {
            Self::Ours => ours::start(place, backends, dir, Way::Port, None).await.map(Some),
            Self::OursByName => ours::start(place, backends, dir, Way::Proxy, None).await.map(Some),
            Self::OursTls => ours::start(place, backends, dir, Way::Port, Some("carrier = \"tls\""))
                .await
                .map(Some),
            Self::OursTold => ours::start(place, backends, dir, Way::Proxy, Some("rate = \"3mbit\""))
                .await
                .map(Some),
            Self::Bare => bare::start(backends, dir).await.map(Some),
            Self::FrpQuic => frp::start(place, backends, dir, "quic").await,
            Self::FrpTls => frp::start(place, backends, dir, "tcp").await,
            Self::RatholeNoise => rathole::start(place, backends, dir, rathole::Transport::Noise).await,
            Self::RatholeTls => rathole::start(place, backends, dir, rathole::Transport::Tls).await,
            Self::SshReverse => ssh::start(place, backends, dir, ssh::Direction::Reverse).await,
            Self::SshLocal => ssh::start(place, backends, dir, ssh::Direction::Local).await,
        }
    }
}

/// A subject that is up.
pub(crate) struct Started {
    /// How clients get in.
    pub(crate) entry: Entry,
    /// Where packets of UDP get in, if it carries any.
    pub(crate) udp: Option<SocketAddr>,
    /// Its processes; they end when this is dropped.
    pub(crate) _processes: Vec<Running>,
}

/// Two free ports of loopback for a peer's listeners.
fn two_ports() -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let [one, other] = free_ports()?.map(local);
    Ok((one, other))
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A free port of loopback for a peer's listener for packets.
fn udp_port() -> anyhow::Result<SocketAddr> {
    Ok(local(free_udp_port()?))
}
