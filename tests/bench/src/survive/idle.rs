//! What crosses the link of an edge that nobody uses, all headers counted.

use std::{path::Path, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tokio::time::{Instant, interval, sleep, timeout};

use super::{LOOK, Line, PATIENCE, Site, in_world, report};
use crate::{load::Backends, thin::world::World};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// How many silences are counted; an edge is silent for 110 s on a network that it has learned
    #[arg(long, default_value_t = 1)]
    silences: u32,
}

const LINK: &str = "20mbit,60ms";
/// The longest silence that an edge tries, and the one before it.
const LONGEST: Duration = Duration::from_secs(110);
const LONG: u64 = 100;
/// Until it has come to that: 25, 50 and 100 s.
const LEARNED: Duration = Duration::from_secs(175);
/// What ends a silence has crossed by then.
const SETTLED: Duration = Duration::from_secs(5);
const HOUR: f64 = 3600.0;
/// A megabyte a day.
const BAR: f64 = 42_000.0;

struct Figures {
    /// What crossed in this time.
    bytes: u64,
    time: Duration,
    /// What crossed until then, from when the edge was up.
    learning: u64,
}

/// Measures, prints the table, writes it into the README, and says whether the bar was missed.
pub(crate) fn run(plan: &Plan, readme: Option<&Path>) -> anyhow::Result<()> {
    let figures = in_world(LINK, async |world, dir| measure(world, dir, plan.silences).await)?;
    let hour = figures.bytes as f64 * HOUR / figures.time.as_secs_f64();
    let lines = [
        Line {
            what: format!(
                "an hour, both ways: {} s with {} bytes, times {:.1}",
                figures.time.as_secs(),
                figures.bytes,
                HOUR / figures.time.as_secs_f64()
            ),
            measured: format!("{:.1} KB", hour / 1e3),
            bar: format!("{:.0} KB", BAR / 1e3),
            met: hour <= BAR,
        },
        Line::told(
            format!("once, while it learns the network, {} s", LEARNED.as_secs()),
            format!("{:.1} KB", figures.learning as f64 / 1e3),
        ),
    ];
    report("an idle edge on QUIC", &lines, readme, "bench-idle")
}

async fn measure(world: &World, dir: &Path, silences: u32) -> anyhow::Result<Figures> {
    let nobody = ([127, 0, 0, 1], 9).into();
    let backends = Backends {
        tcp: nobody,
        http: nobody,
        udp: nobody,
    };
    let site = Site::start(world, backends, dir).await?;
    site.goes_by("quic", PATIENCE).await?;
    let begin = crossed(world)?;
    eprintln!(
        "the edge learns for {} s how long its network lets it be silent",
        LEARNED.as_secs()
    );
    let known = site.gateway.edge_state("networks.json");
    let mut looks = interval(LOOK);
    let learning = async {
        while holds(&known).is_none_or(|holds| holds < LONG) {
            looks.tick().await;
        }
    };
    // A silence in which something else has crossed teaches nothing, and is repeated.
    let learned = timeout(LEARNED * 2, learning).await;
    learned.with_context(|| format!("it has learned {:?} only", std::fs::read_to_string(&known)))?;
    // The silence that was learned has just ended, and the first of the longest begins.
    sleep(SETTLED).await;
    let (before, start) = (crossed(world)?, Instant::now());
    sleep(LONGEST * silences).await;
    let (after, time) = (crossed(world)?, start.elapsed());
    anyhow::ensure!(after > before, "no silence has ended");
    Ok(Figures {
        bytes: after - before,
        time,
        learning: before - begin,
    })
}

fn crossed(world: &World) -> anyhow::Result<u64> {
    let (up, down) = world.crossed()?;
    Ok(up + down)
}

/// For how long the one network is known to let an edge be silent, in seconds.
fn holds(known: &Path) -> Option<u64> {
    let known: Value = serde_json::from_slice(&std::fs::read(known).ok()?).ok()?;
    known.as_object()?.values().next()?["holds_s"].as_u64()
}
