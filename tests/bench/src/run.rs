//! The order of measurements.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use tokio::time::timeout;

use crate::{
    back::{self, BackFigures},
    fleet::{self, FleetFigures},
    load::{self, Backends, Offer, Sink},
    opens::{self, OpensFigures},
    process::Running,
    subject::{Place, Started, Subject},
};

/// More small packets each second than anybody here carries, and few enough for the sender.
const SMALL: Offer = Offer {
    size: 64,
    rate: 100_000,
};
const LARGE: Offer = Offer {
    size: 1200,
    rate: 10_000,
};
/// Opens across a link in a run of full length, each way; a shorter run has fewer.
const OPENS: u128 = 10_000;
const FULL_LENGTH: Duration = Duration::from_secs(3);

/// What the measurements of a round may take beyond their time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to measure.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    pub(crate) only: Option<String>,
    /// Whether the tunnel is also measured where there is no peer to stand beside.
    pub(crate) alone: bool,
    /// How many idle edges, if they are to be measured.
    pub(crate) fleet: Option<usize>,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    OneStream,
    EightStreams,
    KeepAlive,
    KeepAliveP99,
    PerRequest,
    PerRequestP99,
    SmallPackets,
    LargePacketLoss,
}

/// What was measured.
pub(crate) struct Results {
    /// Every sample, by row and subject.
    pub(crate) samples: BTreeMap<(Row, &'static str), Vec<f64>>,
    pub(crate) skipped: Vec<&'static str>,
    pub(crate) opens: Option<OpensFigures>,
    pub(crate) back: Option<BackFigures>,
    pub(crate) fleet: Option<FleetFigures>,
}

pub(crate) async fn everything(plan: &Plan) -> anyhow::Result<Results> {
    let dir = tempfile::tempdir()?;
    let mut backend = Running::start_talking(&std::env::current_exe()?, &["backend"], &dir.path().join("backend.log"))?;
    let line = backend.line().await?;
    let (tcp, http) = line.split_once(' ').context("the backend said nothing useful")?;
    let sink = Sink::start()?;
    let backends = Backends {
        tcp: tcp.parse()?,
        http: http.parse()?,
        udp: sink.address(),
    };

    let mut results = Results {
        samples: BTreeMap::new(),
        skipped: Vec::new(),
        opens: None,
        back: None,
        fleet: None,
    };
    let mut subjects: Vec<(Subject, Started)> = Vec::new();
    for (index, subject) in Subject::ALL.into_iter().enumerate() {
        if plan
            .only
            .as_ref()
            .is_some_and(|only| !subject.name().contains(only.as_str()))
        {
            continue;
        }
        let own = dir.path().join(index.to_string());
        std::fs::create_dir(&own)?;
        let starting = subject.start(&Place::loopback(), backends, &own).await;
        match starting.with_context(|| subject.name())? {
            Some(started) => subjects.push((subject, started)),
            None => {
                eprintln!("SKIPPED {}: not installed", subject.name());
                results.skipped.push(subject.name());
            }
        }
    }
    for round in 1..=plan.rounds {
        // Each round starts with another subject, so that none is always the one after a heavy neighbour.
        let count = subjects.len();
        for (subject, started) in subjects.iter().cycle().skip(round % count.max(1)).take(count) {
            eprintln!("round {round}: {}", subject.name());
            let measuring = measure(started, &sink, plan.time, subject.name(), &mut results);
            let measured = timeout(plan.time * 6 + PATIENCE, measuring).await;
            measured
                .unwrap_or_else(|_| anyhow::bail!("it stands still"))
                .with_context(|| subject.name())?;
        }
    }
    let ours = plan.alone && subjects.iter().any(|(subject, _)| *subject == Subject::Ours);
    drop(subjects);
    if ours {
        let own = dir.path().join("opens");
        std::fs::create_dir(&own)?;
        let length = plan.time.min(FULL_LENGTH).as_millis();
        let count = usize::try_from(OPENS * length / FULL_LENGTH.as_millis())?;
        results.opens = Some(opens::measure(count, backends, &own).await?);
        let own = dir.path().join("back");
        std::fs::create_dir(&own)?;
        results.back = Some(back::measure(backends, &own).await?);
    }
    if let Some(edges) = plan.fleet {
        let own = dir.path().join("fleet");
        std::fs::create_dir(&own)?;
        results.fleet = Some(fleet::measure(edges, backends, &own).await?);
    }
    Ok(results)
}

async fn measure(
    started: &Started,
    sink: &Sink,
    time: Duration,
    name: &'static str,
    results: &mut Results,
) -> anyhow::Result<()> {
    let entry = &started.entry;
    let mut note = |row, value| results.samples.entry((row, name)).or_default().push(value);
    note(Row::OneStream, load::download(entry, 1, time).await?);
    note(Row::EightStreams, load::download(entry, 8, time).await?);
    let kept = load::keep_alive(entry, time).await?;
    note(Row::KeepAlive, kept.per_second());
    note(Row::KeepAliveP99, kept.p99().as_secs_f64());
    let fresh = load::connection_per_request(entry, time).await?;
    note(Row::PerRequest, fresh.per_second());
    note(Row::PerRequestP99, fresh.p99().as_secs_f64());
    if let Some(udp) = started.udp {
        note(
            Row::SmallPackets,
            load::packets(udp, sink, SMALL, time).await?.per_second,
        );
        note(Row::LargePacketLoss, load::packets(udp, sink, LARGE, time).await?.loss);
    }
    Ok(())
}
