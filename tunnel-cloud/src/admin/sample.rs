//! What passes: the open streams looked at twice, and summed up by what they have in common.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use axum::{Json, extract::State};
use tokio::time::{Instant, sleep};

use super::{
    AppState,
    api::{Sample, SampleRow},
    error::Answer,
    streams::waiting_since,
};
use crate::dial::{Gateway, Grant};

/// Between the two looks.
const BETWEEN: Duration = Duration::from_secs(1);

pub(super) async fn take(State(app): State<AppState>) -> Answer<Sample> {
    let gateway = app.gateway()?;
    let (before, begun) = (look(gateway), Instant::now());
    sleep(BETWEEN).await;
    Ok(Json(sum_up(&before, &look(gateway), begun.elapsed())))
}

/// One stream, when it was looked at.
struct Seen {
    id: u64,
    /// What it has in common with others: the kind of thing, and which.
    by: [(&'static str, String); 3],
    waits: bool,
    up: u64,
    down: u64,
}

fn look(gateway: &Gateway) -> Vec<Seen> {
    let seen = |grant: &Grant| Seen {
        id: grant.id,
        by: [
            ("node", grant.destination.node.to_string()),
            ("class", grant.class.to_string()),
            ("principal", grant.principal.to_string()),
        ],
        waits: waiting_since(gateway, grant).is_some(),
        up: grant.up(),
        down: grant.down(),
    };
    gateway.grants.list().iter().map(|grant| seen(grant)).collect()
}

/// What the streams of `now` have carried since `before`. Those that have ended meanwhile count no more.
fn sum_up(before: &[Seen], now: &[Seen], elapsed: Duration) -> Sample {
    let known: HashMap<u64, &Seen> = before.iter().map(|stream| (stream.id, stream)).collect();
    let mut rows: BTreeMap<&(&'static str, String), SampleRow> = BTreeMap::new();
    for stream in now {
        let (up, down) = known.get(&stream.id).map_or((0, 0), |old| (old.up, old.down));
        for by in &stream.by {
            let row = rows.entry(by).or_insert_with(|| SampleRow {
                by: by.0.to_owned(),
                name: by.1.clone(),
                streams: 0,
                waiting: 0,
                up_per_second: 0,
                down_per_second: 0,
                bytes: 0,
            });
            row.streams += 1;
            row.waiting += usize::from(stream.waits);
            row.up_per_second += stream.up.saturating_sub(up);
            row.down_per_second += stream.down.saturating_sub(down);
            row.bytes += stream.up + stream.down;
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
        streams: now.len(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_open_streams_have_carried_meanwhile() {
        let before = [stream(1, "alice", "a", 1000, 0), stream(2, "bob", "b", 5, 5)];
        let mut now = [stream(1, "alice", "a", 3000, 500), stream(3, "alice", "b", 0, 8000)];
        now[0].waits = true;
        let sample = sum_up(&before, &now, Duration::from_secs(2));
        assert_eq!(sample.streams, 2);
        let row = |by, name: &str| sample.rows.iter().find(|row| row.by == by && row.name == name).unwrap();
        let figures = |row: &SampleRow| (row.streams, row.up_per_second, row.down_per_second, row.bytes);
        assert_eq!(figures(row("principal", "alice")), (2, 1000, 4250, 11_500));
        assert_eq!(figures(row("node", "a")), (1, 1000, 250, 3500));
        assert_eq!(figures(row("class", "api")), (2, 1000, 4250, 11_500));
        assert_eq!(row("node", "a").waiting, 1);
        assert_eq!(row("principal", "alice").waiting, 1);
        assert_eq!(row("node", "b").waiting, 0);
        assert!(sample.rows.iter().all(|row| row.name != "bob"));
    }

    fn stream(id: u64, principal: &str, node: &str, up: u64, down: u64) -> Seen {
        let by = [("node", node), ("class", "api"), ("principal", principal)];
        Seen {
            id,
            by: by.map(|(by, name)| (by, name.to_owned())),
            waits: false,
            up,
            down,
        }
    }
}
