//! From TLS back to QUIC: when to look whether UDP gets through again, and how sure to be.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;
use tunnel_carrier::{CarrierKind, Connection};
use tunnel_identity::tls::Alpn;
use tunnel_model::{GatewayAddr, Reason, Refusal};

use super::Shared;

/// On TLS, QUIC is tried this soon.
const FIRST: Duration = Duration::from_secs(15);
/// And at last this often, so that nobody waits for longer than two minutes after UDP is back.
const LAST: Duration = Duration::from_secs(60);
/// Where QUIC comes and goes, it is tried this seldom at last.
const SELDOM: Duration = Duration::from_secs(900);
/// QUIC that has lasted for so long is no accident.
const LASTED: Duration = Duration::from_secs(300);
/// Between the two handshakes that must both get through.
const TWICE: Duration = Duration::from_secs(3);

/// How a session has fared with its returns to QUIC.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// When it went back to QUIC last.
    returned: Option<Instant>,
    /// How often in a row that did not last.
    in_vain: u32,
    now: Option<CarrierKind>,
}

impl Returns {
    /// The session goes over a carrier of this kind from now on.
    pub(super) fn carrier(&mut self, kind: CarrierKind) {
        let before = self.now.replace(kind);
        match (before, kind) {
            (Some(CarrierKind::Tls), CarrierKind::Quic) => self.returned = Some(Instant::now()),
            (_, CarrierKind::Tls) => {
                if let Some(returned) = self.returned.take() {
                    let lasted = returned.elapsed() >= LASTED;
                    self.in_vain = if lasted { 0 } else { self.in_vain.saturating_add(1) };
                }
            }
            (_, CarrierKind::Quic) => {}
        }
    }

    /// How long to wait before QUIC is tried, and at most then.
    pub(super) fn pause(&self) -> Pause {
        let times = 1 << self.in_vain.min(8);
        Pause {
            next: (FIRST * times).min(SELDOM),
            last: match self.in_vain {
                0 | 1 => LAST,
                _ => (LAST * times).min(SELDOM),
            },
        }
    }
}

/// How long to wait between two tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    next: Duration,
    last: Duration,
}

/// A connection by QUIC, for a session that goes over TLS: tried again and again, ever less often, until two handshakes in a
/// row have got through, of which the second is to be used. Never, where there is nothing to wait for.
pub(super) async fn way_back(shared: &Shared, gateways: &[GatewayAddr], pause: Option<Pause>) -> Connection {
    let Some(mut pause) = pause else {
        return std::future::pending().await;
    };
    loop {
        sleep(pause.next).await;
        pause.next = (pause.next * 2).min(pause.last);
        // As for an enrolment, with no question asked: the gateway does not take it for a session that was given up.
        let Some(first) = by_quic(shared, gateways, Alpn::Enrol).await else {
            continue;
        };
        first.close(&Refusal::new(Reason::Cancelled, "only a try"));
        sleep(TWICE).await;
        if let Some(second) = by_quic(shared, gateways, Alpn::Tunnel).await {
            return second;
        }
    }
}

async fn by_quic(shared: &Shared, gateways: &[GatewayAddr], protocol: Alpn) -> Option<Connection> {
    let tls = shared.identity.tls(protocol).ok()?;
    match shared.dialer.quic().dial(gateways, tls).await {
        Ok(connection) => Some(connection.into()),
        Err(error) => {
            debug!(%error, "QUIC does not get through yet");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quic_that_comes_and_goes_is_tried_ever_less_often_until_it_lasts() {
        let mut returns = Returns::default();
        returns.carrier(CarrierKind::Tls);
        let first = returns.pause();
        assert_eq!((first.next, first.last), (FIRST, LAST));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            returns.carrier(CarrierKind::Quic);
            sleep(Duration::from_secs(10)).await;
            returns.carrier(CarrierKind::Tls);
            // To be found on TLS again is no second failure.
            returns.carrier(CarrierKind::Tls);
            pauses.push(returns.pause());
        }
        assert!(pauses.is_sorted_by_key(|pause| pause.last), "{pauses:?}");
        assert_eq!(pauses[0].last, LAST);
        assert_eq!(pauses[7].last, SELDOM);
        returns.carrier(CarrierKind::Quic);
        sleep(LASTED).await;
        returns.carrier(CarrierKind::Tls);
        assert_eq!(returns.pause(), first);
    }
}
