use std::fs;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::time::timeout;
use tunnel_carrier::quic;
use tunnel_e2e::lab::Host;
use tunnel_e2e::{Need, Process, Service, Site, require, wait_until};
use tunnel_identity::tls::{self, Alpn};
use tunnel_identity::{NodeFiles, TimeFloor, UnixTime};
use tunnel_model::{Reason, Refusal};

use crate::stream::Transfer;
use crate::world::{Edge, PUBLIC, SOON, World, stdout_of, stop};

/// T1: how soon a revoked node is gone.
const CUT_WITHIN: Duration = Duration::from_secs(5);

/// T1: how soon it is turned away that comes back.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// The least time after which an agent tries again that was turned away for good, in seconds.
const LASTING: f64 = 120.0;

/// More than a transfer of it can be through before the test looks.
const SIZE: usize = 50_000_000;

/// T1
#[tokio::test]
async fn t1_a_revoked_node_is_cut_off_at_once_and_does_not_come_back() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (mut world, mut edge) = World::with_edge(Site::new().link("20mbit,40ms")).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    download.read_to(500_000, SOON).await?;

    world.cloud_ok(&["nodes", "revoke", "edge1"]).await?;
    let refused = timeout(REFUSED_WITHIN, knock(&world, NodeFiles::open(&edge.state)?));
    let cut = timeout(CUT_WITHIN, async {
        let line = edge.agent()?.wait_for_line("not connected", CUT_WITHIN).await?;
        world.wait_for_state("edge1", "offline", CUT_WITHIN).await?;
        anyhow::Ok((line, download.break_of().await?))
    });
    let (refused, cut) = tokio::join!(refused, cut);
    assert_eq!(refused.context("it was let in")??.reason, Reason::Revoked);
    let (line, error) = cut.context("it was not cut off")??;
    assert!(line.contains("reason=revoked"), "{line}");
    assert!(retry_seconds(&line)? >= LASTING, "{line}");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");

    let refusals = |world: &World| {
        let lines = world.gateway.stderr();
        lines.iter().filter(|line| line.contains("node refused")).count()
    };
    let before = refusals(&world);
    // A new start is no way around it, nor does it make the agent knock more often.
    stop(edge.agent()?).await?;
    edge.start(&world.lab)?;
    let line = edge.agent()?.wait_for_line("not connected", SOON).await?;
    assert!(line.contains("reason=revoked"), "{line}");
    assert!(retry_seconds(&line)? >= LASTING, "{line}");
    assert_eq!(refusals(&world), before + 1, "{:?}", world.gateway.stderr());
    Ok(())
}

/// T1
#[tokio::test]
async fn t1_of_two_machines_with_one_identity_the_newest_has_the_node() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, mut older) = World::with_edge(Site::new()).await?;
    let mut newer = copy(&world, &older)?;
    newer.start(&world.lab)?;
    newer.wait_connected(&world.lab).await?;

    let line = older.agent()?.wait_for_line("not connected", SOON).await?;
    assert!(line.contains("reason=superseded"), "{line}");
    assert!(retry_seconds(&line)? >= LASTING, "they throw each other out: {line}");
    world.gateway.wait_for_line("a newer session took over", SOON).await?;
    assert_eq!(world.node("edge1").await?["state"], "online");
    let answering = world.lab.host(&newer.host);
    let _service = serve_name(&world, answering).await?;
    let (head, _) = world.get("http://edge1:8080/").await?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");

    let told: Value = serde_json::from_str(&stdout_of(&older.run(&world.lab, &["status", "-o", "json"]).await?)?)?;
    assert_eq!(
        (&told["state"], &told["reason"]),
        (&"waiting".into(), &"superseded".into()),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn a_removed_node_leaves_its_name_to_another() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, mut edge) = World::with_edge(Site::new()).await?;
    world.cloud_ok(&["nodes", "rm", "edge1"]).await?;
    let line = edge.agent()?.wait_for_line("not connected", CUT_WITHIN).await?;
    assert!(line.contains("reason=revoked"), "{line}");
    wait_until("the node is gone", SOON, async || world.node("edge1").await.is_err()).await?;
    stop(edge.agent()?).await?;

    fs::remove_dir_all(&edge.state)?;
    fs::remove_file(&edge.config)?;
    stdout_of(&edge.join(&world.lab, &world.token().await?).await?)?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await
}

/// A handshake with an edge's certificate; returns what the gateway says to it.
async fn knock(world: &World, files: NodeFiles) -> anyhow::Result<Refusal> {
    let (credential, root) = (files.node().load()?, files.root()?);
    let (credential, root) = credential.zip(root).context("it has not joined")?;
    let floor = TimeFloor::new(UnixTime::from_secs(0), None);
    let tls = tls::client_config_node(&root, &credential, &floor, Alpn::Tunnel)?;
    let dialer = world.dialer()?;
    let connection = dialer.dial_addresses(&[world.gw().at(PUBLIC)], tls).await?;
    Ok(quic::refusal_of(&connection.closed().await))
}

/// The same identity on another machine of the site.
fn copy(world: &World, edge: &Edge) -> anyhow::Result<Edge> {
    let mut copy = world.new_edge(2)?;
    copy.host = "lan1".to_owned();
    fs::create_dir(&copy.state)?;
    for entry in fs::read_dir(&edge.state)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), copy.state.join(entry.file_name()))?;
        }
    }
    let text = fs::read_to_string(&edge.config)?;
    let (from, to) = (edge.state.display().to_string(), copy.state.display().to_string());
    fs::write(&copy.config, text.replace(&from, &to))?;
    fs::set_permissions(&copy.state, fs::metadata(&edge.state)?.permissions())?;
    Ok(copy)
}

async fn serve_name(world: &World, host: &Host) -> anyhow::Result<Process> {
    host.serve(Service::Http, ([127, 0, 0, 1], 8080).into(), world.logs())
        .await
}

/// After how many seconds the agent says that it tries again.
fn retry_seconds(line: &str) -> anyhow::Result<f64> {
    let (_, rest) = line.split_once("retry_s=").with_context(|| line.to_owned())?;
    let number = rest.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| line.to_owned())
}
