//! What the audit log counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tunnel_daemon::metrics::Metrics;

use super::outputs::AuditOutput;

/// Counters of the audit log; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct AuditMetrics {
    pub(super) records: Counter,
    pub(super) writable: Gauge,
    pub(super) lost: Counter,
    pub(super) suppressed: Counter,
    copies_lost: Family<OutputLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutputLabel {
    output: &'static str,
}

impl AuditMetrics {
    /// Shows them; once per process.
    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register(
            "audit_records",
            "Records written to the audit log",
            self.records.clone(),
        );
        metrics.register(
            "audit_writable",
            "Whether the audit log can be written",
            self.writable.clone(),
        );
        metrics.register(
            "audit_records_lost",
            "Records that could be neither written nor kept until they can",
            self.lost.clone(),
        );
        metrics.register(
            "audit_refusals_suppressed",
            "Refusals that were counted in a record instead of getting one each",
            self.suppressed.clone(),
        );
        metrics.register(
            "audit_copies_lost",
            "Records that could not be sent to an output beside the file",
            self.copies_lost.clone(),
        );
    }

    pub(super) fn copy_lost(&self, output: AuditOutput) {
        let label = OutputLabel {
            output: output.as_str(),
        };
        self.copies_lost.get_or_create(&label).inc();
    }
}
