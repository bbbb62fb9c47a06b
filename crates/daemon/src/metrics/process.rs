//! What the kernel says about this process, read from `/proc` at each scrape.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks per second in `/proc`: fixed at 100 in Linux's interface to user space, whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures that cannot be read (no `/proc`) are left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        if let Some(open) = open_descriptors() {
            put("process_open_fds", "Open file descriptors.", &ConstGauge::new(open))?;
        }
        if let Some(bytes) = resident_bytes() {
            put(
                "process_resident_memory_bytes",
                "Resident memory in bytes.",
                &ConstGauge::new(bytes),
            )?;
        }
        if let Some(seconds) = cpu_seconds() {
            put(
                "process_cpu_seconds",
                "Processor time used, in seconds.",
                &ConstCounter::new(seconds),
            )?;
        }
        Ok(())
    }
}

fn open_descriptors() -> Option<u64> {
    // Reading the directory takes one of the descriptors that it lists.
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may itself hold brackets and blanks; utime and stime are fields 14 and 15,
    // counted from 1, and the name is field 2.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}
