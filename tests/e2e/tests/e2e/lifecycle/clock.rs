use anyhow::ensure;
use tunnel_e2e::{FakeClock, Need, Service, Site, require};

use crate::stream::Transfer;
use crate::world::{SOON, World, stderr_of, stdout_of, stop};

const SIZE: usize = 5_000_000;

/// R5: the first of the times is where a machine without a battery starts.
#[tokio::test]
async fn r5_an_edge_whose_clock_is_wrong_by_years_joins_and_is_reached() -> anyhow::Result<()> {
    require!(Need::Lab, Need::FakeClock);
    let mut world = World::start([Site::new(), Site::new(), Site::new()]).await?;
    for (site, time, wrong) in [
        (1, "@1970-01-01 00:00:00", "behind"),
        (2, "-10y", "behind"),
        (3, "+10y", "ahead"),
    ] {
        let mut edge = world.new_edge(site)?;
        edge.env = FakeClock::new(edge.config.with_file_name("clock"), time)?.env()?;
        let joined = edge.join(&world.lab, &world.token().await?).await?;
        let said = stderr_of(&joined);
        stdout_of(&joined)?;
        ensure!(said.contains(&format!(" s {wrong}; the gateway's is used")), "{said}");

        edge.start(&world.lab)?;
        edge.wait_connected(&world.lab).await?;
        world.offer(&edge, Service::Http, 9100).await?;
        let (head, _) = world.get(&format!("http://edge{site}:9100/")).await?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{time}: {head}");
        // What it has learned is the time, and what it keeps of it holds at the next start.
        stop(edge.agent()?).await?;
        edge.start(&world.lab)?;
        edge.wait_connected(&world.lab).await?;
    }
    Ok(())
}

/// R5: the clock is set under a stream, forwards and backwards.
#[tokio::test]
async fn r5_a_step_of_the_clock_under_a_running_stream_does_nothing() -> anyhow::Result<()> {
    require!(Need::Lab, Need::FakeClock);
    let mut world = World::start([Site::new().link("20mbit,40ms")]).await?;
    let mut edge = world.join(1).await?;
    let clock = FakeClock::new(edge.config.with_file_name("clock"), "+0")?;
    edge.env = clock.env()?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    world.offer(&edge, Service::Http, 8080).await?;

    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    for (part, time) in (1..).zip(["+10y", "-10y", "@1970-01-01 00:00:00", "+10y"]) {
        download.read_to(part * SIZE / 5, SOON).await?;
        clock.set(time)?;
    }
    download.finish(SOON).await?;
    stdout_of(&edge.run(&world.lab, &["wait", "--timeout", "1s"]).await?)?;
    stop(edge.agent()?).await?;

    let log = edge.agent()?.stderr();
    let connected = log.iter().filter(|line| line.contains(": connected ")).count();
    ensure!(
        connected == 1 && !log.iter().any(|line| line.contains("not connected")),
        "{log:?}"
    );
    // It has seen the clock step.
    let year = |line: Option<&String>| line.and_then(|line| line[..4].parse::<u32>().ok());
    let (first, last) = (year(log.first()), year(log.last()));
    ensure!(
        first.zip(last).is_some_and(|(first, last)| last >= first + 9),
        "{log:?}"
    );
    Ok(())
}
