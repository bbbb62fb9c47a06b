//! Whether the gateway answers, and how rarely it need be asked.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use tunnel_carrier::{CarrierKind, Tunnel};
use tunnel_model::{LossCause, Reason, Refusal};

use super::{Shared, network::Network, session::PATIENCE, silence::SHORTEST};

/// How long the old socket has to answer on a new network before a fresh one is tried.
const MIGRATION: Duration = Duration::from_secs(2);
/// A question and what belongs to it have been sent and acknowledged by then.
const ASKED: Duration = Duration::from_secs(2);
/// More than the end of a round takes, in bytes both ways; what moved more was no silence.
const SILENT: u64 = 600;

/// The carrier is to be given up.
pub(super) struct Dead {
    pub(super) refusal: Refusal,
    pub(super) cause: LossCause,
}

/// Asks so often that no NAT forgets the flow, and at once when the network changed. Returns only if the carrier is to be
/// given up.
pub(super) async fn keep_healthy(
    shared: &Shared,
    tunnel: &Tunnel,
    network: &mut Network,
    alive: &OnceLock<Instant>,
    generation: &AtomicU64,
) -> Dead {
    // Without a connection this is over before it has done anything.
    let Some(status) = tunnel.status() else {
        return std::future::pending().await;
    };
    let (gateway, kind) = (status.remote, status.carrier);
    network.settle_on(gateway);
    loop {
        match timeout(PATIENCE, tunnel.ping()).await {
            Ok(Ok(rtt)) => {
                shared.metrics.pong(rtt);
                shared.check.ready();
                if alive.set(Instant::now()).is_ok() {
                    let now = shared.identity.now();
                    shared.state.send_modify(|state| {
                        state.connected(tunnel.clone(), generation.load(Ordering::Relaxed), rtt, now)
                    });
                }
            }
            // It is over, and somebody else says so.
            Ok(Err(refusal)) => {
                shared.check.failed(refusal.message);
                return std::future::pending().await;
            }
            Err(_) => {
                shared.check.failed("the gateway does not answer");
                return Dead {
                    refusal: Refusal::new(Reason::IdleTimeout, "the gateway does not answer"),
                    cause: LossCause::Timeout,
                };
            }
        }
        tokio::select! {
            () = silences(shared, tunnel, network.source()), if kind == CarrierKind::Quic => {}
            // What NATs do with TCP is another matter: they keep it for longer than the gateway would wait.
            () = sleep(SHORTEST), if kind == CarrierKind::Tls => {}
            () = network.moved(gateway) => {
                if let Err(refusal) = migrate(shared, tunnel, gateway, kind).await {
                    return Dead { refusal, cause: LossCause::AddressChange };
                }
            }
        }
    }
}

/// One silence after the other, for as long as each is ended by the gateway. The first is the shortest: a NAT forgets a flow
/// sooner that is new to it. Linux gives it 30 s until it has been used for longer than 2 s, and 120 s then.
async fn silences(shared: &Shared, tunnel: &Tunnel, source: Option<IpAddr>) {
    let mut new = true;
    loop {
        let learned = shared.networks().get(source, shared.identity.now()).interval();
        let interval = if std::mem::take(&mut new) { SHORTEST } else { learned };
        let asked = Instant::now();
        let answer = timeout(interval + PATIENCE, tunnel.ping_held(interval));
        let moved = async {
            sleep(ASKED).await;
            bytes(tunnel)
        };
        // What moves while the question is under way says nothing.
        let (answer, before) = tokio::join!(answer, moved);
        let silent = bytes(tunnel).saturating_sub(before) < SILENT;
        let now = shared.identity.now();
        match answer {
            // A gateway that holds no pong back.
            Ok(Ok(_)) if asked.elapsed() < interval => return sleep(SHORTEST.saturating_sub(asked.elapsed())).await,
            Ok(Ok(total)) => {
                shared.metrics.pong(total.saturating_sub(interval));
                shared.check.ready();
                if silent {
                    noted(shared.networks().held(source, interval, now));
                }
            }
            Ok(Err(_)) => return,
            Err(_) => {
                debug!(silence_s = interval.as_secs(), "nothing came in after the silence");
                if silent
                    && was_awake(asked.elapsed(), interval + PATIENCE)
                    && timeout(PATIENCE, tunnel.ping())
                        .await
                        .is_ok_and(|answer| answer.is_ok())
                {
                    info!(
                        silence_s = interval.as_secs(),
                        "the network forgets a link that is silent for so long"
                    );
                    noted(shared.networks().failed(source, interval, now));
                }
                return;
            }
        }
    }
}

/// Whether a wait ended about when it was due. If not, this machine stood still, as one that is suspended or moved to another
/// host, and the answer may lie unread: nothing is told of the network.
fn was_awake(waited: Duration, due: Duration) -> bool {
    waited < due + ASKED
}

/// Bytes that the carrier has moved both ways.
fn bytes(tunnel: &Tunnel) -> u64 {
    tunnel
        .status()
        .map_or(0, |status| status.sent_bytes + status.received_bytes)
}

pub(super) fn noted(result: std::io::Result<()>) {
    if let Err(error) = result {
        debug!(%error, "what was learned of this network is not kept");
    }
}

/// Makes the session go on from another local address. The socket is bound to none, so that its next packet leaves from
/// the new one and QUIC migrates; where the old socket is stuck, a new one takes its place under the connection. TCP does not
/// go from one address to another; but the address may be there still.
async fn migrate(shared: &Shared, tunnel: &Tunnel, gateway: SocketAddr, kind: CarrierKind) -> Result<(), Refusal> {
    info!(%gateway, "the local network changed");
    if let Ok(answer) = timeout(MIGRATION, tunnel.ping()).await {
        return answer.map(drop);
    }
    let lost = |message: String| Refusal::new(Reason::CarrierLost, message);
    if kind == CarrierKind::Tls {
        return Err(lost("the network changed under a connection over TCP".to_owned()));
    }
    debug!("no answer from the new network, taking a new socket");
    shared
        .dialer
        .quic()
        .rebind()
        .map_err(|error| lost(format!("the network changed and there is no new socket: {error}")))?;
    match timeout(PATIENCE, tunnel.ping()).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(lost("the network changed and the gateway does not answer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_stood_still_does_not_blame_its_network() {
        let due = SHORTEST + PATIENCE;
        assert!(was_awake(due, due) && was_awake(due + Duration::from_millis(500), due));
        assert!(!was_awake(due + Duration::from_secs(30), due));
    }
}
