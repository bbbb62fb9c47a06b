//! What the ways in count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tunnel_daemon::metrics::Metrics;
use tunnel_model::Reason;

/// How a stream was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// HTTP CONNECT.
    Connect,
    /// A plain HTTP request, proxied.
    Plain,
    /// A plain HTTP request that became something else, such as a WebSocket.
    Upgrade,
    /// SOCKS5.
    Socks5,
    /// A plain HTTP request to a port where `Host` decides.
    Host,
    /// TLS, by its server name.
    Sni,
    /// A port that always leads to the same target.
    Forward,
    /// A stream that an edge opened.
    Edge,
    /// An administrator's `explain`.
    Explain,
}

impl Way {
    /// The way as it stands in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Plain => "plain",
            Self::Upgrade => "upgrade",
            Self::Socks5 => "socks5",
            Self::Host => "host",
            Self::Sni => "sni",
            Self::Forward => "forward",
            Self::Edge => "edge",
            Self::Explain => "explain",
        }
    }
}

/// Counters of the ways in; clones share them. Connections are counted by whoever accepts them.
#[derive(Debug, Clone)]
pub struct IngressMetrics {
    requests: Family<WayLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    turned_away: Counter,
    dropped_packets: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabel {
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl IngressMetrics {
    /// Registers `proxy_requests`, `proxy_refusals` and `proxy_turned_away`; once per process.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.register(
                "proxy_requests",
                "Tunnels opened and requests answered by their targets, by way in",
                Family::default(),
            ),
            refusals: metrics.register("proxy_refusals", "Requests refused, by reason", Family::default()),
            turned_away: metrics.register(
                "proxy_turned_away",
                "Connections reset at once because their address had too many",
                Counter::default(),
            ),
            dropped_packets: Counter::default(),
        }
    }

    /// Registers `forward_dropped_packets` too, for those who forward packets.
    #[must_use]
    pub fn with_packets(self, metrics: &Metrics) -> Self {
        let dropped_packets = metrics.register(
            "forward_dropped_packets",
            "Packets of UDP forwards dropped for want of room",
            self.dropped_packets.clone(),
        );
        Self {
            dropped_packets,
            ..self
        }
    }

    /// Tunnels opened, or requests answered by their targets, in this way.
    pub fn requests(&self, way: Way) -> u64 {
        self.requests.get_or_create(&WayLabel { way: way.as_str() }).get()
    }

    /// Requests refused for this reason.
    pub fn refusals(&self, reason: Reason) -> u64 {
        let label = ReasonLabel {
            reason: reason.as_str(),
        };
        self.refusals.get_or_create(&label).get()
    }

    pub(super) fn granted(&self, way: Way) {
        self.requests.get_or_create(&WayLabel { way: way.as_str() }).inc();
    }

    pub(super) fn refused(&self, reason: Reason) {
        let label = ReasonLabel {
            reason: reason.as_str(),
        };
        self.refusals.get_or_create(&label).inc();
    }

    pub(super) fn packet_dropped(&self) {
        self.dropped_packets.inc();
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.inc();
    }
}
