//! Much data both ways over many cuts of the link, with changes of carrier between them: whether every byte arrives, and once.

use std::{path::Path, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::time::{Instant, sleep};

use super::{
    Line, PATIENCE, Site, in_world, report,
    transfer::{Amount, Server, Transfer},
};
use crate::thin::world::World;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// How much at least, both ways together, in MiB; it goes on both ways until the last cut is over
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// How often the link is cut.
    #[arg(long, default_value_t = 24)]
    cuts: u32,
    /// How many of the cuts are long
    #[arg(long, default_value_t = 4)]
    long: u32,
    /// How long these are, in seconds
    #[arg(long, default_value_t = 60.0)]
    longest: f64,
    /// How long the others are at the most, in seconds
    #[arg(long, default_value_t = 12.0)]
    short: f64,
    /// Which cuts are long, how long the others are, and where UDP gets through afterwards
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const LINK: &str = "100mbit,40ms,256kb";
/// From the link's return to the first bytes both ways. TLS has two seconds less than that where UDP is blocked.
const BACK: Duration = Duration::from_secs(90);

#[derive(Default)]
struct Figures {
    /// What has arrived at the caller and at the target.
    bytes: [u64; 2],
    time: Duration,
    down: Duration,
    /// From the link's return to the first bytes both ways, by what the network let through.
    back: Vec<Duration>,
    back_without_udp: Vec<Duration>,
    /// What the session was seen to go over, one after the other.
    carriers: Vec<String>,
}

/// Measures, prints the table, writes it into the README; an error if a byte is lost or doubled.
pub(crate) fn run(plan: &Plan, readme: Option<&Path>) -> anyhow::Result<()> {
    let figures = in_world(LINK, async |world, dir| measure(world, dir, plan).await)?;
    let [to_caller, to_target] = figures.bytes;
    let changes = figures.carriers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
    let worst = |times: &[Duration]| {
        times
            .iter()
            .max()
            .map_or_else(|| "-".to_owned(), |worst| format!("{:.1} s", worst.as_secs_f64()))
    };
    let lines = [
        Line {
            what: format!(
                "{} cuts, {} of {} s and the others of up to {} s (seed {}), {changes} changes between QUIC and TLS",
                plan.cuts, plan.long, plan.longest, plan.short, plan.seed
            ),
            measured: format!(
                "{to_caller} bytes one way and {to_target} the other, same hashes: none lost, none doubled"
            ),
            bar: "0 lost or doubled".to_owned(),
            met: true,
        },
        Line::told(
            "that took, and of it the link was down",
            format!("{}, {}", seconds(figures.time), seconds(figures.down)),
        ),
        Line::told(
            "link back with UDP: until bytes arrive at each end, at most",
            worst(&figures.back),
        ),
        Line::told(
            "link back without UDP: until bytes arrive at each end, at most",
            worst(&figures.back_without_udp),
        ),
    ];
    report("much data over many cuts", &lines, readme, "bench-cuts")
}

async fn measure(world: &World, dir: &Path, plan: &Plan) -> anyhow::Result<Figures> {
    let each_way = plan.mib * (1 << 20) / 2;
    let server = Server::start(&world.far, Amount::AtLeast(each_way))?;
    let site = Site::start(world, server.backends(), dir).await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let lengths = lengths(plan, &mut random);
    eprintln!("the cuts are those of seed {}", plan.seed);
    let mut figures = Figures::default();
    let begin = Instant::now();
    let transfer = server.begin(&site.entry).await?;
    let mut blocked = false;
    for (cut, length) in (1_u32..).zip(lengths) {
        // Each way, so that there is something to lose in every cut.
        reach(&transfer, each_way / u64::from(plan.cuts + 1) * u64::from(cut)).await?;
        figures.carriers.extend(site.carrier().await?);
        let block = random.random_bool(0.5);
        eprintln!(
            "cut {cut} of {}: {:.1} s, then {} UDP; {:?} MiB have arrived, by {}",
            plan.cuts,
            length.as_secs_f64(),
            if block { "without" } else { "with" },
            transfer.arrived().map(|bytes| bytes >> 20),
            figures.carriers.last().map_or("nothing", String::as_str),
        );
        world.set_up(false);
        match (blocked, block) {
            (false, true) => world.block_udp()?,
            (true, false) => world.allow_udp()?,
            _ => {}
        }
        blocked = block;
        sleep(length).await;
        figures.down += length;
        world.set_up(true);
        let took = transfer.go_on(BACK).await?;
        eprintln!("  back after {took:.1?}");
        let back = match block {
            true => &mut figures.back_without_udp,
            false => &mut figures.back,
        };
        back.extend(took.into_iter().max());
        figures.carriers.extend(site.carrier().await?);
    }
    transfer.stop();
    figures.bytes = transfer.whole(PATIENCE * 10).await?;
    figures.time = begin.elapsed();
    Ok(figures)
}

/// How long each cut is.
fn lengths(plan: &Plan, random: &mut StdRng) -> Vec<Duration> {
    let long = plan.long.min(plan.cuts);
    let mut lengths: Vec<_> = (0..plan.cuts)
        .map(|cut| match cut < long {
            true => plan.longest,
            false => random.random_range(0.0..=plan.short),
        })
        .map(Duration::from_secs_f64)
        .collect();
    lengths.shuffle(random);
    lengths
}

/// Waits until so much has arrived at each end.
async fn reach(transfer: &Transfer, due: u64) -> anyhow::Result<()> {
    // However slow it is, something arrives.
    while transfer.arrived().into_iter().min() < Some(due) {
        transfer.go_on(BACK).await?;
    }
    Ok(())
}
