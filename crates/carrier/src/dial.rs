//! The edge's way to its gateway: QUIC, or TLS where that does not get through.

use std::{io, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::debug;
use tunnel_model::{GatewayAddr, Reason, Refusal};

use crate::{CarrierKind, Connection, quic, tls};

/// How long QUIC has for itself before TLS is tried beside it. A handshake over a link of 800 ms takes less, and what is
/// told apart from a blocked network by waiting longer is not worth the wait.
const HEAD_START: Duration = Duration::from_secs(2);
/// What it has for itself where the round trip is known, in round trips: its handshake takes one, or two with long
/// certificates. And at least.
const HEAD_START_ROUND_TRIPS: u32 = 3;
const SHORTEST_START: Duration = Duration::from_millis(250);
/// How long a last attempt by QUIC has when TLS is through, at the most: what held both up may be over, and the older attempt
/// by QUIC waits longer between two packets. It has no longer than TLS took, whose handshake has one more round trip; but at
/// least so long.
const LAST_CHANCE: Duration = Duration::from_secs(1);
const SHORTEST_CHANCE: Duration = Duration::from_millis(250);
/// Attempts by one of the two that may be under way at once; the oldest of them has had its time by then.
const MAX_ATTEMPTS: usize = 15;

/// Dials gateways both ways. Clones share the sockets.
#[derive(Debug, Clone)]
pub struct Dialer {
    quic: quic::Dialer,
    tls: tls::Dialer,
    only: Option<CarrierKind>,
}

/// How to dial.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// QUIC has not got through here lately: nothing is waited for before TLS is tried, nor for QUIC after that.
    pub blocked: bool,
    /// The round trip to the gateway, where there was a connection a moment ago: TLS is tried as soon as a handshake by QUIC
    /// would have got through.
    pub rtt: Option<Duration>,
    /// Dial anew this often, beside the attempts that may still come through.
    pub again: Option<Duration>,
}

impl Patience {
    /// How long QUIC has for itself.
    fn head_start(&self) -> Duration {
        match self.rtt {
            _ if self.blocked => Duration::ZERO,
            Some(rtt) => (rtt * HEAD_START_ROUND_TRIPS).clamp(SHORTEST_START, HEAD_START),
            None => HEAD_START,
        }
    }
}

/// How long a last attempt by QUIC has when one by TLS is through that took so long.
fn last_chance(by_tls: Duration) -> Duration {
    by_tls.clamp(SHORTEST_CHANCE, LAST_CHANCE)
}

/// Neither got through.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Who answered QUIC has turned us away, so that TLS was not tried.
    #[error("{0}")]
    Refused(quic::DialError),
    /// Nobody let us in. One that was not tried has no failures.
    #[error("{}", neither(quic, tls))]
    Neither {
        /// By QUIC.
        quic: quic::DialError,
        /// By TLS.
        tls: tls::DialError,
    },
}

impl DialError {
    /// Of both.
    pub fn of(quic: quic::DialError, tls: tls::DialError) -> Self {
        match answered(&quic.to_refusal()) {
            true => Self::Refused(quic),
            false => Self::Neither { quic, tls },
        }
    }

    /// As one refusal: that of a gateway that answered, if one did; else that none can be reached.
    pub fn to_refusal(&self) -> Refusal {
        match self {
            Self::Refused(quic) => quic.to_refusal(),
            // Whoever opens TLS on the way is no gateway whose word counts.
            Self::Neither { tls, .. } => {
                let said = tls.failures().find_map(|failure| match failure {
                    tls::Failure::Refused(refusal) if answered(refusal) => Some(refusal.clone()),
                    _ => None,
                });
                said.unwrap_or_else(|| Refusal::new(Reason::TargetUnreachable, self.to_string()))
            }
        }
    }
}

/// First what stood in the way of TLS: of UDP, little more than silence can be told.
fn neither(quic: &quic::DialError, tls: &tls::DialError) -> String {
    match (quic, tls) {
        (quic::DialError::Connect(untried), tls) if untried.is_empty() => {
            return format!("no gateway can be reached by TLS: {}", by_tls(tls));
        }
        (quic, tls::DialError::Connect(untried)) if untried.is_empty() => {
            return format!("no gateway can be reached by QUIC: {}", by_quic(quic));
        }
        _ => {}
    }
    if let (quic::DialError::Resolve(_), tls::DialError::Resolve(_)) = (quic, tls) {
        return quic.to_string();
    }
    let (by_quic, by_tls) = (by_quic(quic), by_tls(tls));
    format!("no gateway can be reached by TLS: {by_tls}; nor by QUIC: {by_quic}")
}

fn by_quic(error: &quic::DialError) -> String {
    match error {
        quic::DialError::Resolve(_) => error.to_string(),
        quic::DialError::Connect(failures) => {
            let failures: Vec<_> = failures.iter().map(|(to, why)| (to, &why.message)).collect();
            quic::join(&failures)
        }
    }
}

fn by_tls(error: &tls::DialError) -> String {
    match error {
        tls::DialError::Resolve(_) => error.to_string(),
        tls::DialError::Connect(failures) => quic::join(failures),
    }
}

/// What an attempt has come to.
enum Attempt {
    Quic(Result<quinn::Connection, quic::DialError>),
    /// And how long it took.
    Tls(Result<tls::Connection, tls::DialError>, Duration),
}

/// What happens in a race.
enum Event {
    /// An attempt has come to its end, unless it was ended with its runtime.
    Ended(Option<Attempt>),
    /// QUIC has had its last chance.
    TakeSpare,
    StartTls,
    Again,
}

impl Dialer {
    /// Dials from this UDP port, 0 for any, and goes over TLS through these proxies. Needs a tokio runtime.
    pub fn bind(port: u16, proxies: tls::Proxies) -> io::Result<Self> {
        Ok(Self {
            quic: quic::Dialer::bind(port, quic::Limits::edge())?,
            tls: tls::Dialer::new(tls::Limits::edge(), proxies),
            only: None,
        })
    }

    /// The same, and [`dial`](Self::dial) goes one way only, where one is named.
    #[must_use]
    pub fn only(self, only: Option<CarrierKind>) -> Self {
        Self { only, ..self }
    }

    /// Whether [`dial`](Self::dial) may go this way.
    pub fn may_go_by(&self, kind: CarrierKind) -> bool {
        self.only.is_none_or(|only| only == kind)
    }

    /// The way by QUIC alone.
    pub fn quic(&self) -> &quic::Dialer {
        &self.quic
    }

    /// The way by TLS alone.
    pub fn tls(&self) -> &tls::Dialer {
        &self.tls
    }

    /// Dials by QUIC, a little later by TLS as well, and takes what is through first; QUIC, where both are. Or one of them
    /// [only](Self::only).
    ///
    /// # Errors
    /// None got through.
    pub async fn dial(
        &self,
        gateways: &[GatewayAddr],
        config: &rustls::ClientConfig,
        patience: Patience,
    ) -> Result<Connection, DialError> {
        let mut race = Race {
            dialer: self,
            gateways,
            config,
            running: JoinSet::new(),
            by_quic: 0,
            by_tls: 0,
            no_quic: None,
            no_tls: None,
        };
        race.run(patience).await
    }

    /// Waits until every connection has said its farewell.
    pub async fn wait_idle(&self) {
        self.quic.wait_idle().await;
        self.tls.wait_idle().await;
    }
}

struct Race<'a> {
    dialer: &'a Dialer,
    gateways: &'a [GatewayAddr],
    config: &'a rustls::ClientConfig,
    running: JoinSet<Attempt>,
    by_quic: usize,
    by_tls: usize,
    no_quic: Option<quic::DialError>,
    no_tls: Option<tls::DialError>,
}

impl Race<'_> {
    async fn run(&mut self, patience: Patience) -> Result<Connection, DialError> {
        let start = Instant::now();
        let (quic, tls) = (
            self.dialer.may_go_by(CarrierKind::Quic),
            self.dialer.may_go_by(CarrierKind::Tls),
        );
        let mut tls_from = tls.then(|| match quic {
            true => start + patience.head_start(),
            false => start,
        });
        // What is not to be tried is not waited for.
        self.no_quic = (!quic).then(|| quic::DialError::Connect(Vec::new()));
        self.no_tls = (!tls).then(|| tls::DialError::Connect(Vec::new()));
        let mut again = patience.again.map(|every| start + every);
        // What is taken if QUIC does not come through until then.
        let mut spare: Option<(tls::Connection, Instant)> = None;
        self.start_quic();
        loop {
            // Of those that are under way none could do better; and whoever dials again says what stood in the way.
            if spare.is_none() && self.no_quic.is_some() && self.no_tls.is_some() {
                return Err(self.neither());
            }
            if self.running.is_empty() && tls_from.is_none() {
                return match spare {
                    Some((connection, _)) => Ok(connection.into()),
                    None => Err(self.neither()),
                };
            }
            let spare_due = spare.as_ref().map(|(_, due)| *due);
            let event = tokio::select! {
                Some(ended) = self.running.join_next() => Event::Ended(ended.ok()),
                () = at(spare_due) => Event::TakeSpare,
                () = at(tls_from) => Event::StartTls,
                () = at(again) => Event::Again,
            };
            match event {
                Event::Ended(Some(Attempt::Quic(Ok(connection)))) => return Ok(connection.into()),
                Event::Ended(Some(Attempt::Quic(Err(error)))) => {
                    if answered(&error.to_refusal()) {
                        return Err(DialError::Refused(error));
                    }
                    self.by_quic -= 1;
                    self.no_quic = Some(error);
                    // It has nothing more to be ahead of.
                    if self.by_quic == 0 && tls_from.is_some() {
                        tls_from = Some(Instant::now());
                    }
                }
                Event::Ended(Some(Attempt::Tls(Ok(connection), took))) => {
                    if patience.blocked || !quic {
                        return Ok(connection.into());
                    }
                    self.by_tls -= 1;
                    if spare.is_none() {
                        spare = Some((connection, Instant::now() + last_chance(took)));
                        self.start_quic();
                    }
                }
                Event::Ended(Some(Attempt::Tls(Err(error), _))) => {
                    debug!(%error, "no way by TLS");
                    self.by_tls -= 1;
                    self.no_tls = Some(error);
                }
                Event::Ended(None) => {}
                Event::TakeSpare => {
                    if let Some((connection, _)) = spare.take() {
                        return Ok(connection.into());
                    }
                }
                Event::StartTls => {
                    tls_from = None;
                    self.start_tls();
                }
                Event::Again => {
                    again = again.zip(patience.again).map(|(last, every)| last + every);
                    // Those that fail make room for others.
                    self.start_quic();
                    if tls_from.is_none() {
                        self.start_tls();
                    }
                }
            }
        }
    }

    fn neither(&mut self) -> DialError {
        let nobody = || {
            (
                quic::DialError::Connect(Vec::new()),
                tls::DialError::Connect(Vec::new()),
            )
        };
        DialError::Neither {
            quic: self.no_quic.take().unwrap_or_else(|| nobody().0),
            tls: self.no_tls.take().unwrap_or_else(|| nobody().1),
        }
    }

    fn start_quic(&mut self) {
        if self.by_quic < MAX_ATTEMPTS && self.dialer.may_go_by(CarrierKind::Quic) {
            self.by_quic += 1;
            let (dialer, gateways, config) = (self.dialer.quic.clone(), self.gateways.to_vec(), self.config.clone());
            self.running
                .spawn(async move { Attempt::Quic(dialer.dial(&gateways, config).await) });
        }
    }

    fn start_tls(&mut self) {
        if self.by_tls < MAX_ATTEMPTS && self.dialer.may_go_by(CarrierKind::Tls) {
            self.by_tls += 1;
            let (dialer, gateways, config) = (self.dialer.tls.clone(), self.gateways.to_vec(), self.config.clone());
            self.running.spawn(async move {
                let begin = Instant::now();
                let dialled = dialer.dial(&gateways, config).await;
                Attempt::Tls(dialled, begin.elapsed())
            });
        }
    }
}

/// Whether somebody has said this, rather than nobody anything.
fn answered(refusal: &Refusal) -> bool {
    !matches!(
        refusal.reason,
        Reason::TargetUnreachable | Reason::CarrierLost | Reason::IdleTimeout
    )
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl From<DialError> for Refusal {
    fn from(error: DialError) -> Self {
        error.to_refusal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quic_is_ahead_for_as_long_as_its_handshake_may_take() {
        let ahead = |blocked, rtt_ms: Option<u64>| {
            let patience = Patience {
                blocked,
                rtt: rtt_ms.map(Duration::from_millis),
                again: None,
            };
            patience.head_start()
        };
        assert_eq!(ahead(false, None), HEAD_START);
        assert_eq!(ahead(false, Some(1)), SHORTEST_START);
        assert_eq!(ahead(false, Some(200)), Duration::from_millis(600));
        assert_eq!(ahead(false, Some(5000)), HEAD_START);
        assert_eq!(ahead(true, None), Duration::ZERO);
        assert_eq!(ahead(true, Some(200)), Duration::ZERO);
    }

    #[test]
    fn its_last_chance_is_as_long_as_tls_took_within_bounds() {
        assert_eq!(last_chance(Duration::from_millis(3)), SHORTEST_CHANCE);
        assert_eq!(last_chance(Duration::from_millis(400)), Duration::from_millis(400));
        // Of an attempt that began before the link came back.
        assert_eq!(last_chance(Duration::from_secs(7)), LAST_CHANCE);
    }
}
