//! Scrapes of a real node-exporter on a busy machine, across a thin link: what they take of it, all packets counted.
//!
//! Each subject has namespaces, a link and a server of its own, and is asked at the same moments as the others. The server
//! gives the pages of the exporter that is installed, which it asks as it is asked itself, and remembers them: what a client
//! gets has to be one of them.

mod busy;
mod client;
mod pages;

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep_until, timeout};

use self::{busy::Busy, client::Client, pages::Pages};
use crate::{
    load::{Backends, Entry},
    process::find,
    report::{verdict, write_between_marks},
    subject::{Ours, Place, Subject},
    thin::world::{self, World},
};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// How many scrapes.
    #[arg(long, default_value_t = 40)]
    scrapes: u32,
    /// Between two of them, in seconds.
    #[arg(long, default_value_t = 15.0)]
    every: f64,
    /// A scrape each second instead, which says something in less than a minute.
    #[arg(long)]
    quick: bool,
}

const SUBJECTS: [Subject; 2] = [Subject::OursByName, Subject::FrpTls];
const LINK: &str = "3mbit,60ms,64kb";
/// From when on a connection is not new any more.
const SETTLED: Duration = Duration::from_secs(10);
/// Until a subject is up, and for a scrape.
const PATIENCE: Duration = Duration::from_secs(60);
/// The bar: this share of what a peer takes for the same pages in gzip.
const BAR: f64 = 12.0;

/// What a subject took of the link.
struct Taken {
    /// Towards the target, and from it.
    up: u64,
    down: u64,
    /// Of all pages, as the exporter says them.
    plain: u64,
}

impl Taken {
    fn all(&self) -> u64 {
        self.up + self.down
    }
}

/// Measures, prints the table, writes it into the README, and says whether the bar was missed.
pub(crate) fn run(plan: &Plan, readme: Option<&Path>) -> anyhow::Result<()> {
    let exporter = find("node_exporter").or_else(|| find("prometheus-node-exporter"));
    let exporter = exporter.context("no node-exporter is installed")?;
    let every = Duration::from_secs_f64(if plan.quick { 1.0 } else { plan.every });
    let busy = Busy::start()?;
    let taken: Vec<_> = thread::scope(|scope| {
        let measure = |subject: Subject| {
            let exporter = &exporter;
            scope.spawn(move || measure(subject, exporter, plan.scrapes, every))
        };
        let running = SUBJECTS.map(measure);
        running.map(|running| running.join().map_err(|_| anyhow::anyhow!("a measurement panicked")))
    })
    .into();
    drop(busy);
    let mut rows = Vec::new();
    for (subject, taken) in SUBJECTS.into_iter().zip(taken) {
        match taken?.with_context(|| subject.name())? {
            Some(taken) => rows.push((subject, taken)),
            None => eprintln!("SKIPPED {}: not installed", subject.name()),
        }
    }
    let table = markdown(plan.scrapes, every, &rows);
    println!("{table}");
    if let Some(readme) = readme.filter(|_| !plan.quick) {
        write_between_marks(readme, "bench-scrape", &table)?;
    }
    let of = |wanted| {
        rows.iter()
            .find(|(subject, _)| *subject == wanted)
            .map(|(_, taken)| taken)
    };
    let mut missed = Vec::new();
    if let (Some(ours), Some(peer)) = (of(Subject::OursByName), of(Subject::FrpTls)) {
        let ratio = peer.all() as f64 / ours.all() as f64;
        if ratio < BAR {
            missed.push(format!(
                "scrapes take 1/{ratio:.1} of gzip by a peer, the bar is 1/{BAR}"
            ));
        }
    }
    verdict(&missed)
}

/// Lays the link, starts the subject and scrapes; `None` if it is not installed.
fn measure(subject: Subject, exporter: &Path, scrapes: u32, every: Duration) -> anyhow::Result<Option<Taken>> {
    let world = World::lay(LINK.parse()?)?;
    world.near.enter(|| {
        crate::runtime()?.block_on(async {
            let dir = tempfile::tempdir()?;
            let pages = Pages::start(&world.far, exporter, dir.path()).await?;
            let backends = Backends {
                tcp: pages.address(),
                http: pages.address(),
                udp: pages.address(),
            };
            let place = Place::apart(world::NEAR.into(), world.far.name().to_owned());
            let starting = timeout(PATIENCE, subject.start(&place, backends, dir.path()));
            let Some(started) = starting.await.context("it does not come up")?? else {
                return Ok(None);
            };
            scrape(&world, &started.entry, &pages, scrapes, every).await.map(Some)
        })
    })
}

async fn scrape(world: &World, entry: &Entry, pages: &Pages, scrapes: u32, every: Duration) -> anyhow::Result<Taken> {
    // A connection looks for the largest packet of the path when it is new, once in its life.
    sleep_until(Instant::now() + SETTLED).await;
    let before = world.crossed()?;
    let mut client = Client::connect(entry, Ours::METRICS).await?;
    let mut plain = 0;
    let begin = Instant::now();
    for n in 0..scrapes {
        sleep_until(begin + every * n).await;
        let body = timeout(PATIENCE, client.scrape()).await.context("no answer")??;
        let page = pages.take().context("the exporter was not asked")?;
        ensure!(page.is(&body), "scrape {n}: what arrived is not what was sent");
        plain += page.plain;
    }
    // The silence behind the last is part of it.
    sleep_until(begin + every * scrapes).await;
    let after = world.crossed()?;
    Ok(Taken {
        up: after.0 - before.0,
        down: after.1 - before.1,
        plain,
    })
}

fn markdown(scrapes: u32, every: Duration, rows: &[(Subject, Taken)]) -> String {
    let names: Vec<_> = rows.iter().map(|(subject, _)| subject.name()).collect();
    let each = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(scrapes));
    let line = |title: &str, of: &dyn Fn(&Taken) -> String| {
        let values: Vec<_> = rows.iter().map(|(_, taken)| of(taken)).collect();
        format!("| {title} | {} |\n", values.join(" | "))
    };
    let mut text = format!(
        "| {scrapes} scrapes, one each {} s | {} |\n|---|{}\n",
        every.as_secs_f64(),
        names.join(" | "),
        "---|".repeat(rows.len())
    );
    text += &line("the page, without any compression (bytes)", &|taken| each(taken.plain));
    text += &line("all packets for a scrape, both ways (bytes)", &|taken| {
        each(taken.all())
    });
    text += &line("of it towards the exporter (bytes)", &|taken| each(taken.up));
    if let Some((_, peer)) = rows.iter().find(|(subject, _)| *subject != Subject::OursByName) {
        text += &line("as a share of gzip by a peer", &|taken| {
            format!("1/{:.1}", peer.all() as f64 / taken.all() as f64)
        });
    }
    text
}
