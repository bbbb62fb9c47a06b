//! `audit`: the audit log, read from its files whether a gateway runs or not.

use std::{io, path::Path, thread, time::Duration};

use serde_json::Value;
use tunnel_daemon::{
    error::{CliError, Exit},
    output::{self, OutputFormat, Table},
};

use super::{AuditCommand, args::VerifyArgs};
use crate::{
    audit::{
        tail::Tail,
        verify::{Report, verify, verify_dir},
    },
    config::Config,
};

/// How often a follower looks for new records.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn run(command: AuditCommand, config: &Config, format: OutputFormat) -> Result<(), CliError> {
    let dir = &config.audit.path;
    match command {
        AuditCommand::Tail { number, follow } => show(dir, number, follow, format),
        AuditCommand::Verify(args) => check(dir, &args, format),
    }
}

fn show(dir: &Path, number: usize, follow: bool, format: OutputFormat) -> Result<(), CliError> {
    let (mut tail, lines) = Tail::open(dir, number).map_err(|error| unreadable(dir, &error))?;
    let mut is_headed = print(&lines, format, true)?;
    if !follow {
        return Ok(());
    }
    loop {
        thread::sleep(LOOK);
        let lines = tail.more().map_err(|error| unreadable(dir, &error))?;
        is_headed |= print(&lines, format, !is_headed)?;
    }
}

/// Prints records as they stand in the file, or a row for each; false if there are none.
fn print(lines: &[String], format: OutputFormat, with_headings: bool) -> Result<bool, CliError> {
    if lines.is_empty() {
        return Ok(false);
    }
    match format {
        OutputFormat::Json => lines.iter().try_for_each(|line| output::data(line))?,
        OutputFormat::Table => {
            let mut table = Table::new(["time", "event", "who", "what", "result", "more"]);
            for line in lines {
                let record = serde_json::from_str(line).unwrap_or(Value::Null);
                table.row(row(&record).each_ref().map(String::as_str));
            }
            let text = table.render();
            let rows = text.split_once('\n').map_or("", |(_, rows)| rows);
            output::data(if with_headings { &text } else { rows })?;
        }
    }
    Ok(true)
}

fn row(record: &Value) -> [String; 6] {
    let text = |key: &str| match &record[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let first = |keys: &[&str]| {
        keys.iter()
            .map(|key| text(key))
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    };
    let who = match text("uid") {
        uid if uid.is_empty() => first(&["principal", "client"]),
        uid => format!("uid:{uid}"),
    };
    let what = match (text("node"), text("target")) {
        (node, target) if !target.is_empty() => format!("{node}:{target}"),
        (node, _) if !node.is_empty() => node,
        _ => match text("act") {
            act if act.is_empty() => first(&["token", "moved_to"]),
            act => format!("{act} {}", text("object")),
        },
    };
    let more = match record["bytes_to_target"]
        .as_u64()
        .zip(record["bytes_to_caller"].as_u64())
    {
        Some((there, back)) => format!("{there} B there, {back} B back, {} ms", text("duration_ms")),
        None => first(&["detail", "way", "serial", "version"]),
    };
    let event = match text("event") {
        event if event.is_empty() => "unreadable".to_owned(),
        event => event,
    };
    [
        text("time"),
        event,
        who,
        what.trim_end().to_owned(),
        first(&["result", "reason"]),
        more,
    ]
}

fn check(dir: &Path, args: &VerifyArgs, format: OutputFormat) -> Result<(), CliError> {
    let report = if args.files.is_empty() {
        verify_dir(dir, args.expect)
    } else {
        verify(&args.files, args.expect)
    };
    let report = report.map_err(|error| unreadable(dir, &error))?;
    match format {
        OutputFormat::Json => output::data(&output::to_json(&report)?)?,
        OutputFormat::Table => output::data(&plain(&report))?,
    }
    match u64::try_from(report.findings.len())
        .unwrap_or(u64::MAX)
        .saturating_add(report.more)
    {
        0 => Ok(()),
        count => Err(CliError::new(
            Exit::Findings,
            "audit-findings",
            format!("the audit log is not as it was written: {count} findings"),
        )
        .with_hint("keep a copy of the files before anything else is done with them")),
    }
}

fn plain(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if report.more > 0 {
        lines.push(format!("and {} more", report.more));
    }
    lines.push(match (report.first, report.last, report.head) {
        (Some(first), Some(last), Some(head)) => {
            format!("{} records, {first} to {last}; head {head}", report.records)
        }
        _ => "no records".to_owned(),
    });
    lines.join("\n")
}

fn unreadable(dir: &Path, error: &io::Error) -> CliError {
    CliError::new(
        Exit::Failure,
        "audit-read",
        format!("the audit log in {dir:?} cannot be read: {error}"),
    )
    .with_hint("run as the user that owns the state directory; a log is there once the gateway has run")
}
