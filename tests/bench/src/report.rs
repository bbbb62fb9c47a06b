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

/// Ours against a peer, and the least that it may come to.
const BARS: [(Subject, Subject, f64); 5] = [
    (Subject::Ours, Subject::Bare, 0.9),
    (Subject::Ours, Subject::FrpQuic, 1.0),
    (Subject::Ours, Subject::RatholeNoise, 1.0),
    (Subject::Ours, Subject::SshLocal, 1.0),
    (Subject::OursTls, Subject::FrpTls, 1.0),
];

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

/// What stands beside the tunnel as it is.
const SUBJECTS: [Subject; 8] = [
    Subject::Ours,
    Subject::OursByName,
    Subject::Bare,
    Subject::FrpQuic,
    Subject::FrpTls,
    Subject::RatholeNoise,
    Subject::SshReverse,
    Subject::SshLocal,
];
/// What stands beside the tunnel where UDP does not get through.
const OVER_TLS: [Subject; 3] = [Subject::OursTls, Subject::FrpTls, Subject::RatholeTls];

/// Medians, each with the lowest and highest sample, and ours over each peer's.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = table(results, "median (lowest to highest)", &SUBJECTS, &ROWS);
    text += "\nThe bold figure is ours divided by theirs: above 1 we carry more, or, in the rows of p99 and loss, take longer or lose more.\n";
    if results.samples.keys().any(|(_, name)| *name == Subject::OursTls.name()) {
        text += "\n";
        text += &table(results, "over TLS", &OVER_TLS, &ROWS[..6]);
    }
    if !results.skipped.is_empty() {
        text += &format!(
            "\nNot installed, or built without it, so not measured: {}.\n",
            results.skipped.join(", ")
        );
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

/// A column for each subject that was measured; the first is ours.
fn table(results: &Results, title: &str, subjects: &[Subject], rows: &[(Row, &str)]) -> String {
    let measured = |name: &&str| results.samples.keys().any(|(_, n)| n == name);
    let first = subjects.first().map(|subject| subject.name());
    let subjects: Vec<_> = subjects.iter().map(|subject| subject.name()).filter(measured).collect();
    let mut text = format!("| {title} | {} |\n", subjects.join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(subjects.len()));
    for (row, title) in rows {
        let of = |name| results.samples.get(&(*row, name)).map_or(&[][..], Vec::as_slice);
        let ours = first.and_then(|first| median(of(first)));
        text += &format!("| {title} |");
        for name in &subjects {
            let samples = of(name);
            let Some(middle) = median(samples) else {
                text += " - |";
                continue;
            };
            let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let high = samples.iter().copied().fold(0.0, f64::max);
            let (middle_said, low, high) = (show(*row, middle), show(*row, low), show(*row, high));
            text += &format!(" {middle_said} ({low} to {high})");
            match ours {
                // Where nothing is lost there is nothing to divide by.
                Some(ours) if Some(*name) != first && middle > 0.0 => text += &format!(" **{:.2}x** |", ours / middle),
                _ => text += " |",
            }
        }
        text += "\n";
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
        for (ours, peer, bar) in BARS {
            let Some((mine, theirs)) = middle(ours).zip(middle(peer)) else {
                continue;
            };
            let ratio = if is_cost(row) { theirs / mine } else { mine / theirs };
            if ratio < bar {
                missed.push(format!(
                    "{title}: {} is {ratio:.2} of {}, the bar is {bar}",
                    ours.name(),
                    peer.name()
                ));
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
