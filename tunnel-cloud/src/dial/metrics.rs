//! What dials count. No label names a user or a node.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tunnel_daemon::metrics::Metrics;
use tunnel_encoding::scrape::Served;
use tunnel_ingress::Way;
use tunnel_model::{Class, Denial, Reason};

/// Counters of dials; clones share them.
#[derive(Debug, Clone)]
pub struct DialMetrics {
    open: Family<StreamLabels, Gauge>,
    denials: Family<DenialLabel, Counter>,
    cut: Family<ReasonLabel, Counter>,
    scrapes: Family<ByLabel, Counter>,
    scraped_bytes: Family<SideLabel, Counter>,
    /// How many rules are in force.
    pub(super) rules: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    class: &'static str,
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLabel {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SideLabel {
    side: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabel {
    lacks: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl DialMetrics {
    /// Registers everything; once per process.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            open: metrics.register(
                "open_streams",
                "Streams that are open, by class and way in",
                Family::default(),
            ),
            denials: metrics.register(
                "policy_denials",
                "Dials that no rule allows, by what the nearest rules lack",
                Family::default(),
            ),
            cut: metrics.register(
                "cut_streams",
                "Streams cut by the gateway while they ran, by reason",
                Family::default(),
            ),
            scrapes: metrics.register(
                "scrapes",
                "Scrapes of services for which an edge says so, by how they were answered: a message of the edge, somebody else's answer at the same time, or as they are from there on",
                Family::default(),
            ),
            scraped_bytes: metrics.register(
                "scraped_bytes",
                "Bytes of pages that were scraped, as callers got them and as the link carried them",
                Family::default(),
            ),
            rules: metrics.register("policy_rules", "Rules that are in force", Gauge::default()),
        }
    }

    /// The streams of this class that came in this way.
    pub(super) fn open(&self, class: Class, way: Way) -> Gauge {
        let labels = StreamLabels {
            class: class.as_str(),
            way: way.as_str(),
        };
        self.open.get_or_create_owned(&labels)
    }

    pub(super) fn denied(&self, denial: Denial) {
        let lacks = match denial {
            Denial::Subject => "subject",
            Denial::Node => "node",
            Denial::Target => "target",
        };
        self.denials.get_or_create(&DenialLabel { lacks }).inc();
    }

    pub(super) fn served(&self, served: Served) {
        let (by, sides) = match served {
            Served::Scraped { body, message } => ("message", [("caller", body), ("link", message)]),
            Served::Shared(body) => ("shared", [("caller", body), ("link", 0)]),
            Served::Raw => ("raw", [("caller", 0), ("link", 0)]),
        };
        self.scrapes.get_or_create(&ByLabel { by }).inc();
        for (side, bytes) in sides {
            self.scraped_bytes
                .get_or_create(&SideLabel { side })
                .inc_by(bytes as u64);
        }
    }

    pub(super) fn cut(&self, reason: Reason) {
        let reason = reason.as_str();
        self.cut.get_or_create(&ReasonLabel { reason }).inc();
    }
}
