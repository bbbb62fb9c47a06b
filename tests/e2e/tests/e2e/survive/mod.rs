/// Networks in which UDP does not get through.
mod carriers;
/// The clients.
mod clients;

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tunnel_e2e::lab::LabSite;
use tunnel_e2e::{Nat, Need, Service, Site, require};

use self::clients::Clients;
use crate::stream::{Transfer, accept, send};
use crate::world::{SOON, World};

/// The download takes a quarter of a minute on this link if nothing happens.
const LINK: &str = "100mbit,20ms";

/// Within this a link that carries nothing has shown: the gateway's idle time, and a little.
const SHOWN_WITHIN: Duration = Duration::from_secs(75);

/// How long a node may take to be online again, once its link is there; it dials again and again while streams wait.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// N2: a minute in which the link carries nothing, while both ends believe in their connection at first.
#[tokio::test]
async fn n2_ssh_curl_kubectl_and_a_websocket_go_on_after_a_minute_without_a_link() -> anyhow::Result<()> {
    clients_needed!();
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link(LINK)).await?;
    let mut clients = Clients::start(&mut world, &edge).await?;
    let mut killed = world.connect("edge1:8080").await?;
    world.lab.site(1).cut();
    clients.speak().await?;
    world.wait_for_state("edge1", "offline", SHOWN_WITHIN).await?;
    let node = world.node("edge1").await?;
    assert_eq!(node["reason"], "idle-timeout", "{node}");
    let streams = world.cloud_json(&["streams", "ls"]).await?;
    let listed = streams["streams"].as_array().context("no list")?;
    ensure!(listed.len() >= Clients::COUNT, "{streams}");
    let waits = |stream: &Value| stream["state"] == "waiting" && stream["waiting_since"] == node["since"];
    ensure!(listed.iter().all(waits), "{streams} {node}");
    // Who is not to wait any longer does not.
    let to_kill = listed
        .iter()
        .find(|stream| stream["target"] == "port:8080" && stream["way"] == "connect");
    let id = to_kill.context("it is not listed")?["id"].to_string();
    world.cloud_ok(&["streams", "kill", &id]).await?;
    let error = timeout(SOON, killed.read_u8()).await?.err().context("no error")?;
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    // Nobody else is kept waiting.
    let (head, _) = timeout(SOON, world.get("http://edge1:8080/")).await??;
    ensure!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("node-offline"),
        "{head}"
    );

    world.lab.site(1).mend();
    world.wait_for_state("edge1", "online", BACK_WITHIN).await?;
    clients.go_on().await?;
    clients.finish().await
}

/// N5
#[tokio::test]
async fn n5_ssh_curl_kubectl_and_a_websocket_go_on_when_the_nat_forgets_them() -> anyhow::Result<()> {
    clients_needed!();
    clients_go_on_after(&[LabSite::forget_nat_bindings, LabSite::forget_nat_bindings]).await
}

/// N5
#[tokio::test]
async fn n5_ssh_curl_kubectl_and_a_websocket_go_on_when_edge_and_site_get_other_addresses() -> anyhow::Result<()> {
    clients_needed!();
    clients_go_on_after(&[LabSite::change_edge_address, LabSite::change_public_address]).await
}

/// N1
#[tokio::test]
async fn n1_no_byte_is_lost_on_a_link_that_is_dark_for_five_of_seven_seconds() -> anyhow::Result<()> {
    require!(Need::Lab);
    const DARK: Duration = Duration::from_secs(5);
    const LIGHT: Duration = Duration::from_secs(2);
    const TIMES: usize = 4;
    const SIZE: usize = 20_000_000;
    let (mut world, edge) = World::with_edge(Site::new().link("20mbit,40ms")).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    let mut download = Transfer::download(&world, "edge1:8080", SIZE).await?;
    let sending = tokio::spawn(send(world.connect("edge1:8100").await?, SIZE));
    let mut upload = Transfer::new(accept(&listener).await?, SIZE);
    let site = world.lab.site(1);
    for _ in 0..TIMES {
        for (lasts, up) in [(LIGHT, true), (DARK, false)] {
            if up {
                site.mend()
            } else {
                site.cut()
            }
            let reading = async { tokio::try_join!(download.read_to(SIZE, SOON), upload.read_to(SIZE, SOON)) };
            // What breaks is an error; that it takes longer is what is wanted.
            if let Ok(read) = timeout(lasts, reading).await {
                read?;
                anyhow::bail!("all was there before the link had been dark {TIMES} times");
            }
        }
    }
    site.mend();
    tokio::try_join!(download.finish(SOON), upload.finish(SOON))?;
    Ok(sending.await??)
}

/// Has these things happen to a site, one after the other, while clients are busy.
async fn clients_go_on_after(changes: &[fn(&LabSite) -> anyhow::Result<()>]) -> anyhow::Result<()> {
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link(LINK)).await?;
    let mut clients = Clients::start(&mut world, &edge).await?;
    for change in changes {
        change(world.lab.site(1))?;
        clients.go_on().await?;
    }
    clients.finish().await
}

/// Skips a test where one of the clients is not installed.
macro_rules! clients_needed {
    () => {
        require!(
            Need::Lab,
            Need::Program("curl"),
            Need::Program("kubectl"),
            Need::Program("ssh"),
            Need::Program("ssh-keygen"),
            Need::Program("sshd"),
            Need::Program("ncat")
        )
    };
}
use clients_needed;
