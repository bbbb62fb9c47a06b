//! What the edges' side counts. No label names a node: there may be 100,000 of them.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tunnel_daemon::metrics::Metrics;
use tunnel_model::{LossCause, Reason};

/// Counters of the edges' side; clones share them.
#[derive(Debug, Clone)]
pub struct TunnelMetrics {
    /// Nodes that are connected.
    online: Gauge,
    lost: Family<ReasonLabel, Counter>,
    journaled: Family<CauseLabel, Counter>,
    ended: Family<ReasonLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    issued: Counter,
    not_issued: Family<ReasonLabel, Counter>,
    edge_streams: Family<OutcomeLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl TunnelMetrics {
    /// Registers everything; once per process.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            online: metrics.register("nodes_online", "Nodes that are connected", Gauge::default()),
            lost: metrics.register(
                "links_lost",
                "Connections of nodes that were lost while their session waited for another, by reason",
                Family::default(),
            ),
            journaled: metrics.register(
                "journaled_losses",
                "Losses of their link that nodes told of, by cause",
                Family::default(),
            ),
            ended: metrics.register("sessions_ended", "Sessions that ended, by reason", Family::default()),
            refused: metrics.register(
                "nodes_refused",
                "Nodes turned away at the door, by reason",
                Family::default(),
            ),
            issued: metrics.register("certificates_issued", "Certificates given to nodes", Counter::default()),
            not_issued: metrics.register(
                "certificates_refused",
                "Enrolments and renewals refused, by reason",
                Family::default(),
            ),
            edge_streams: metrics.register(
                "edge_streams",
                "Streams that edges opened, by outcome: ok or why they were refused",
                Family::default(),
            ),
        }
    }

    pub(super) fn edge_stream(&self, result: Result<(), Reason>) {
        let outcome = result.err().map_or("ok", Reason::as_str);
        self.edge_streams.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn journaled(&self, cause: LossCause) {
        let cause = cause.as_str();
        self.journaled.get_or_create(&CauseLabel { cause }).inc();
    }

    /// A node is connected until what is returned is dropped.
    pub(super) fn online(&self) -> Online {
        self.online.inc();
        Online(self.online.clone())
    }

    pub(super) fn link_lost(&self, reason: Reason) {
        self.lost.get_or_create(&label(reason)).inc();
    }

    pub(super) fn session_ended(&self, reason: Reason) {
        self.ended.get_or_create(&label(reason)).inc();
    }

    pub(super) fn node_refused(&self, reason: Reason) {
        self.refused.get_or_create(&label(reason)).inc();
    }

    pub(super) fn certificate(&self, result: Result<(), Reason>) {
        match result {
            Ok(()) => self.issued.inc(),
            Err(reason) => self.not_issued.get_or_create(&label(reason)).inc(),
        };
    }
}

/// One connected node in [`TunnelMetrics`].
#[derive(Debug)]
pub(super) struct Online(Gauge);

impl Drop for Online {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn label(reason: Reason) -> ReasonLabel {
    ReasonLabel {
        reason: reason.as_str(),
    }
}
