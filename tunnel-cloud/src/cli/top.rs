//! `top`: what passes, by node, class and principal.

use std::{
    collections::{BTreeMap, HashMap},
    io::IsTerminal,
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep};
use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat, Table},
};

use super::gateway::Gateway;
use crate::admin::api::{StreamList, StreamState, StreamView};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How many of each kind are shown to a person, the busiest first.
const SHOWN: usize = 10;
/// Clears a terminal and goes to its upper left corner (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What passed between two looks.
#[derive(Debug, Serialize)]
struct Sample {
    /// Streams that are open.
    streams: usize,
    /// How many of them wait for their node to connect again.
    waiting: usize,
    /// The busiest first.
    rows: Vec<Row>,
}

/// The streams that have one thing in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    /// What kind of thing: `node`, `class` or `principal`.
    by: &'static str,
    name: String,
    streams: usize,
    waiting: usize,
    /// Bytes a second from callers to targets.
    up_per_second: u64,
    /// Bytes a second from targets to callers.
    down_per_second: u64,
    /// Bytes of the streams that are open.
    bytes: u64,
}

pub(super) async fn run(gateway: &Gateway, once: bool, format: OutputFormat) -> Result<(), CliError> {
    let mut before = look(gateway).await?;
    let mut at = Instant::now();
    loop {
        sleep(EVERY).await;
        let now = look(gateway).await?;
        let sample = sample(&before, &now, at.elapsed());
        match format {
            OutputFormat::Json => return output::data(&output::to_json(&sample)?),
            OutputFormat::Table if once => return format.emit(&sample, |sample| table(sample, usize::MAX)),
            OutputFormat::Table => {
                if std::io::stdout().is_terminal() {
                    output::data(CLEAR)?;
                }
                output::data(&format!("{} streams open, {} waiting", sample.streams, sample.waiting))?;
                format.emit(&sample, |sample| table(sample, SHOWN))?;
            }
        }
        (before, at) = (now, Instant::now());
    }
}

async fn look(gateway: &Gateway) -> Result<StreamList, CliError> {
    gateway.get("/v1/streams").await
}

/// What the streams of `now` have carried since `before`. Those that have ended meanwhile count no more.
fn sample(before: &StreamList, now: &StreamList, elapsed: Duration) -> Sample {
    let known: HashMap<u64, &StreamView> = before.streams.iter().map(|stream| (stream.id, stream)).collect();
    let mut rows: BTreeMap<(&'static str, String), Row> = BTreeMap::new();
    for stream in &now.streams {
        let (up, down) = known
            .get(&stream.id)
            .map_or((0, 0), |old| (old.bytes_up, old.bytes_down));
        for (by, name) in [
            ("node", stream.node.to_string()),
            ("class", stream.class.to_string()),
            ("principal", stream.principal.clone()),
        ] {
            let row = rows.entry((by, name.clone())).or_insert_with(|| Row {
                by,
                name,
                streams: 0,
                waiting: 0,
                up_per_second: 0,
                down_per_second: 0,
                bytes: 0,
            });
            row.streams += 1;
            row.waiting += usize::from(waits(stream));
            row.up_per_second += stream.bytes_up.saturating_sub(up);
            row.down_per_second += stream.bytes_down.saturating_sub(down);
            row.bytes += stream.bytes_up + stream.bytes_down;
        }
    }
    let millis = elapsed.as_millis().max(1);
    let per_second = |bytes: u64| u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX);
    let mut rows: Vec<_> = rows.into_values().collect();
    for row in &mut rows {
        (row.up_per_second, row.down_per_second) = (per_second(row.up_per_second), per_second(row.down_per_second));
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.up_per_second + row.down_per_second, row.bytes, row.streams)));
    Sample {
        streams: now.streams.len(),
        waiting: now.streams.iter().filter(|stream| waits(stream)).count(),
        rows,
    }
}

fn waits(stream: &StreamView) -> bool {
    stream.state == StreamState::Waiting
}

fn table(sample: &Sample, most: usize) -> Table {
    let mut table = Table::new(["by", "name", "streams", "waiting", "up/s", "down/s", "bytes"]);
    for by in ["node", "class", "principal"] {
        for row in sample.rows.iter().filter(|row| row.by == by).take(most) {
            table.row([
                row.by,
                &row.name,
                &row.streams.to_string(),
                &row.waiting.to_string(),
                &short(row.up_per_second),
                &short(row.down_per_second),
                &short(row.bytes),
            ]);
        }
    }
    table
}

/// A number of bytes in three digits and a binary unit.
fn short(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut shift = 0;
    while shift < 60 && bytes >> shift >= 1024 {
        shift += 10;
    }
    let unit = units[shift / 10];
    match shift {
        0 => format!("{bytes} B"),
        _ => {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_model::{Class, TraceId};

    use super::*;

    #[test]
    fn rates_are_what_open_streams_have_carried_meanwhile() {
        let before = StreamList {
            streams: vec![stream(1, "alice", "a", 1000, 0), stream(2, "bob", "b", 5, 5)],
        };
        let now = StreamList {
            streams: vec![stream(1, "alice", "a", 3000, 500), stream(3, "alice", "b", 0, 8000)],
        };
        let sample = sample(&before, &now, Duration::from_secs(2));
        assert_eq!(sample.streams, 2);
        let row = |by, name: &str| sample.rows.iter().find(|row| row.by == by && row.name == name).unwrap();
        let figures = |row: &Row| (row.streams, row.up_per_second, row.down_per_second, row.bytes);
        assert_eq!(figures(row("principal", "alice")), (2, 1000, 4250, 11_500));
        assert_eq!(figures(row("node", "a")), (1, 1000, 250, 3500));
        assert_eq!(figures(row("class", "api")), (2, 1000, 4250, 11_500));
        assert!(sample.rows.iter().all(|row| row.name != "bob"));
    }

    #[test]
    fn streams_that_wait_are_counted_apart() {
        let mut waiting = stream(2, "bob", "b", 0, 0);
        waiting.state = StreamState::Waiting;
        let now = StreamList {
            streams: vec![stream(1, "alice", "a", 0, 0), waiting],
        };
        let sample = sample(&now, &now, Duration::from_secs(1));
        assert_eq!((sample.streams, sample.waiting), (2, 1));
        let waiting: Vec<_> = sample.rows.iter().filter(|row| row.waiting == 1).collect();
        let mut names: Vec<_> = waiting.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["api", "b", "bob"]);
    }

    #[test]
    fn numbers_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(short(bytes), text);
        }
    }

    fn stream(id: u64, principal: &str, node: &str, bytes_up: u64, bytes_down: u64) -> StreamView {
        StreamView {
            id,
            principal: principal.to_owned(),
            node: node.parse().unwrap(),
            target: "port:22".to_owned(),
            class: Class::Api,
            way: "connect".to_owned(),
            since: String::new(),
            bytes_up,
            bytes_down,
            trace: TraceId::from_bytes([1; 16]),
            state: StreamState::Running,
            waiting_since: None,
        }
    }
}
