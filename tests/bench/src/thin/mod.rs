//! Thin links: what somebody who types notices of transfers beside it, and how much of the link the transfers get.
//!
//! The near end of a subject, where callers come in, and its far end, which dials it and has the servers, are in network
//! namespaces with the link emulator between them. Each measurement has namespaces and processes of its own, so that
//! nothing that one connection learned or still holds falls on another.

mod load;
mod report;
pub(crate) mod world;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, ensure};
use tokio::time::timeout;
use tunnel_linkem::LinkConfig;

use self::{load::Servers, world::World};
use crate::{
    load::{Backends, Entry},
    subject::{Place, Subject},
};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// How often each figure is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Measure only subjects whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Measure only cases whose name holds this text.
    #[arg(long)]
    case: Option<String>,
}

/// The peers that carry streams over a link; both ends of the others are on one machine.
const SUBJECTS: [Subject; 6] = [
    Subject::OursByName,
    Subject::OursTold,
    Subject::SshReverse,
    Subject::FrpQuic,
    Subject::FrpTls,
    Subject::RatholeNoise,
];

/// Until a subject is up, across the worst of the links.
const PATIENCE: Duration = Duration::from_secs(60);

/// A link, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    /// Somebody types while transfers fill the link both ways.
    Typing,
    /// A transfer alone, with a round trip as over a satellite.
    Far,
    /// The same, and the link loses packets.
    Lossy,
}

impl Case {
    const ALL: [Self; 3] = [Self::Typing, Self::Far, Self::Lossy];

    fn name(self) -> &'static str {
        match self {
            Self::Typing => "typing",
            Self::Far => "far",
            Self::Lossy => "lossy",
        }
    }

    /// The link, in both directions.
    fn link(self) -> &'static str {
        match self {
            Self::Typing => "3mbit,60ms,64kb",
            Self::Far => "3mbit,800ms,64kb",
            Self::Lossy => "3mbit,800ms,64kb,2%",
        }
    }

    /// Until transfers have found their rate.
    fn warm_up(self) -> Duration {
        match self {
            Self::Typing => Duration::from_secs(10),
            Self::Far | Self::Lossy => Duration::from_secs(12),
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    EchoP50,
    EchoP90,
    EchoP99,
    Down,
    Up,
    Far,
    Lossy,
}

type Samples = BTreeMap<(Row, &'static str), Vec<f64>>;

/// Measures, prints the table, writes it into the README, and says which bars were missed.
pub(crate) fn run(plan: &Plan, readme: Option<&Path>) -> anyhow::Result<()> {
    let wanted = |filter: &Option<String>, name: &str| filter.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let mut subjects: Vec<_> = SUBJECTS
        .into_iter()
        .filter(|subject| wanted(&plan.only, subject.name()))
        .collect();
    let mut samples = Samples::new();
    let mut skipped = Vec::new();
    for round in 1..=plan.rounds {
        for case in Case::ALL.into_iter().filter(|case| wanted(&plan.case, case.name())) {
            // Neighbours in time see the same machine.
            for subject in subjects.clone() {
                eprintln!("round {round}: {}, {}", case.name(), subject.name());
                let measured = measure(case, subject, Duration::from_secs_f64(plan.seconds));
                match measured.with_context(|| format!("{}, {}", case.name(), subject.name()))? {
                    Some(rows) => {
                        for (row, value) in rows {
                            samples.entry((row, subject.name())).or_default().push(value);
                        }
                    }
                    None => {
                        eprintln!("SKIPPED {}: not installed", subject.name());
                        skipped.push(subject.name());
                        subjects.retain(|other| *other != subject);
                    }
                }
            }
        }
    }
    let table = report::markdown(&samples, &skipped);
    println!("{table}");
    let whole = plan.only.is_none() && plan.case.is_none();
    if let Some(readme) = readme.filter(|_| whole) {
        crate::report::write_between_marks(readme, "bench-thin", &table)?;
    }
    report::bars(&samples)
}

/// Lays the link, starts the subject and measures; `None` if it is not installed.
fn measure(case: Case, subject: Subject, time: Duration) -> anyhow::Result<Option<Vec<(Row, f64)>>> {
    let link: LinkConfig = case.link().parse()?;
    let world = World::lay(link)?;
    world.near.enter(|| {
        crate::runtime()?.block_on(async {
            let servers = Servers::start(&world.far)?;
            let backends = servers.backends();
            let dir = tempfile::tempdir()?;
            let place = Place::apart(world::NEAR.into(), world.far.name().to_owned());
            let starting = timeout(PATIENCE, subject.start(&place, backends, dir.path()));
            let Some(started) = starting.await.context("it does not come up")?? else {
                return Ok(None);
            };
            let entry = to_echo(&started.entry, backends);
            let measuring = figures(case, &entry, &servers, link, time);
            let rows = timeout(case.warm_up() + time * 2 + PATIENCE, measuring).await;
            rows.context("it stands still")?.map(Some)
        })
    })
}

/// The echo takes the place of the page, and is found by its port: that is what makes it somebody's ssh.
fn to_echo(entry: &Entry, backends: Backends) -> Entry {
    let mut entry = entry.clone();
    if let Entry::Proxy { http, .. } = &mut entry {
        *http = format!("edge1:{}", backends.http.port());
    }
    entry
}

async fn figures(
    case: Case,
    entry: &Entry,
    servers: &Servers,
    link: LinkConfig,
    time: Duration,
) -> anyhow::Result<Vec<(Row, f64)>> {
    let rate = link.rate.context("the link has no rate")?.get() as f64;
    let of_link = |bytes: u64| bytes as f64 * 8.0 / time.as_secs_f64() / rate;
    let transfers = match case {
        Case::Typing => vec![load::download(entry).await?, load::upload(entry, servers).await?],
        Case::Far | Case::Lossy => vec![load::download(entry).await?],
    };
    let mut typing = match case {
        Case::Typing => Some(load::Typing::connect(entry).await?),
        Case::Far | Case::Lossy => None,
    };
    tokio::time::sleep(case.warm_up()).await;
    let before: Vec<u64> = transfers.iter().map(load::Transfer::bytes).collect();
    let echoes = match &mut typing {
        Some(typing) => typing.for_so_long(time).await?,
        None => {
            tokio::time::sleep(time).await;
            Vec::new()
        }
    };
    let carried: Vec<f64> = transfers
        .iter()
        .zip(before)
        .map(|(transfer, before)| of_link(transfer.bytes() - before))
        .collect();
    ensure!(transfers.iter().all(load::Transfer::goes_on), "a transfer broke off");
    Ok(match (case, carried.as_slice()) {
        (Case::Far, [down]) => vec![(Row::Far, *down)],
        (Case::Lossy, [down]) => vec![(Row::Lossy, *down)],
        (_, carried) => {
            let percentile = |p: usize| echoes.get((echoes.len() * p / 100).min(echoes.len() - 1)).copied();
            let rows = [(Row::EchoP50, 50), (Row::EchoP90, 90), (Row::EchoP99, 99)];
            let echoes = rows.into_iter().filter_map(|(row, p)| Some((row, percentile(p)?)));
            let ways = [Row::Down, Row::Up].into_iter().zip(carried.iter().copied());
            echoes.chain(ways).collect()
        }
    })
}
