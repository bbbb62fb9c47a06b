use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tunnel_e2e::lab::Host;
use tunnel_e2e::{Lab, Nat, Need, Process, Service, Site, require, run, wait_until};

use crate::stream::{Transfer, accept, head};
use crate::world::{PROXY, SOON, World, stderr_of, stdout_of, stop};

const THIN: &str = "20mbit,40ms";
const SIZE: usize = 5_000_000;

/// How long an edge may take to find out that its gateway is another process, and to come back.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What one pause after another, each longer than the one before, leaves of attempts to accept in half a minute.
const FEW: u64 = 100;

/// What is left to a program without descriptors.
const DESCRIPTORS: usize = 64;

/// The gateway's ports beside those that every test has.
const SNI: u16 = 8_443;
const HTTP: u16 = 7_081;
const FORWARD: u16 = 6_080;

const HELLO: &[u8] = b"hello from the edge\n";

/// The ways out of an edge.
const WAYS_OUT: &str = r#"
[[service]]
name = "web"
target = "127.0.0.1:8080"

[[listen]]
metrics = "127.0.0.1:7091"

[[listen]]
listen = "127.0.0.1:5001"
service = "registry"

[proxy]
"#;

/// What the gateway is told beside its listeners.
fn ways_in(gw: Ipv4Addr) -> String {
    format!(
        r#"
[[service]]
name = "registry"
target = "127.0.0.1:5000"

[[forward]]
listen = "{gw}:{FORWARD}"
node = "edge1"
target = "8080"

[[rule]]
subjects = ["node:edge1"]
nodes = "cloud"
targets = ["service:registry"]

[[rule]]
subjects = ["cidr:0.0.0.0/0"]
nodes = "edge1"
targets = ["tcp:8080"]
"#
    )
}

/// R3, N9
#[tokio::test]
async fn r3_after_kill_9_edges_come_back_and_a_spent_token_stays_spent() -> anyhow::Result<()> {
    require!(Need::Lab);
    let mut world = World::start([Site::new().nat(Nat::Symmetric), Site::new()]).await?;
    let mut edge = world.new_edge(1)?;
    let token = world.token().await?;
    stdout_of(&edge.join(&world.lab, &token).await?)?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;

    world.gateway.kill().await?;
    world.restart_gateway().await?;
    world.wait_for_state("edge1", "online", BACK_WITHIN).await?;
    let refused = world.new_edge(2)?.join(&world.lab, &token).await?;
    assert!(stderr_of(&refused).contains("error[token-refused]: "), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_loss_of_a_link_is_in_the_journal_of_both_ends() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, edge) = World::with_edge(Site::new()).await?;
    world.gateway.kill().await?;
    world.restart_gateway().await?;
    world.wait_for_state("edge1", "online", BACK_WITHIN).await?;
    wait_until("the gateway has the journal", SOON, async || {
        let history = world.cloud_json(&["nodes", "history", "edge1"]).await;
        history.is_ok_and(|history| history["losses"][0]["cause"] == "gateway-restart")
    })
    .await?;
    wait_until("the edge knows that", SOON, async || {
        let history = edge.run(&world.lab, &["history", "-o", "json"]).await;
        let history = history.and_then(|output| Ok(serde_json::from_str::<Value>(&stdout_of(&output)?)?));
        history.is_ok_and(|history| {
            let loss = &history["losses"][0];
            loss["cause"] == "gateway-restart" && loss["uploaded"] == true && loss["sent_bytes"].as_u64() > Some(0)
        })
    })
    .await
}

/// N9: however an answer says where it ends, a gateway that dies must not end it.
#[tokio::test]
async fn n9_a_killed_gateway_resets_its_clients_and_ends_nothing() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, edge) = World::with_edge(Site::new()).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    let mut cut = Vec::new();
    let mut targets = Vec::new();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe first part",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\nthe first part\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nthe first part",
    ] {
        let target = async {
            let mut target = accept(&listener).await?;
            head(&mut target).await?;
            target.write_all(answer.as_bytes()).await?;
            anyhow::Ok(target)
        };
        let (client, target) = tokio::join!(world.get("http://edge1:8100/"), target);
        targets.push(target?);
        cut.push((answer, client?.1));
    }
    cut.push(("CONNECT", world.connect("edge1:8100").await?));

    world.gateway.kill().await?;
    for (answer, mut client) in cut {
        let error = rest(&mut client)
            .await?
            .err()
            .with_context(|| format!("it ended well: {answer}"))?;
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{answer}: {error}");
    }
    drop(targets);
    Ok(())
}

/// N9, at the other end.
#[tokio::test]
async fn n9_a_killed_edge_comes_back_and_its_streams_are_reset() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, mut edge) = World::with_edge(Site::new().link(THIN)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    download.read_to(SIZE / 5, SOON).await?;
    edge.agent()?.kill().await?;
    edge.start(&world.lab)?;
    let error = download.break_of().await?;
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    edge.wait_connected(&world.lab).await?;
    let (head, _) = world.get("http://edge1:8080/").await?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_lets_a_download_end() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, mut edge) = World::with_edge(Site::new().link(THIN)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    download.read_to(SIZE / 5, SOON).await?;

    world.gateway.signal(Signal::SIGTERM)?;
    wait_until("nobody else is let in", SOON, async || {
        world.client().connect(world.proxy()).await.is_err()
    })
    .await?;
    edge.agent()?.wait_for_line("the gateway is leaving", SOON).await?;
    download.finish(SOON).await?;
    let status = world.gateway.wait_for_exit(SOON).await?;
    ensure!(status.success(), "{status}");

    world.restart_gateway().await?;
    world.wait_for_state("edge1", "online", BACK_WITHIN).await
}

/// R1: every listener of both programs, each by itself.
#[tokio::test]
async fn r1_without_descriptors_each_listener_pauses_and_goes_on() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("prlimit"), Need::Program("curl"));
    let mut world = World::start([Site::new().link(THIN)]).await?;
    let gw = world.gw().addr();
    let text = fs::read_to_string(world.config())?;
    let listen = format!("[listen]\nsni = \"{gw}:{SNI}\"\nhttp = \"{gw}:{HTTP}\"\n");
    fs::write(world.config(), text.replace("[listen]\n", &listen) + &ways_in(gw))?;
    stop(&mut world.gateway).await?;
    world.restart_gateway().await?;
    let registry = world
        .gw()
        .serve(Service::Http, ([127, 0, 0, 1], 5000).into(), world.logs());
    let registry = registry.await?;
    world.keep(registry);
    let mut edge = world.join(1).await?;
    let text = fs::read_to_string(&edge.config)?;
    fs::write(&edge.config, text + WAYS_OUT)?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    download.read_to(SIZE / 5, SOON).await?;

    let client = world.client();
    let local = world.lab.host(&edge.host);
    let at_edge = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let at_gateway = [("proxy", PROXY), ("sni", SNI), ("http", HTTP), ("forward", FORWARD)];
    let at_edge = [("proxy", at_edge(3128)), ("service", at_edge(5001))];
    let at_gateway = at_gateway.map(|(name, port)| (name, world.gw().at(port)));
    for (program, from, listeners) in [
        (&world.gateway, client, &at_gateway[..]),
        (&*edge.agent()?, local, &at_edge[..]),
    ] {
        limit_descriptors(program).await?;
        // More than there is room for at the first; those that are not accepted wait in the kernel.
        let mut idle = Vec::new();
        for &(name, address) in listeners {
            let connections = if idle.is_empty() { DESCRIPTORS } else { 1 };
            for _ in 0..connections {
                idle.push(from.connect(address).await?);
            }
            says(program, "accepting paused", name).await?;
        }
        drop(idle);
        for &(name, address) in listeners {
            // What paused it may have been that nobody was left to accept: the last one took the last descriptor.
            let _one_more = from.connect(address).await?;
            says(program, "accepting resumed", name).await?;
        }
    }
    download.finish(SOON).await?;

    let forward = format!("http://{}/", world.gw().at(FORWARD));
    let by_host = format!("::{}", world.gw().at(HTTP));
    for way in [
        &["-x", &world.proxy_url("http"), "http://edge1:8080/"][..],
        &["--connect-to", &by_host, "http://edge1:8080/"],
        &[&forward],
    ] {
        assert_eq!(world.curl_ok(way).await?, HELLO, "{way:?}");
    }
    let mut not_tls = client.connect(world.gw().at(SNI)).await?;
    not_tls.write_all(b"x").await?;
    let mut alert = [0; 7];
    timeout(SOON, not_tls.read_exact(&mut alert))
        .await
        .context("no answer")??;
    assert_eq!(alert[..6], [21, 3, 3, 0, 2, 2]);
    for way in [
        &["-x", "http://127.0.0.1:3128", "http://registry.cloud/"][..],
        &["http://127.0.0.1:5001/"],
    ] {
        let mut curl = local.command("curl");
        curl.args(["-sS", "--noproxy", ""]).args(way);
        assert_eq!(run(curl, SOON).await?.stdout, HELLO, "{way:?}");
    }
    for (host, port, listeners) in [(world.gw(), 7090, &at_gateway[..]), (local, 7091, &at_edge[..])] {
        for &(name, _) in listeners {
            let pauses = accept_pauses(host, port, name).await?;
            assert!((1..FEW).contains(&pauses), "{name}: {pauses} pauses");
        }
    }
    Ok(())
}

/// R2
#[tokio::test]
async fn r2_with_a_full_disk_nobody_joins_or_dials_and_what_is_connected_stays() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("mount"));
    let dir = tempfile::tempdir()?;
    let disk = Disk::mount(&dir.path().join("cloud-state")).await?;
    let lab = Lab::builder().site(Site::new().link(THIN)).site(Site::new()).build()?;
    let mut world = World::start_in(lab, dir.path()).await?;
    let edge = world.edge(1).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let token = world.token().await?;
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    download.read_to(SIZE / 5, SOON).await?;

    let filler = disk.fill()?;
    let late = world.new_edge(2)?;
    let refused = late.join(&world.lab, &token).await?;
    let said = stderr_of(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error[join-enrol]: ") && said.contains("try again later"),
        "{said}"
    );
    download.finish(SOON).await?;
    // The page that the audit log has begun takes a few records more.
    wait_until("dials are refused", SOON, async || {
        let answer = world.get("http://edge1:8080/").await;
        answer.is_ok_and(|(head, _)| head.starts_with("HTTP/1.1 503 ") && head.contains("overloaded"))
    })
    .await?;

    // It mends itself; the token was not spent for nothing, and the store is whole.
    fs::remove_file(filler)?;
    wait_until("dials are granted", SOON, async || {
        let answer = world.get("http://edge1:8080/").await;
        answer.is_ok_and(|(head, _)| head.starts_with("HTTP/1.1 200 "))
    })
    .await?;
    stdout_of(&late.join(&world.lab, &token).await?)?;
    world.gateway.kill().await?;
    world.restart_gateway().await?;
    world.node("edge2").await?;

    world.cloud_ok(&["audit", "verify"]).await?;
    let log = world.cloud_ok(&["audit", "tail", "-n", "1000", "-o", "json"]).await?;
    for event in ["join-granted", "dial-granted", "resumed", "gateway-started"] {
        assert!(log.contains(&format!("\"event\":\"{event}\"")), "{log}");
    }
    // What ended while nothing could be written was kept.
    let downloads = log.lines().filter(|line| line.contains("dial-ended"));
    let mut sizes = downloads.filter_map(|line| serde_json::from_str::<Value>(line).ok()?["bytes_to_caller"].as_u64());
    assert!(sizes.any(|size| size >= SIZE as u64), "{log}");
    Ok(())
}

/// What is still to come, or how it breaks.
async fn rest(client: &mut BufReader<TcpStream>) -> anyhow::Result<std::io::Result<usize>> {
    timeout(SOON, client.read_to_end(&mut Vec::new()))
        .await
        .context("neither an end nor a reset came")
}

/// Leaves a program so many descriptors.
async fn limit_descriptors(program: &Process) -> anyhow::Result<()> {
    let mut prlimit = Command::new("prlimit");
    prlimit
        .arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"))
        .arg(format!("--pid={}", program.pid()));
    stdout_of(&run(prlimit, SOON).await?).map(drop)
}

/// Waits until a program says something of a listener.
async fn says(program: &Process, what: &str, listener: &str) -> anyhow::Result<()> {
    let named = format!("listener={listener}");
    let line = |line: &str| line.contains(what) && line.contains(&named);
    program
        .wait_for_line_that(&format!("says {what:?} of {listener}"), SOON, line)
        .await
        .map(drop)
}

/// How often accepting on this listener was put off.
async fn accept_pauses(host: &Host, metrics: u16, listener: &str) -> anyhow::Result<u64> {
    let mut curl = host.command("curl");
    curl.args(["-sS", "--noproxy", "", &format!("http://127.0.0.1:{metrics}/metrics")]);
    let text = stdout_of(&run(curl, SOON).await?)?;
    let line = text
        .lines()
        .find(|line| line.contains("accept_pauses_total") && line.contains(&format!("{listener:?}")));
    let number = line
        .and_then(|line| line.rsplit(' ').next())
        .with_context(|| text.clone())?;
    Ok(number.parse()?)
}

/// A small disk of its own for one directory.
struct Disk(PathBuf);

impl Disk {
    async fn mount(at: &Path) -> anyhow::Result<Self> {
        fs::create_dir(at)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"]).arg(at);
        stdout_of(&run(mount, SOON).await?)?;
        Ok(Self(at.to_owned()))
    }

    /// Leaves no room; removing the file that is returned makes some again.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path)?;
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4_096]) {
                break error;
            }
        };
        ensure!(full.kind() == ErrorKind::StorageFull, "{full}");
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, as a program that was killed just now may still hold it.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
