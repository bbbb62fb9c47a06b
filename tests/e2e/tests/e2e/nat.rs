use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tunnel_e2e::lab::LabSite;
use tunnel_e2e::{Nat, Need, Service, Site, require, wait_until};

use crate::stream::{Transfer, accept, head, send};
use crate::world::{SOON, World};

/// On this link the transfers take seconds, and lose packets on the way.
const THIN: &str = "20mbit,40ms,0.5%";
const SIZE: usize = 3_000_000;

/// How long a stream may stand still while its edge finds out that its way was lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a stream may stand still on which only the gateway sends: until the edge's next keepalive.
const KEEPALIVE: Duration = Duration::from_secs(40);

/// How long it takes without waiting for a keepalive.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Longer than acknowledgements are put off.
const SILENCE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn two_sites_with_one_private_range_are_told_apart_by_name() -> anyhow::Result<()> {
    require!(Need::Lab);
    let site = || Site::new().lan("192.168.1.0/24");
    let world = World::start([site().nat(Nat::PortRestricted), site().nat(Nat::Symmetric)]).await?;
    let edges = [world.edge(1).await?, world.edge(2).await?];
    assert_eq!(world.lab.host("edge1").addr(), world.lab.host("edge2").addr());
    for edge in &edges {
        let listener = world.lab.host(&edge.host).listen(8100)?;
        tokio::spawn(greet(listener, edge.name.clone()));
    }
    for name in ["edge1", "edge2", "edge1.tunnel", "edge2.tunnel"] {
        let (head, _) = world.get(&format!("http://{name}:8100/")).await?;
        ensure!(
            head.to_lowercase().contains(&format!("server: {}\r\n", &name[..5])),
            "{name}: {head}"
        );
    }
    Ok(())
}

/// N5
#[tokio::test]
async fn n5_a_download_goes_on_when_the_nat_forgets_it() -> anyhow::Result<()> {
    require!(Need::Lab);
    tokio::try_join!(
        download_through(Nat::PortRestricted, LabSite::forget_nat_bindings),
        download_through(Nat::Symmetric, LabSite::forget_nat_bindings),
    )?;
    Ok(())
}

/// N5
#[tokio::test]
async fn n5_a_download_goes_on_when_the_edge_gets_another_address() -> anyhow::Result<()> {
    require!(Need::Lab);
    download_through(Nat::PortRestricted, LabSite::change_edge_address).await
}

/// N5
#[tokio::test]
async fn n5_a_download_goes_on_when_the_site_gets_another_address() -> anyhow::Result<()> {
    require!(Need::Lab);
    download_through(Nat::Symmetric, LabSite::change_public_address).await
}

/// N5: only the edge can open a new binding, and during an upload it says little.
#[tokio::test]
async fn n5_an_upload_goes_on_through_every_change() -> anyhow::Result<()> {
    require!(Need::Lab);
    let changes: [Change; 3] = [
        LabSite::forget_nat_bindings,
        LabSite::change_edge_address,
        LabSite::change_public_address,
    ];
    let (world, edge) = World::with_edge(Site::new().link(THIN)).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    let sending = tokio::spawn(send(world.connect("edge1:8100").await?, SIZE));
    let mut upload = Transfer::new(accept(&listener).await?, SIZE);
    for (quarter, change) in (1..).zip(changes) {
        upload.read_to(SIZE / 4 * quarter, KEEPALIVE).await?;
        change(world.lab.site(1))?;
    }
    upload.finish(KEEPALIVE).await?;
    sending.await??;
    assert_one_session(&world).await
}

/// N5: as a session on a shell over lunch. What is typed waits for the edge's next keepalive, and is not lost.
#[tokio::test]
async fn n5_a_silent_stream_wakes_up_after_the_nat_forgot_it() -> anyhow::Result<()> {
    require!(Need::Lab);
    silence_through(LabSite::forget_nat_bindings, KEEPALIVE).await
}

/// N5: of its own network the edge hears at once, and tells the gateway.
#[tokio::test]
async fn n5_a_silent_stream_follows_the_edge_to_another_address() -> anyhow::Result<()> {
    require!(Need::Lab);
    silence_through(LabSite::change_edge_address, AT_ONCE).await
}

/// N5: the edge learns how long the network lets it be silent, from what does not come in, and stays connected meanwhile.
#[tokio::test]
async fn n5_an_idle_edge_learns_when_its_nat_forgets_it() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric)).await?;
    world.lab.site(1).forget_silent_flows(Duration::from_secs(35))?;
    // 25 s hold, 50 s do not; and the time in which that is found.
    let file = edge.state.join("networks.json");
    wait_until("it has learned", Duration::from_secs(120), async || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"holds_s\":25,\"fails_s\":50"))
    })
    .await?;
    assert_one_session(&world).await
}

/// N6
#[tokio::test]
async fn n6_no_transfer_stalls_on_a_narrow_path_that_says_nothing() -> anyhow::Result<()> {
    require!(Need::Lab);
    const NO_STALL: Duration = Duration::from_secs(3);
    let mut world = World::start([Site::new().mtu(1_280).link("20mbit,40ms")]).await?;
    world.lab.block_too_big()?;
    let edge = world.edge(1).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    download.finish(NO_STALL).await?;

    let listener = world.lab.host(&edge.host).listen(8100)?;
    let sending = tokio::spawn(send(world.connect("edge1:8100").await?, SIZE));
    let upload = Transfer::new(accept(&listener).await?, SIZE);
    upload.finish(NO_STALL).await?;
    Ok(sending.await??)
}

/// Something that happens to a site.
type Change = fn(&LabSite) -> anyhow::Result<()>;

/// A download during which `change` happens to the site, twice.
async fn download_through(nat: Nat, change: Change) -> anyhow::Result<()> {
    let (mut world, edge) = World::with_edge(Site::new().nat(nat).link(THIN)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let site = world.lab.site(1);
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    for third in [1, 2] {
        download.read_to(SIZE / 3 * third, PATIENCE).await?;
        change(site)?;
    }
    download.finish(PATIENCE).await?;
    assert_one_session(&world).await
}

/// The transfer has crossed on the connection with which it began: the node has been online all the time.
async fn assert_one_session(world: &World) -> anyhow::Result<()> {
    let lines = world.gateway.stderr();
    let last_online = lines
        .iter()
        .rposition(|line| line.contains("node online"))
        .context("never online")?;
    ensure!(
        !lines[last_online..].iter().any(|line| line.contains("session ended")),
        "{lines:?}"
    );
    // One for the echo of `join`, one for the agent.
    ensure!(
        lines.iter().filter(|line| line.contains("node online")).count() == 2,
        "{lines:?}"
    );
    wait_until("it is online", SOON, async || {
        world.node("edge1").await.is_ok_and(|node| node["state"] == "online")
    })
    .await
}

/// A stream on which nothing is under way when `change` happens, and something after it, with an answer `within` the time.
async fn silence_through(change: Change, within: Duration) -> anyhow::Result<()> {
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric)).await?;
    world.offer(&edge, Service::Echo, 8100).await?;
    let mut stream = world.connect("edge1:8100").await?;
    let mut echo = [0; 5];
    for (word, within) in [(b"early", SOON), (b"later", within)] {
        stream.write_all(word).await?;
        timeout(within, stream.read_exact(&mut echo))
            .await
            .context("no echo")??;
        assert_eq!(&echo, word);
        // Acknowledgements that are under way would open a binding anew.
        wait_for_silence(world.lab.site(1)).await?;
        change(world.lab.site(1))?;
    }
    assert_one_session(&world).await
}

/// Waits until nothing has crossed a site's link for a moment.
async fn wait_for_silence(site: &LabSite) -> anyhow::Result<()> {
    let packets = || {
        let stats = site.link().stats();
        stats.up.delivered_packets + stats.down.delivered_packets
    };
    let mut last = (packets(), Instant::now());
    wait_until("the link is silent", SOON, async || {
        let seen = packets();
        if seen != last.0 {
            last = (seen, Instant::now());
        }
        last.1.elapsed() > SILENCE
    })
    .await
}

/// Answers requests with a name in a field.
async fn greet(listener: TcpListener, name: String) -> anyhow::Result<()> {
    loop {
        let mut stream = accept(&listener).await?;
        head(&mut stream).await?;
        let answer = format!("HTTP/1.1 204 No Content\r\nServer: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}
