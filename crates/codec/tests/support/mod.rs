//! Bodies for tests: real ones that are committed, and made ones.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers are small, or meant to be cut"
)]

use std::fmt::Write as _;
use std::path::Path;

/// The bodies of `tests/bodies/NAME.zst`, in the order in which they were scraped.
pub(crate) fn bodies(name: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bodies/{name}.zst"));
    let packed = std::fs::read(file).unwrap();
    let mut all = Vec::with_capacity(4 << 20);
    zstd_safe::decompress(&mut all, &packed).unwrap();
    all.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

/// A source of numbers that look random and are the same in every run.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next() as u8).take(len).collect()
    }
}

/// Bodies such as cadvisor's: a few lines for each of many containers that come and go, each with the time in ms.
pub(crate) fn containers(scrapes: usize) -> Vec<Vec<u8>> {
    let mut noise = Noise(1);
    let mut next_id = 0;
    let mut new = |noise: &mut Noise| {
        next_id += 1;
        let id = format!("{:016x}{:016x}", noise.next() << 16, noise.next() << 16);
        (next_id, id, noise.below(1 << 40), noise.below(1 << 20) * 4096)
    };
    let mut alive: Vec<_> = (0..40).map(|_| new(&mut noise)).collect();
    let mut bodies = Vec::new();
    for scrape in 0..scrapes as u64 {
        if scrape % 4 == 3 {
            let gone = noise.below(alive.len() as u64) as usize;
            alive.remove(gone);
            alive.push(new(&mut noise));
        }
        let now = 1_790_000_000_000 + 15_000 * scrape + noise.below(40);
        for (_, _, cpu, memory) in &mut alive {
            *cpu += noise.below(1 << 31);
            *memory += noise.below(64) * 4096;
        }
        let mut body = String::new();
        for (name, kind) in [
            ("container_cpu_usage_seconds_total", "counter"),
            ("container_memory_working_set_bytes", "gauge"),
            ("container_network_receive_bytes_total", "counter"),
            ("container_last_seen", "gauge"),
        ] {
            writeln!(body, "# HELP {name} What {name} says.\n# TYPE {name} {kind}").unwrap();
            for (number, id, cpu, memory) in &alive {
                let value = match name {
                    "container_cpu_usage_seconds_total" => {
                        format!("{}.{:09}", cpu / 1_000_000_000, cpu % 1_000_000_000)
                    }
                    "container_memory_working_set_bytes" => format!("{memory}"),
                    "container_last_seen" => format!("{}", now / 1000),
                    _ => "0".to_owned(),
                };
                writeln!(
                    body,
                    "{name}{{container=\"app\",id=\"/kubepods/burstable/{id}\",namespace=\"shop\",pod=\"web-{number}\"}} {value} {now}"
                )
                .unwrap();
            }
        }
        bodies.push(body.into_bytes());
    }
    bodies
}

/// Bodies with histograms in OpenMetrics, with the exemplar of a trace here and there.
pub(crate) fn histograms(scrapes: usize) -> Vec<Vec<u8>> {
    let mut noise = Noise(2);
    let mut counts = vec![[0_u64; 9]; 20];
    let mut sums = [0.0_f64; 20];
    let mut exemplars = vec![(String::from("00"), 0.0); 20];
    let mut bodies = Vec::new();
    for scrape in 0..scrapes {
        let mut body = String::from("# HELP rpc_seconds How long.\n# TYPE rpc_seconds histogram\n");
        for handler in 0..20 {
            for _ in 0..noise.below(50) {
                let bucket = noise.below(9) as usize;
                counts[handler][bucket..].iter_mut().for_each(|count| *count += 1);
                let seconds = noise.below(100_000) as f64 / 1e6;
                sums[handler] += seconds;
                if noise.below(100) == 0 {
                    exemplars[handler] = (format!("{:016x}", noise.next()), seconds);
                }
            }
            for (bucket, count) in counts[handler].iter().enumerate() {
                let le = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "+Inf"][bucket];
                write!(body, "rpc_seconds_bucket{{handler=\"h{handler}\",le=\"{le}\"}} {count}").unwrap();
                if bucket == 3 {
                    let (trace, seconds) = &exemplars[handler];
                    let at = 1.79e9 + scrape as f64 * 15.0;
                    write!(body, " # {{trace_id=\"{trace}\"}} {seconds} {at:.3}").unwrap();
                }
                body.push('\n');
            }
            writeln!(
                body,
                "rpc_seconds_count{{handler=\"h{handler}\"}} {}",
                counts[handler][8]
            )
            .unwrap();
            writeln!(body, "rpc_seconds_sum{{handler=\"h{handler}\"}} {:?}", sums[handler]).unwrap();
        }
        body.push_str("# EOF\n");
        bodies.push(body.into_bytes());
    }
    bodies
}
