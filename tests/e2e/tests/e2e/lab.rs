use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite::Message;
use tunnel_e2e::{Lab, Nat, Need, Service, Site, require, run, wait_until};
use tunnel_linkem::{LinkConfig, Loss, Probability};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 7_000;

#[tokio::test]
async fn a_port_restricted_nat_keeps_one_mapping_per_socket() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new().nat(Nat::PortRestricted)).build()?;
    let (gw, user) = (lab.host("gw").udp(PORT)?, lab.host("user1").udp(PORT)?);
    let edge = lab.host("edge1").udp(0)?;
    let to_gw = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    let to_user = exchange(&edge, &user, lab.host("user1").at(PORT)).await?;
    assert_eq!(to_gw, to_user);
    assert_eq!(to_gw.ip(), IpAddr::from(lab.site(1).public_addr()));
    Ok(())
}

#[tokio::test]
async fn a_symmetric_nat_gives_each_peer_another_port() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().users(8).site(Site::new().nat(Nat::Symmetric)).build()?;
    let edge = lab.host("edge1").udp(0)?;
    let mut ports = Vec::new();
    for number in 1..=8 {
        let user = lab.host(&format!("user{number}"));
        let socket = user.udp(PORT)?;
        let seen = exchange(&edge, &socket, user.at(PORT)).await?;
        assert_eq!(
            exchange(&edge, &socket, user.at(PORT)).await?,
            seen,
            "one peer, one port"
        );
        ports.push(seen.port());
    }
    // Random ports may meet, but not all eight of them.
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 4, "{ports:?}");
    Ok(())
}

#[tokio::test]
async fn two_sites_with_the_same_private_range_both_reach_the_gateway() -> anyhow::Result<()> {
    require!(Need::Lab);
    let site = || Site::new().lan("192.168.1.0/24");
    let lab = Lab::builder().site(site()).site(site()).build()?;
    assert_eq!(lab.host("edge1").addr(), lab.host("edge2").addr());
    let gw = lab.host("gw").udp(PORT)?;
    for number in [1, 2] {
        let edge = lab.site(number).edge().udp(PORT)?;
        let seen = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
        assert_eq!(seen.ip(), IpAddr::from(lab.site(number).public_addr()));
    }
    Ok(())
}

#[tokio::test]
async fn nothing_reaches_a_site_from_outside() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new()).build()?;
    let (gw, user) = (lab.host("gw").udp(PORT)?, lab.host("user1").udp(PORT)?);
    let edge = lab.host("edge1").udp(PORT)?;
    let listener = lab.host("edge1").listen(PORT)?;
    let public = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;

    // A stranger knocks at the port that is open for the gateway, and at TCP.
    user.send_to(b"knock", public).await?;
    let before = lab.site(1).link().stats().down.delivered_packets;
    let knocking = lab.host("user1").connect(public);
    tokio::pin!(knocking);
    tokio::select! {
        connected = &mut knocking => anyhow::bail!("an answer came from inside: {connected:?}"),
        knocked = wait_until("both knocks have crossed the link", SOON, async || {
            lab.site(1).link().stats().down.delivered_packets > before
        }) => knocked?,
    }
    // The link keeps order: what the gateway sends now arrives after whatever the stranger has sent.
    exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    assert!(nothing_waits(&edge));
    let accepted = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(accepted.is_err(), "{accepted:?}");

    // What the site has asked, the same stranger may answer.
    exchange(&edge, &user, lab.host("user1").at(PORT)).await?;
    Ok(())
}

#[tokio::test]
async fn a_cut_link_carries_nothing_until_it_is_mended() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new()).build()?;
    let (site, gw) = (lab.site(1), lab.host("gw").udp(PORT)?);
    let edge = site.edge().udp(PORT)?;
    exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;

    site.cut();
    let before = site.link().stats();
    edge.send_to(b"into the void", lab.host("gw").at(PORT)).await?;
    wait_until("the packet has met the cut", SOON, async || {
        site.link().stats().up.cut > before.up.cut
    })
    .await?;
    assert_eq!(site.link().stats().up.delivered_packets, before.up.delivered_packets);

    site.mend();
    exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    assert!(nothing_waits(&gw), "what was cut does not come later");
    Ok(())
}

#[tokio::test]
async fn blocked_udp_stops_both_ways_while_tcp_passes() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new()).build()?;
    let (site, gw) = (lab.site(1), lab.host("gw").udp(PORT)?);
    let edge = site.edge().udp(PORT)?;
    let public = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;

    site.block_udp()?;
    edge.send_to(b"out", lab.host("gw").at(PORT)).await?;
    gw.send_to(b"in", public).await?;
    let server = lab
        .host("gw")
        .serve(Service::Echo, lab.host("gw").at(PORT), lab.dir())
        .await?;
    // TCP crosses the same link behind the datagrams.
    echo_over_tcp(&lab, lab.host("gw").at(PORT)).await?;
    assert!(nothing_waits(&edge) && nothing_waits(&gw));

    site.allow_udp()?;
    exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    drop(server);
    Ok(())
}

#[tokio::test]
async fn forgotten_bindings_come_back_with_other_ports() -> anyhow::Result<()> {
    require!(Need::Lab);
    for nat in [Nat::PortRestricted, Nat::Symmetric] {
        let lab = Lab::builder().site(Site::new().nat(nat)).build()?;
        let gw = lab.host("gw").udp(PORT)?;
        let edge = lab.host("edge1").udp(PORT)?;
        let mut before = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
        for _ in 0..5 {
            lab.site(1).forget_nat_bindings()?;
            let after = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
            assert_eq!(before.ip(), after.ip());
            assert_ne!(before.port(), after.port());
            before = after;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_nat_that_has_forgotten_is_still_port_restricted() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new()).build()?;
    lab.site(1).forget_nat_bindings()?;
    let (gw, user) = (lab.host("gw").udp(PORT)?, lab.host("user1").udp(PORT)?);
    let edge = lab.host("edge1").udp(PORT)?;
    let to_gw = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    assert_eq!(exchange(&edge, &user, lab.host("user1").at(PORT)).await?, to_gw);
    Ok(())
}

#[tokio::test]
async fn addresses_change_on_either_side_of_the_nat() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new()).build()?;
    let (site, gw) = (lab.site(1), lab.host("gw").udp(PORT)?);
    let edge = site.edge().udp(PORT)?;
    let first = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;

    site.change_public_address()?;
    let second = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    assert_ne!(first.ip(), second.ip());
    assert_eq!(second.ip(), IpAddr::from(site.public_addr()));

    let inside = site.edge().addr();
    site.change_edge_address()?;
    assert_ne!(site.edge().addr(), inside);
    let third = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    assert_eq!(third.ip(), second.ip());
    Ok(())
}

#[tokio::test]
async fn a_link_has_its_round_trip_time_and_not_much_more() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new().link("60ms")).build()?;
    let gw = lab.host("gw").udp(PORT)?;
    let edge = lab.host("edge1").udp(PORT)?;
    exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    let mut least = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
        least = least.min(start.elapsed());
    }
    // The least of ten, as other tests keep this machine busy.
    assert!((60..75).contains(&least.as_millis()), "{least:?}");
    Ok(())
}

#[tokio::test]
async fn a_transfer_takes_the_time_that_the_rate_gives_it() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new().link("8mbit,10ms")).build()?;
    let server = lab
        .host("gw")
        .serve(Service::Http, lab.host("gw").at(80), lab.dir())
        .await?;
    let start = Instant::now();
    let body = download(&lab, 500_000).await?;
    assert_eq!(body, pattern(500_000));
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    drop(server);
    Ok(())
}

#[tokio::test]
async fn a_link_without_a_rate_is_fast() -> anyhow::Result<()> {
    require!(Need::Lab);
    const SIZE: usize = 20_000_000;
    let lab = Lab::builder().site(Site::new()).build()?;
    let server = lab
        .host("gw")
        .serve(Service::Http, lab.host("gw").at(80), lab.dir())
        .await?;
    let start = Instant::now();
    let body = download(&lab, SIZE).await?;
    let bits_per_second = SIZE as f64 * 8.0 / start.elapsed().as_secs_f64();
    assert_eq!(body.len(), SIZE);
    assert!(bits_per_second > 50e6, "{bits_per_second}");
    drop(server);
    Ok(())
}

#[tokio::test]
async fn a_bad_link_loses_and_mangles_but_tcp_gets_through() -> anyhow::Result<()> {
    require!(Need::Lab);
    let lab = Lab::builder().site(Site::new().seed(7)).build()?;
    let server = lab
        .host("gw")
        .serve(Service::Http, lab.host("gw").at(80), lab.dir())
        .await?;
    let some = Probability::percent(2.0)?;
    let bad = LinkConfig {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(1),
        loss: Loss::bursts(some, 2.0)?,
        duplicate: some,
        reorder: some,
        corrupt: some,
        ..LinkConfig::default()
    };
    lab.site(1).link().set_link(bad.into());
    assert_eq!(download(&lab, 1_000_000).await?, pattern(1_000_000));
    let stats = lab.site(1).link().stats().down;
    assert!(
        stats.lost > 0 && stats.duplicated > 0 && stats.reordered > 0 && stats.corrupted > 0,
        "{stats:?}"
    );
    drop(server);
    Ok(())
}

/// N6
#[tokio::test]
async fn a_narrow_path_says_so_unless_that_is_blocked() -> anyhow::Result<()> {
    require!(Need::Lab);
    let narrow = || Site::new().mtu(1_280);
    let lab = Lab::builder().site(narrow()).site(narrow()).build()?;
    let gw = lab.host("gw").udp(PORT)?;
    let too_big = [0; 1_400];

    // Linux sends with the don't-fragment flag until it is told that the path is narrower.
    let edge = lab.host("edge1").udp(PORT)?;
    let public = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    wait_until("a sender that is told sends fragments", SOON, async || {
        gw.send_to(&too_big, public).await.is_ok() && !nothing_waits(&edge)
    })
    .await?;

    lab.block_too_big()?;
    let edge = lab.host("edge2").udp(PORT)?;
    let public = exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    for _ in 0..3 {
        gw.send_to(&too_big, public).await?;
        // When this is through, the router has dealt with the one before.
        exchange(&edge, &gw, lab.host("gw").at(PORT)).await?;
    }
    assert!(nothing_waits(&edge));
    Ok(())
}

#[tokio::test]
async fn the_services_answer_across_the_nat() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let lab = Lab::builder().site(Site::new()).build()?;
    let gw = lab.host("gw");
    let _echo = gw.serve(Service::Echo, gw.at(7_001), lab.dir()).await?;
    let _http = gw.serve(Service::Http, gw.at(80), lab.dir()).await?;
    let _ws = gw.serve(Service::WsEcho, gw.at(7_003), lab.dir()).await?;

    echo_over_tcp(&lab, gw.at(7_001)).await?;

    let mut curl = lab.host("lan1").command("curl");
    curl.args([
        "-sS",
        "--data-binary",
        "there and back",
        &format!("http://{}/echo", gw.addr()),
    ]);
    assert_eq!(run(curl, SOON).await?.stdout, b"there and back");

    let stream = lab.host("edge1").connect(gw.at(7_003)).await?;
    let (mut socket, _) = tokio_tungstenite::client_async("ws://gw/", stream).await?;
    socket.send(Message::text("there and back")).await?;
    assert_eq!(socket.next().await.context("closed")??, Message::text("there and back"));
    Ok(())
}

#[tokio::test]
async fn two_labs_at_once_do_not_meet_and_leave_nothing_behind() -> anyhow::Result<()> {
    require!(Need::Lab);
    let build = || Lab::builder().site(Site::new()).build();
    let (one, other) = (build()?, build()?);
    let silent = other.host("gw").udp(PORT)?;
    let (gw, edge) = (one.host("gw").udp(PORT)?, one.host("edge1").udp(PORT)?);
    exchange(&edge, &gw, one.host("gw").at(PORT)).await?;
    assert!(nothing_waits(&silent));

    let mut sleeper = one.host("edge1").command("sleep").arg("600").spawn()?;
    let outside = std::fs::read_link("/proc/self/ns/net")?;
    let inside = format!("/proc/{}/ns/net", sleeper.id().context("no id")?);
    wait_until("the program is inside", SOON, async || {
        std::fs::read_link(&inside).is_ok_and(|namespace| namespace != outside)
    })
    .await?;
    let dir = one.dir().to_owned();
    drop(one);
    assert!(!sleeper.wait().await?.success(), "killed with its lab");
    assert!(!dir.exists());
    Ok(())
}

/// There and back between a site's socket and a public one; returns the site's socket as the other
/// sees it.
async fn exchange(inside: &UdpSocket, outside: &UdpSocket, addr: SocketAddr) -> anyhow::Result<SocketAddr> {
    let mut buffer = [0; 100];
    tokio::time::timeout(SOON, async {
        inside.send_to(b"there", addr).await?;
        let (len, from) = outside.recv_from(&mut buffer).await?;
        assert_eq!(&buffer[..len], b"there");
        outside.send_to(b"back", from).await?;
        let (len, _) = inside.recv_from(&mut buffer).await?;
        assert_eq!(&buffer[..len], b"back");
        Ok(from)
    })
    .await
    .context("no exchange")?
}

/// Whether no datagram has come. `try_recv` alone would trust a readiness that is not up to date.
fn nothing_waits(socket: &UdpSocket) -> bool {
    nix::sys::socket::recv(
        std::os::fd::AsRawFd::as_raw_fd(socket),
        &mut [0; 100],
        nix::sys::socket::MsgFlags::MSG_DONTWAIT,
    ) == Err(nix::Error::EAGAIN)
}

async fn echo_over_tcp(lab: &Lab, to: SocketAddr) -> anyhow::Result<()> {
    let mut stream = lab.host("edge1").connect(to).await?;
    stream.write_all(b"there and back").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert_eq!(answer, "there and back");
    Ok(())
}

/// `/bytes/SIZE` of the gateway's web server, as the edge gets it.
async fn download(lab: &Lab, size: usize) -> anyhow::Result<Vec<u8>> {
    let mut stream = lab.host("edge1").connect(lab.host("gw").at(80)).await?;
    let request = format!("GET /bytes/{size} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("no head")?;
    Ok(answer.split_off(head + 4))
}

fn pattern(size: usize) -> Vec<u8> {
    (0..251u8).cycle().take(size).collect()
}
