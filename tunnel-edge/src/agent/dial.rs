//! Connections to the gateway for streams that wait: after one was lost, and beside one that says nothing.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tunnel_carrier::{Tunnel, quic::DialError};
use tunnel_identity::tls::Alpn;

use super::{Settings, Shared};

/// While streams wait, the gateway is dialled anew this often.
pub(super) const DIAL_AGAIN: Duration = Duration::from_secs(1);
/// Attempts that may be under way at once; the oldest of them has had its time by then.
const MAX_ATTEMPTS: usize = 15;
/// For how long nothing comes, after something was sent, until the connection may be of no use.
const DARK: Duration = Duration::from_secs(2);
/// And for how many round trips, where these are long.
const DARK_ROUND_TRIPS: u32 = 4;
/// Between two looks at the connection.
const EVERY: Duration = Duration::from_millis(500);

/// Dials once; or, while streams wait, again every second beside the attempts that may still come through, so that they go on
/// a moment after the link is back and not when the retransmissions of an old attempt have come round to it.
pub(super) async fn dial(
    shared: &Shared,
    settings: &Settings,
    tls: &rustls::ClientConfig,
    streams_wait: bool,
) -> Result<quinn::Connection, DialError> {
    let mut attempts = JoinSet::new();
    loop {
        let (dialer, gateways, tls) = (shared.dialer.clone(), settings.gateways.clone(), tls.clone());
        attempts.spawn(async move { dialer.dial(&gateways, tls).await });
        let mut next = std::pin::pin!(sleep(DIAL_AGAIN));
        loop {
            // Those that fail make room for others.
            let more = streams_wait && attempts.len() < MAX_ATTEMPTS;
            tokio::select! {
                Some(dialled) = attempts.join_next() => match dialled {
                    Ok(Ok(connection)) => return Ok(connection),
                    // Nothing else is under way that could do better.
                    Ok(Err(error)) if attempts.is_empty() => return Err(error),
                    Ok(Err(_)) | Err(_) => {}
                },
                () = &mut next, if more => break,
            }
        }
    }
}

/// Dials another connection while streams are open and this one says nothing, and gives it if it is there before the old one
/// says something again. The old one would find out by itself that the link is back, but the longer that was away the longer
/// it waits between two looks (RFC 9002 section 6.2).
pub(super) async fn replacement(shared: &Shared, settings: &Settings, tunnel: &Tunnel) -> quinn::Connection {
    let mut silence = Silence::new(tunnel);
    loop {
        silence.long(tunnel).await;
        tokio::select! {
            connection = again_and_again(shared, settings) => return connection,
            () = silence.broken(tunnel) => {}
        }
    }
}

async fn again_and_again(shared: &Shared, settings: &Settings) -> quinn::Connection {
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
        }
    }

    /// Resolves when nothing has come for long, although something was sent for a stream.
    async fn long(&mut self, tunnel: &Tunnel) {
        let mut looks = looks();
        loop {
            looks.tick().await;
            let Some(status) = tunnel.status() else { continue };
            if status.received_bytes != self.received || status.streams == 0 {
                *self = Self::new(tunnel);
            } else if status.sent_bytes != self.sent {
                let asked = *self.asked.get_or_insert_with(Instant::now);
                if asked.elapsed() >= DARK.max(status.rtt * DARK_ROUND_TRIPS) {
                    return;
                }
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
