//! Connections to the gateway for streams that wait: after one was lost, and beside one that says nothing.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::info;
use tunnel_carrier::{CarrierKind, Connection, DialError, Patience, Tunnel};
use tunnel_identity::tls::Alpn;

use super::{
    SOMEWHERE, Settings, Shared,
    health::{SILENT, noted},
    network::source_towards,
};

/// While streams wait, the gateway is dialled anew this often: with a handshake and the first byte behind it, what waits goes on
/// within a second of the link's return.
pub(super) const DIAL_AGAIN: Duration = Duration::from_millis(750);
/// For how long nothing comes, after something was sent, until the connection may be of no use.
const DARK: Duration = Duration::from_secs(2);
/// And for how many round trips, where these are long.
const DARK_ROUND_TRIPS: u32 = 4;
/// Between two looks at the connection.
const EVERY: Duration = Duration::from_millis(500);

/// Dials once; or, while streams wait, again and again beside the attempts that may still come through, so that they go on
/// a moment after the link is back and not when the retransmissions of an old attempt have come round to it. What got
/// through is remembered of the network that it was in.
pub(super) async fn dial(
    shared: &Shared,
    settings: &Settings,
    tls: &rustls::ClientConfig,
    streams_wait: bool,
) -> Result<Connection, DialError> {
    let source = source_towards(shared.state.borrow().gateway.unwrap_or(SOMEWHERE));
    let patience = Patience {
        blocked: shared.networks().get(source, shared.identity.now()).is_blocked(),
        again: streams_wait.then_some(DIAL_AGAIN),
    };
    let connection = shared.dialer.dial(&settings.gateways, tls, patience).await?;
    if !shared.dialer.may_go_by(CarrierKind::Quic) {
        // Nothing was learned.
        return Ok(connection);
    }
    let blocked = connection.kind() == CarrierKind::Tls;
    if blocked != patience.blocked {
        info!(carrier = %connection.kind(), "{}", if blocked { "no way by UDP here" } else { "UDP gets through here again" });
    }
    noted(shared.networks().blocked(source, blocked, shared.identity.now()));
    Ok(connection)
}

/// Dials another connection while streams are open and this one says nothing, and gives it if it is there before the old one
/// says something again. The old one would find out by itself that the link is back, but the longer that was away the longer
/// it waits between two looks (RFC 9002 section 6.2).
pub(super) async fn replacement(shared: &Shared, settings: &Settings, tunnel: &Tunnel) -> Connection {
    let mut silence = Silence::new(tunnel);
    loop {
        silence.long(tunnel).await;
        tokio::select! {
            connection = again_and_again(shared, settings) => return connection,
            () = silence.broken(tunnel) => {}
        }
    }
}

async fn again_and_again(shared: &Shared, settings: &Settings) -> Connection {
    loop {
        if let Ok(tls) = shared.identity.tls(Alpn::Tunnel)
            && let Ok(connection) = dial(shared, settings, &tls, true).await
        {
            return connection;
        }
        sleep(DIAL_AGAIN).await;
    }
}

/// What a connection has heard, and since when it has been waiting for an answer.
struct Silence {
    sent: u64,
    received: u64,
    asked: Option<Instant>,
    quiet_since: Instant,
    /// What had been received when the gateway was last asked for a sign of life.
    checked: u64,
}

impl Silence {
    fn new(tunnel: &Tunnel) -> Self {
        let (sent, received) = tunnel
            .status()
            .map_or((0, 0), |status| (status.sent_bytes, status.received_bytes));
        Self {
            sent,
            received,
            asked: None,
            quiet_since: Instant::now(),
            checked: received,
        }
    }

    /// Resolves when nothing has come for long, although something was sent while a stream was open. Where much has come and
    /// then nothing, something is sent once.
    async fn long(&mut self, tunnel: &Tunnel) {
        let mut looks = looks();
        loop {
            looks.tick().await;
            let Some(status) = tunnel.status() else { continue };
            if status.received_bytes != self.received || status.streams == 0 {
                let checked = self.checked;
                *self = Self::new(tunnel);
                self.checked = checked;
            } else if status.sent_bytes != self.sent {
                let asked = *self.asked.get_or_insert_with(Instant::now);
                if asked.elapsed() >= DARK.max(status.rtt * DARK_ROUND_TRIPS) {
                    return;
                }
            } else if self.quiet_since.elapsed() >= DARK && self.received.saturating_sub(self.checked) > SILENT {
                // What came has ended, or does not come through any more. Nobody waits for the answer itself.
                self.checked = self.received;
                let _ = timeout(Duration::ZERO, tunnel.ping()).await;
            }
        }
    }

    /// Resolves when something has come.
    async fn broken(&mut self, tunnel: &Tunnel) {
        let mut looks = looks();
        while tunnel
            .status()
            .is_none_or(|status| status.received_bytes == self.received)
        {
            looks.tick().await;
        }
        *self = Self::new(tunnel);
    }
}

fn looks() -> tokio::time::Interval {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}
