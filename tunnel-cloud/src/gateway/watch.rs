//! The gateway looks at itself: do both its doors answer, and how long do its certificates last?

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};
use tunnel_carrier::quic::{Dialer, Limits, close};
use tunnel_daemon::{error::CliError, readiness::Readiness};
use tunnel_identity::{ClusterRoot, FileError, GatewayFiles, TimeFloor, UnixTime, tls};
use tunnel_model::{Reason, Refusal};

use super::key_error;
use crate::{admin::api::Listening, config::Config, state::State};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// How long one of the doors may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes a new issuing authority and gateway certificate if the present ones are near their end and the root's key is
/// here. Where it was moved to a safe place, the operator is told in time.
pub(super) fn rotate_if_due(keys: &GatewayFiles, config: &Config, now: UnixTime) -> Result<(), CliError> {
    let authority = keys.authority().map_err(key_error)?;
    if now < authority.rotate_at() {
        return Ok(());
    }
    match keys.root() {
        Ok(root) => {
            keys.rotate_issuing(&root, now).map_err(key_error)?;
            let names: Vec<_> = config.gateway.advertise.iter().map(|a| a.0.host().to_owned()).collect();
            keys.renew_gateway(&names, now).map_err(key_error)?;
            info!("issuing authority rotated");
            Ok(())
        }
        Err(FileError::Missing { .. }) => {
            let end = authority.validity().not_after;
            warn!(%end, "the issuing authority must be rotated before its end: put root.key back and restart the gateway");
            Ok(())
        }
        Err(error) => Err(key_error(error)),
    }
}

/// Knocks at both doors for ever, and reports.
pub(super) async fn watch(readiness: Readiness, listening: Listening, root: ClusterRoot, state: Arc<State>) {
    let proxy = readiness.check("proxy");
    let edges = readiness.check("edges");
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match within(ask_proxy(listening.proxy)).await {
            Ok(()) => proxy.ready(),
            Err(error) => proxy.failed(error),
        }
        match within(greet(listening.public, &root)).await {
            Ok(()) => edges.ready(),
            Err(error) => edges.failed(error),
        }
        let authority = &state.authority;
        if UnixTime::from(SystemTime::now()) >= authority.rotate_at() {
            let end = authority.validity().not_after;
            warn!(%end, "restart the gateway, so that it rotates its issuing authority");
        }
    }
}

async fn within(check: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    timeout(PATIENCE, check)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

/// A request without a credential has to be refused: that takes the whole way in but the node.
async fn ask_proxy(address: SocketAddr) -> Result<(), String> {
    let exchange = async {
        let mut socket = TcpStream::connect(reachable(address)).await?;
        socket
            .write_all(b"CONNECT self.check:1 HTTP/1.1\r\nHost: self.check:1\r\n\r\n")
            .await?;
        let mut status = [0; 12];
        socket.read_exact(&mut status).await?;
        std::io::Result::Ok(status)
    };
    match exchange.await {
        // 407, or what its address may not reach where a rule names it.
        Ok(status) if status.starts_with(b"HTTP/1.1 4") => Ok(()),
        Ok(status) => Err(format!("unexpected answer {:?}", String::from_utf8_lossy(&status))),
        Err(error) => Err(error.to_string()),
    }
}

/// A handshake as an edge makes it before it enrols.
async fn greet(address: SocketAddr, root: &ClusterRoot) -> Result<(), String> {
    let floor = TimeFloor::new(UnixTime::from_secs(0), None);
    let tls = tls::client_config_enrol(root.pin(), &floor).map_err(|e| e.to_string())?;
    let dialer = Dialer::bind(0, Limits::edge()).map_err(|e| e.to_string())?;
    let connection = dialer
        .dial_addresses(&[reachable(address)], tls)
        .await
        .map_err(|e| e.to_string())?;
    close(
        &connection,
        &Refusal::new(Reason::Cancelled, "a check by the gateway itself"),
    );
    dialer.wait_idle().await;
    Ok(())
}

/// Where a listener on all addresses is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
