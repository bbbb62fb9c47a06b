//! UDP is blocked in mid-session, and comes back: how long a stream that runs pauses, and until it is on QUIC again.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Line, PATIENCE, Site, in_world, report,
    transfer::{Amount, Server},
};
use crate::thin::world::World;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// For how long UDP is blocked, in seconds; each time is a session of its own
    #[arg(long, value_delimiter = ',', default_values_t = [10, 30, 90])]
    blocked: Vec<u64>,
}

const LINK: &str = "20mbit,40ms";
/// Bytes each second both ways.
const TRICKLE: u32 = 125_000;
/// What was on its way when UDP was blocked has arrived by then, and nothing by TLS has.
const DRAINED: Duration = Duration::from_secs(1);
const ON_TLS: Duration = Duration::from_secs(5);
const ON_QUIC: Duration = Duration::from_secs(120);
/// The bars may be missed by this much before the measurement gives up.
const BEYOND: u32 = 3;

/// What one session came to.
struct Figures {
    blocked: Duration,
    /// From the block to what came by TLS, both ways.
    on_tls: Duration,
    /// From UDP's return to QUIC.
    on_quic: Duration,
    /// The longest time meanwhile in which nothing arrived.
    pause: Duration,
    bytes: u64,
}

/// Measures, prints the table, writes it into the README, and says which bars were missed.
pub(crate) fn run(plan: &Plan, readme: Option<&Path>) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    for &seconds in &plan.blocked {
        eprintln!("UDP is blocked for {seconds} s");
        let blocked = Duration::from_secs(seconds);
        let figures = in_world(LINK, async |world, dir| measure(world, dir, blocked).await)?;
        let seconds = figures.blocked.as_secs();
        lines.push(Line::seconds(
            format!("UDP blocked in mid-session for {seconds} s: until a stream goes on over TLS, both ways"),
            figures.on_tls,
            ON_TLS,
        ));
        lines.push(Line::seconds(
            format!("UDP allowed again after {seconds} s: until the session is on QUIC"),
            figures.on_quic,
            ON_QUIC,
        ));
        lines.push(Line::told(
            "the longest pause of the stream on that way back",
            format!("{:.2} s", figures.pause.as_secs_f64()),
        ));
        bytes += figures.bytes;
    }
    lines.push(Line {
        what: "bytes of these streams, hashed at both ends".to_owned(),
        measured: format!("{bytes}, all of them once"),
        bar: "0 lost or doubled".to_owned(),
        met: true,
    });
    report("UDP blocked and back", &lines, readme, "bench-blocked")
}

async fn measure(world: &World, dir: &Path, blocked: Duration) -> anyhow::Result<Figures> {
    let server = Server::start(&world.far, Amount::Trickle(TRICKLE))?;
    let site = Site::start(world, server.backends(), dir).await?;
    let transfer = server.begin(&site.entry).await?;
    transfer.go_on(PATIENCE).await?;
    site.goes_by("quic", PATIENCE).await?;
    sleep(Duration::from_secs(3)).await;

    let begin = Instant::now();
    world.block_udp()?;
    sleep(DRAINED).await;
    transfer.go_on(ON_TLS * BEYOND).await?;
    let on_tls = begin.elapsed();
    site.goes_by("tls", PATIENCE).await?;

    sleep_until(begin + blocked).await;
    let watch = transfer.watch();
    let begin = Instant::now();
    world.allow_udp()?;
    site.goes_by("quic", ON_QUIC * BEYOND).await?;
    let on_quic = begin.elapsed();
    let pause = watch.longest_pause().await?;
    transfer.stop();
    Ok(Figures {
        blocked,
        on_tls,
        on_quic,
        pause,
        bytes: transfer.whole(PATIENCE).await?.iter().sum(),
    })
}
