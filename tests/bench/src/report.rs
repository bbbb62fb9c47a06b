//! The table, and whether the bars were met.

use std::path::Path;

use anyhow::Context;

use crate::{
    back::BackFigures,
    opens::OpensFigures,
    run::{Results, Row},
    subject::Subject,
};

const ROWS: [(Row, &str); 8] = [
    (Row::OneStream, "TCP, 1 stream (Gbit/s)"),
    (Row::EightStreams, "TCP, 8 streams (Gbit/s)"),
    (Row::KeepAlive, "HTTP, keep-alive (requests/s)"),
    (Row::KeepAliveP99, "HTTP, keep-alive, p99 (ms)"),
    (Row::PerRequest, "HTTP, a connection each (requests/s)"),
    (Row::PerRequestP99, "HTTP, a connection each, p99 (ms)"),
    (Row::SmallPackets, "UDP, 64 B (packets/s delivered)"),
    (Row::LargePacketLoss, "UDP, 1200 B, 10,000/s offered: loss (%)"),
];

/// Ours against the bare relay may lose this much.
const OF_BARE: f64 = 0.9;

/// Whether less is better.
fn is_cost(row: Row) -> bool {
    matches!(row, Row::KeepAliveP99 | Row::PerRequestP99 | Row::LargePacketLoss)
}

pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn show(row: Row, value: f64) -> String {
    match row {
        Row::OneStream | Row::EightStreams => format!("{:.2}", value / 1e9),
        Row::KeepAlive | Row::PerRequest | Row::SmallPackets => format!("{value:.0}"),
        Row::KeepAliveP99 | Row::PerRequestP99 => format!("{:.1}", value * 1e3),
        Row::LargePacketLoss => format!("{value:.2}"),
    }
}

/// Medians, each with the lowest and highest sample, and ours over each peer's.
pub(crate) fn markdown(results: &Results) -> String {
    let measured = |name: &&str| results.samples.keys().any(|(_, n)| n == name);
    let subjects: Vec<_> = Subject::ALL
        .into_iter()
        .map(Subject::name)
        .filter(|n| measured(n))
        .collect();
    let mut text = format!("| median (lowest to highest) | {} |\n", subjects.join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(subjects.len()));
    for (row, title) in ROWS {
        text += &format!("| {title} |");
        let ours = results
            .samples
            .get(&(row, Subject::Ours.name()))
            .and_then(|s| median(s));
        for name in &subjects {
            let samples = results.samples.get(&(row, *name)).map_or(&[][..], Vec::as_slice);
            let Some(middle) = median(samples) else {
                text += " - |";
                continue;
            };
            let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let high = samples.iter().copied().fold(0.0, f64::max);
            text += &format!(" {} ({} to {})", show(row, middle), show(row, low), show(row, high));
            match ours {
                // Where nothing is lost there is nothing to divide by.
                Some(ours) if *name != Subject::Ours.name() && middle > 0.0 => {
                    text += &format!(" **{:.2}x** |", ours / middle)
                }
                _ => text += " |",
            }
        }
        text += "\n";
    }
    text += "\nThe bold figure is ours divided by theirs: above 1 we carry more, or, in the rows of p99 and loss, take longer or lose more.\n";
    if !results.skipped.is_empty() {
        text += &format!("\nNot installed, so not measured: {}.\n", results.skipped.join(", "));
    }
    if let Some(opens) = &results.opens {
        text += "\n| opens | measured |\n|---|---|\n";
        for (what, value) in opens.lines() {
            text += &format!("| {what} | {value} |\n");
        }
    }
    if let Some(back) = &results.back {
        text += "\n| link back | measured |\n|---|---|\n";
        for (what, value) in back.lines() {
            text += &format!("| {what} | {value} |\n");
        }
    }
    if let Some(fleet) = &results.fleet {
        text += "\n| memory and descriptors | measured |\n|---|---|\n";
        for (what, value) in fleet.lines() {
            text += &format!("| {what} | {value} |\n");
        }
    }
    text
}

/// Puts the table between the marks of that name in a file.
pub(crate) fn write_between_marks(file: &Path, mark: &str, table: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- {mark}:begin -->\n"), format!("<!-- {mark}:end -->"));
    let text = std::fs::read_to_string(file)?;
    let from = text.find(&begin).context("no mark where the table begins")? + begin.len();
    let to = text.find(&end).context("no mark where the table ends")?;
    std::fs::write(file, format!("{}{table}{}", &text[..from], &text[to..]))?;
    Ok(())
}

/// Says which bars were missed and by how much; an error if any was.
pub(crate) fn bars(results: &Results) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    for (row, title) in ROWS {
        let middle = |s: Subject| results.samples.get(&(row, s.name())).and_then(|s| median(s));
        let Some(ours) = middle(Subject::Ours) else { continue };
        let peers = [
            (Subject::Bare, OF_BARE),
            (Subject::FrpQuic, 1.0),
            (Subject::RatholeNoise, 1.0),
            (Subject::SshLocal, 1.0),
        ];
        for (peer, bar) in peers {
            let Some(theirs) = middle(peer) else { continue };
            let ratio = if is_cost(row) { theirs / ours } else { ours / theirs };
            if ratio < bar {
                missed.push(format!("{title}: {ratio:.2} of {}, the bar is {bar}", peer.name()));
            }
        }
    }
    missed.extend(results.opens.iter().flat_map(OpensFigures::missed));
    missed.extend(results.back.iter().flat_map(BackFigures::missed));
    missed.extend(results.fleet.iter().flat_map(|fleet| fleet.missed()));
    verdict(&missed)
}

/// Names the bars that were missed; an error if there are any.
pub(crate) fn verdict(missed: &[String]) -> anyhow::Result<()> {
    for miss in missed {
        eprintln!("MISSED {miss}");
    }
    anyhow::ensure!(missed.is_empty(), "{} bars were missed", missed.len());
    Ok(())
}
