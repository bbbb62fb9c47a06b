//! The tunnel measured beside its peers, in one run on one machine.
//!
//! Every subject carries the same load between the same two programs: a client on one side, a server on the other, the
//! subject's two processes between them, all on loopback. Rounds are interleaved, so that whatever else the machine does
//! falls on all subjects alike; the figures are medians, and ratios mean more than figures. A peer that is not installed
//! is skipped by name.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints a report"
)]

mod back;
mod bare;
mod fleet;
mod hostile;
mod load;
mod opens;
mod process;
mod report;
mod run;
mod scrape;
mod subject;
mod survive;
mod thin;

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures the tunnel beside its peers; without a subcommand, everything that needs no root")]
struct Args {
    /// How often each figure is taken.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measure only subjects whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Write the table between the marks in this file.
    #[arg(long)]
    readme: Option<PathBuf>,
    /// Leave out the resident memory of a fleet of idle edges, and the descriptors after many streams.
    #[arg(long)]
    no_fleet: bool,
    /// Measure what stands beside peers, and nothing of the tunnel alone.
    #[arg(long)]
    table_only: bool,
    /// How many idle edges the fleet has.
    #[arg(long, default_value_t = 2000)]
    edges: usize,
    #[command(subcommand)]
    role: Option<Role>,
}

/// Another part, or what the bench runs as a process of its own.
#[derive(Subcommand)]
enum Role {
    /// Measure across thin links; needs root
    Thin(thin::Plan),
    /// Measure what scrapes of a real exporter take of a thin link; needs root
    Scrape(scrape::Plan),
    /// Measure how a stream fares when UDP is blocked in mid-session and comes back; needs root
    Blocked(survive::blocked::Plan),
    /// Measure that nothing is lost or doubled over many cuts and changes of carrier; needs root
    Cuts(survive::cuts::Plan),
    /// Measure what an edge sends that nobody uses; needs root
    Idle(survive::idle::Plan),
    /// The servers behind every subject.
    #[command(hide = true)]
    Backend,
    /// The bare relay's end with the listeners.
    #[command(hide = true)]
    BareNear,
    /// The bare relay's end with the targets.
    #[command(hide = true)]
    BareFar {
        /// Where the near end listens.
        near: std::net::SocketAddr,
        /// The targets, in the order of the near end's listeners.
        targets: Vec<std::net::SocketAddr>,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let readme = args.readme.as_deref();
    // These make runtimes of their own, in the namespaces that they measure from.
    match &args.role {
        Some(Role::Thin(plan)) => return thin::run(plan, readme),
        Some(Role::Scrape(plan)) => return scrape::run(plan, readme),
        Some(Role::Blocked(plan)) => return survive::blocked::run(plan, readme),
        Some(Role::Cuts(plan)) => return survive::cuts::run(plan, readme),
        Some(Role::Idle(plan)) => return survive::idle::run(plan, readme),
        Some(Role::Backend | Role::BareNear | Role::BareFar { .. }) | None => {}
    }
    runtime()?.block_on(async {
        match args.role {
            Some(Role::Backend) => load::backend().await,
            Some(Role::BareNear) => bare::near().await,
            Some(Role::BareFar { near, targets }) => bare::far(near, targets).await,
            _ => {
                let plan = run::Plan {
                    rounds: args.rounds,
                    time: Duration::from_secs_f64(args.seconds),
                    only: args.only,
                    alone: !args.table_only,
                    fleet: (!args.no_fleet).then_some(args.edges),
                };
                let results = run::everything(&plan).await?;
                let table = report::markdown(&results);
                println!("{table}");
                if let Some(readme) = args.readme {
                    report::write_between_marks(&readme, "bench", &table)?;
                }
                report::bars(&results)
            }
        }
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
