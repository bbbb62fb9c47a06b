//! The table, and whether the bars were met.

use super::{Row, SUBJECTS, Samples};
use crate::{
    report::{median, verdict},
    subject::Subject,
};

const ROWS: [(Row, &str); 7] = [
    (Row::EchoP50, "60 ms, full both ways: echo of a byte, p50 (ms)"),
    (Row::EchoP90, "60 ms, full both ways: echo of a byte, p90 (ms)"),
    (Row::EchoP99, "60 ms, full both ways: echo of a byte, p99 (ms)"),
    (Row::Down, "the download meanwhile (% of the link)"),
    (Row::Up, "the upload meanwhile (% of the link)"),
    (Row::Far, "800 ms: a download alone (% of the link)"),
    (Row::Lossy, "800 ms, 2 % loss: a download alone (% of the link)"),
];

/// What a row may cost at most, or must bring at least.
enum Bar {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Row {
    fn bar(self) -> Bar {
        match self {
            Self::EchoP50 | Self::EchoP90 => Bar::None,
            // The round trip and 20 ms.
            Self::EchoP99 => Bar::AtMost(0.080),
            Self::Down | Self::Up | Self::Far => Bar::AtLeast(0.9),
            Self::Lossy => Bar::AtLeast(0.6),
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::EchoP50 | Self::EchoP90 | Self::EchoP99 => format!("{:.0}", value * 1e3),
            _ => format!("{:.1}", value * 1e2),
        }
    }
}

/// Medians, each with the lowest and highest sample.
pub(super) fn markdown(samples: &Samples, skipped: &[&str]) -> String {
    let measured: Vec<_> = SUBJECTS
        .into_iter()
        .map(Subject::name)
        .filter(|name| samples.keys().any(|(_, measured)| measured == name))
        .collect();
    let mut text = format!("| 3 Mbit/s, 64 KB queue | {} |\n", measured.join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(measured.len()));
    for (row, title) in ROWS {
        text += &format!("| {title} |");
        for name in &measured {
            let of_subject = samples.get(&(row, *name)).map_or(&[][..], Vec::as_slice);
            text += &match median(of_subject) {
                Some(middle) => {
                    let low = of_subject.iter().copied().fold(f64::INFINITY, f64::min);
                    let high = of_subject.iter().copied().fold(0.0, f64::max);
                    format!(" {} ({} to {}) |", row.show(middle), row.show(low), row.show(high))
                }
                None => " - |".to_owned(),
            };
        }
        text += "\n";
    }
    if !skipped.is_empty() {
        text += &format!("\nNot installed, so not measured: {}.\n", skipped.join(", "));
    }
    text
}

/// Says which bars the tunnel missed where it is told what the link carries; an error if any.
pub(super) fn bars(samples: &Samples) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    for (row, title) in ROWS {
        let Some(ours) = samples.get(&(row, Subject::OursTold.name())).and_then(|s| median(s)) else {
            continue;
        };
        let (met, bar) = match row.bar() {
            Bar::AtMost(bar) => (ours <= bar, bar),
            Bar::AtLeast(bar) => (ours >= bar, bar),
            Bar::None => continue,
        };
        if !met {
            missed.push(format!("{title}: {}, the bar is {}", row.show(ours), row.show(bar)));
        }
    }
    verdict(&missed)
}
