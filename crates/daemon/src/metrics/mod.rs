//! Prometheus metrics: one registry per process, with the process's own figures in it.
//!
//! Cardinality is bounded by construction: labels are for small closed sets (a listener, a stream class, a reason
//! code), never for node names, addresses or paths.

mod process;

pub(crate) use process::resident_bytes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text::encode_eof;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    own: Arc<Mutex<Registry>>,
    process: Arc<Registry>,
}

impl Metrics {
    /// A registry whose metrics start with a prefix such as `tunnel_cloud` and an underscore. Beside them it holds the `process_*`
    /// figures, named as Prometheus clients name them everywhere.
    pub fn new(prefix: &str) -> Self {
        let mut process = Registry::default();
        process.register_collector(Box::new(process::ProcessCollector));
        Self {
            own: Arc::new(Mutex::new(Registry::with_prefix(prefix))),
            process: Arc::new(process),
        }
    }

    /// Registers a metric and hands it back to be counted with; its clones share the value.
    ///
    /// The help text has no full stop, and a counter's name no `_total`: both are added.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.lock().register(name, help, metric.clone());
        metric
    }

    /// Registers `build_info{version="…"}`.
    pub fn register_build(&self, version: &'static str) {
        self.lock()
            .register("build", "The build that is running", Info::new([("version", version)]));
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Where a metric cannot be encoded, which is a mistake in its registration.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.lock())?;
        encode_registry(&mut text, &self.process)?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Metrics hold no invariant between two calls: what a panicking thread left is as good as before.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn metrics_carry_the_prefix_and_process_figures_their_usual_names() {
        let metrics = Metrics::new("tunnel_test");
        metrics.register_build("1.2.3");
        let joins: Counter = metrics.register("joins", "Nodes that joined", Counter::default());
        joins.inc_by(3);

        let text = metrics.encode().unwrap();
        assert!(text.contains("# HELP tunnel_test_joins Nodes that joined.\n"), "{text}");
        assert!(text.contains("\ntunnel_test_joins_total 3\n"), "{text}");
        assert!(
            text.contains("\ntunnel_test_build_info{version=\"1.2.3\"} 1\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
        for name in [
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
        ] {
            let line = text.lines().find(|line| line.starts_with(name));
            let value: f64 = line.and_then(|line| line.split_once(' ')).unwrap().1.parse().unwrap();
            assert!(
                value >= 0.0 && (name.starts_with("process_cpu") || value > 0.0),
                "{name} {value}"
            );
        }
    }
}
