//! The agent's figures. Labels are reason codes and directions, so that their number is bounded.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use tunnel_carrier::Relayed;
use tunnel_daemon::metrics::Metrics;
use tunnel_model::{LossCause, Reason};

/// Lengths of sessions, in seconds: one that flaps, one that a NAT drops, one that lasts.
const SESSION_BUCKETS: [f64; 6] = [1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0];

/// What an agent counts. Clones share the values.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    connected: Gauge,
    session_seconds: Histogram,
    reconnects: Family<ByReason, Counter>,
    link_losses: Family<ByCause, Counter>,
    rtt_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    streams: Counter,
    open_streams: Gauge,
    refused_streams: Family<ByReason, Counter>,
    stream_bytes: Family<ByDirection, Counter>,
    went_out: Family<ByReason, Counter>,
    renewals: Family<ByReason, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

impl EdgeMetrics {
    /// Registers them all; once per registry.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            connected: metrics.register("connected", "Whether the gateway answers, 1 or 0", Gauge::default()),
            session_seconds: metrics.register(
                "session_seconds",
                "How long sessions lasted that have ended",
                Histogram::new(SESSION_BUCKETS),
            ),
            reconnects: metrics.register(
                "reconnects",
                "Sessions and attempts that ended, by reason",
                Family::default(),
            ),
            link_losses: metrics.register(
                "link_losses",
                "Times without a link that are over, by cause",
                Family::default(),
            ),
            rtt_seconds: metrics.register("rtt_seconds", "The last round trip to the gateway", Gauge::default()),
            streams: metrics.register("streams", "Streams that reached their target", Counter::default()),
            open_streams: metrics.register("open_streams", "Streams that are open", Gauge::default()),
            refused_streams: metrics.register("refused_streams", "Streams refused, by reason", Family::default()),
            stream_bytes: metrics.register(
                "stream_bytes",
                "Bytes of streams that have ended, out of this machine and in",
                Family::default(),
            ),
            went_out: metrics.register(
                "outbound_streams",
                "Connections of local clients to services beyond the gateway, by reason: ok or why they were reset",
                Family::default(),
            ),
            renewals: metrics.register("renewals", "Certificate renewals, by outcome", Family::default()),
        }
    }

    pub(crate) fn pong(&self, rtt: Duration) {
        self.connected.set(1);
        self.rtt_seconds.set(rtt.as_secs_f64());
    }

    /// A session ended; `None` if it never came to a round trip.
    pub(crate) fn session_ended(&self, lasted: Option<Duration>, why: Reason) {
        self.connected.set(0);
        if let Some(lasted) = lasted {
            self.session_seconds.observe(lasted.as_secs_f64());
        }
        self.reconnects.get_or_create_owned(&by(why)).inc();
    }

    /// There is a link again.
    pub(crate) fn link_back(&self, cause: LossCause) {
        let cause = cause.as_str();
        self.link_losses.get_or_create_owned(&ByCause { cause }).inc();
    }

    pub(crate) fn refused(&self, why: Reason) {
        self.refused_streams.get_or_create_owned(&by(why)).inc();
    }

    /// A stream reached its target; it counts as open until the guard is dropped.
    pub(crate) fn stream_opened(&self) -> OpenStream {
        self.streams.inc();
        self.open_streams.inc();
        OpenStream(self.open_streams.clone())
    }

    /// A local client asked for a service beyond the gateway.
    pub(crate) fn went_out(&self, outcome: Result<(), Reason>) {
        self.went_out.get_or_create_owned(&outcome_of(outcome)).inc();
    }

    pub(crate) fn relayed(&self, relayed: &Relayed) {
        self.carried(relayed.sent, relayed.received);
    }

    /// A stream has ended that carried so many bytes out of this machine and in.
    pub(crate) fn carried(&self, sent: u64, received: u64) {
        for (direction, bytes) in [("out", sent), ("in", received)] {
            self.stream_bytes
                .get_or_create_owned(&ByDirection { direction })
                .inc_by(bytes);
        }
    }

    pub(crate) fn renewed(&self, outcome: Result<(), Reason>) {
        self.renewals.get_or_create_owned(&outcome_of(outcome)).inc();
    }
}

/// One open stream in [`EdgeMetrics`].
#[derive(Debug)]
pub(crate) struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn outcome_of(outcome: Result<(), Reason>) -> ByReason {
    outcome.map_or_else(by, |()| ByReason { reason: "ok" })
}

fn by(reason: Reason) -> ByReason {
    ByReason {
        reason: reason.as_str(),
    }
}
