//! What streams live through on a bad link, with the two programs in network namespaces: UDP that is blocked and comes back
//! ([`blocked`]), cuts under much data ([`cuts`]), and what an edge sends that nobody uses ([`idle`]).

pub(crate) mod blocked;
pub(crate) mod cuts;
pub(crate) mod idle;
mod transfer;

use std::{path::Path, time::Duration};

use anyhow::Context;
use tokio::time::{Instant, interval, timeout};

use crate::{
    load::{Backends, Entry},
    process::Running,
    subject::{Ours, Place},
    thin::world::{self, World},
};

/// Until the two programs are up, and for whatever has to happen soon.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what the programs say.
const LOOK: Duration = Duration::from_millis(100);

/// A gateway and an edge with the link between them.
struct Site {
    place: Place,
    gateway: Ours,
    entry: Entry,
    _processes: [Running; 2],
}

impl Site {
    /// Starts both in a world; its near end is where this is called.
    async fn start(world: &World, backends: Backends, dir: &Path) -> anyhow::Result<Self> {
        let place = Place::apart(world::NEAR.into(), world.far.name().to_owned());
        let starting = async {
            let (gateway, serve) = Ours::start_at(&place, dir).await?;
            let edge = gateway.edge_in(&place, backends, gateway.public(), None).await?;
            let entry = gateway.entry().await?;
            anyhow::Ok((gateway, entry, [serve, edge]))
        };
        let (gateway, entry, processes) = timeout(PATIENCE, starting).await.context("it does not come up")??;
        Ok(Self {
            place,
            gateway,
            entry,
            _processes: processes,
        })
    }

    /// What the session goes over, if both ends say the same.
    async fn carrier(&self) -> anyhow::Result<Option<String>> {
        let [edge, gateway] = self.gateway.carriers(&self.place).await?;
        Ok((edge == gateway).then_some(edge))
    }

    /// Waits until it goes over that.
    async fn goes_by(&self, kind: &str, within: Duration) -> anyhow::Result<()> {
        let mut looks = interval(LOOK);
        let deadline = Instant::now() + within;
        while self.carrier().await?.as_deref() != Some(kind) {
            anyhow::ensure!(
                Instant::now() < deadline,
                "the session is not on {kind} after {within:?}"
            );
            looks.tick().await;
        }
        Ok(())
    }
}

/// Runs in the near end of a link that is laid for that.
fn in_world<T: Send>(link: &str, f: impl AsyncFnOnce(&World, &Path) -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let world = World::lay(link.parse()?)?;
    world.near.enter(|| {
        crate::runtime()?.block_on(async {
            let dir = tempfile::tempdir()?;
            f(&world, dir.path()).await
        })
    })
}

/// What was measured, beside its bar.
struct Line {
    what: String,
    measured: String,
    bar: String,
    met: bool,
}

impl Line {
    /// So long, and not longer.
    fn seconds(what: impl Into<String>, measured: Duration, bar: Duration) -> Self {
        Self {
            what: what.into(),
            measured: format!("{:.1} s", measured.as_secs_f64()),
            bar: format!("{} s", bar.as_secs()),
            met: measured <= bar,
        }
    }

    fn told(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            bar: "-".to_owned(),
            met: true,
        }
    }
}

/// Prints the table, writes it between the marks of that name, and says which bars were missed.
fn report(title: &str, lines: &[Line], readme: Option<&Path>, mark: &str) -> anyhow::Result<()> {
    let mut table = format!("| {title} | measured | bar |\n|---|---|---|\n");
    for line in lines {
        table += &format!("| {} | {} | {} |\n", line.what, line.measured, line.bar);
    }
    println!("{table}");
    if let Some(readme) = readme {
        crate::report::write_between_marks(readme, mark, &table)?;
    }
    let missed = lines.iter().filter(|line| !line.met);
    let missed: Vec<_> = missed
        .map(|line| format!("{}: {}, the bar is {}", line.what, line.measured, line.bar))
        .collect();
    crate::report::verdict(&missed)
}
