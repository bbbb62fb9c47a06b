//! Connections to the gateway for streams that wait: after one was lost, and beside one that says nothing.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use tunnel_carrier::{CarrierKind, Connection, DialError, Patience, Tunnel};
use tunnel_identity::tls::Alpn;
use tunnel_proto::{Silence, Suspicion};

use super::{SOMEWHERE, Settings, Shared, health::noted, network::source_towards};

/// While streams wait, the gateway is dialled anew this often: with a handshake and the first byte behind it, what waits goes on
/// within a second of the link's return.
pub(super) const DIAL_AGAIN: Duration = Duration::from_millis(750);
/// The same with jitter, as a share of it: not every edge that misses one gateway is to knock at the same moments.
const AGAIN_JITTER: std::ops::RangeInclusive<f64> = 0.75..=1.0;
/// Those whose connections fell silent together spread their first attempts over so long.
const SPREAD: Duration = Duration::from_millis(250);
/// Between two looks at a connection with streams, and at one without.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_IDLE: Duration = Duration::from_millis(500);

/// What is known of those who wait for a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting {
    /// There are streams among them.
    pub(super) streams: bool,
    /// The round trip of the connection that they had until now.
    pub(super) rtt: Option<Duration>,
}

/// Dials once; or, while streams wait, again and again beside the attempts that may still come through, so that they go on
/// a moment after the link is back and not when the retransmissions of an old attempt have come round to it. What got
/// through is remembered of the network that it was in.
pub(super) async fn dial(
    shared: &Shared,
    settings: &Settings,
    tls: &rustls::ClientConfig,
    waiting: Waiting,
) -> Result<Connection, DialError> {
    let source = source_towards(shared.state.borrow().gateway.unwrap_or(SOMEWHERE));
    let patience = Patience {
        blocked: shared.networks().get(source, shared.identity.now()).is_blocked(),
        rtt: waiting.rtt,
        again: waiting
            .streams
            .then(|| DIAL_AGAIN.mul_f64(rand::rng().random_range(AGAIN_JITTER))),
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
    let mut watch = Watch::new(tunnel);
    loop {
        let rtt = watch.until_dark().await;
        debug!("the connection says nothing, dialling another beside it");
        tokio::select! {
            connection = again_and_again(shared, settings, rtt) => return connection,
            () = watch.while_dark() => {}
        }
    }
}

async fn again_and_again(shared: &Shared, settings: &Settings, rtt: Duration) -> Connection {
    let waiting = Waiting {
        streams: true,
        rtt: Some(rtt),
    };
    let spread = SPREAD.mul_f64(rand::rng().random_range(0.0..=1.0));
    sleep(spread).await;
    loop {
        if let Ok(tls) = shared.identity.tls(Alpn::Tunnel)
            && let Ok(connection) = dial(shared, settings, &tls, waiting).await
        {
            return connection;
        }
        sleep(DIAL_AGAIN).await;
    }
}

/// Looks at a connection again and again.
struct Watch<'a> {
    tunnel: &'a Tunnel,
    silence: Silence,
    pause: Duration,
}

impl<'a> Watch<'a> {
    fn new(tunnel: &'a Tunnel) -> Self {
        let counted = tunnel.counted().unwrap_or_default();
        Self {
            tunnel,
            silence: Silence::new(counted, Instant::now().into_std()),
            pause: LOOK_IDLE,
        }
    }

    /// Resolves when it may be of no use, with its round trip.
    async fn until_dark(&mut self) -> Duration {
        loop {
            match self.look().await {
                (Suspicion::None, _) => {}
                // Whatever comes is an answer: nobody waits for this one.
                (Suspicion::Ask, _) => drop(timeout(Duration::ZERO, self.tunnel.ping()).await),
                (Suspicion::Dark, rtt) => return rtt,
            }
        }
    }

    /// Resolves when something has come.
    async fn while_dark(&mut self) {
        while self.look().await.0 == Suspicion::Dark {}
    }

    async fn look(&mut self) -> (Suspicion, Duration) {
        loop {
            sleep(self.pause).await;
            // Without a connection there is nothing to look at, and somebody else dials.
            let Some(counted) = self.tunnel.counted() else { continue };
            self.pause = if counted.streams == 0 { LOOK_IDLE } else { LOOK };
            return (self.silence.look(counted, Instant::now().into_std()), counted.rtt);
        }
    }
}
