use std::fs;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;
use tunnel_e2e::{Nat, Need, Service, Site, require, run};

use crate::dns;
use crate::stream::pattern;
use crate::world::{Edge, SOON, World, stop};

/// What the gateway's operator adds: edge1 reaches one service of the cloud side and one of edge2.
const RULES: &str = r#"
[[service]]
name = "registry"
target = "127.0.0.1:5000"

[[service]]
name = "vault"
target = "127.0.0.1:5000"

[[rule]]
subjects = ["node:edge1"]
nodes = "cloud"
targets = ["service:registry"]

[[rule]]
subjects = ["node:edge1"]
nodes = "edge2"
targets = ["service:web"]
"#;

/// What each edge's operator adds.
const WAYS_OUT: &str = r#"
[[service]]
name = "web"
target = "127.0.0.1:8080"

[[service]]
name = "other"
target = "127.0.0.1:8080"

[[listen]]
listen = "127.0.0.1:5001"
service = "registry"

[[listen]]
listen = "127.0.0.1:5002"
service = "web.edge2"

[[listen]]
listen = "127.0.0.1:5003"
service = "vault.cloud"

[[listen]]
listen = "127.0.0.1:5004"
service = "other.edge2"

[[listen]]
listen = "127.0.0.1:5005"
service = "web.edge1"
"#;

/// T1: nothing between edges, and nothing of the cloud side, without a rule that names it.
#[tokio::test]
async fn t1_an_edges_client_reaches_what_a_rule_names_across_two_nats_and_nothing_else() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let sites = [
        Site::new().nat(Nat::Symmetric).link("50mbit,20ms"),
        Site::new().link("50mbit,20ms"),
    ];
    let mut world = World::start(sites).await?;
    let config = fs::read_to_string(world.config())?;
    fs::write(world.config(), config + RULES)?;
    stop(&mut world.gateway).await?;
    world.restart_gateway().await?;
    let registry = world
        .gw()
        .serve(Service::Http, ([127, 0, 0, 1], 5000).into(), world.logs());
    let registry = registry.await?;
    world.keep(registry);

    let (edge1, edge2) = (edge(&world, 1).await?, edge(&world, 2).await?);
    world.offer(&edge1, Service::Http, 8080).await?;
    world.offer(&edge2, Service::Http, 8080).await?;

    for port in [5001, 5002] {
        let output = fetch(&world, &edge1, port, "bytes/1000000").await?;
        assert!(output.status.success(), "port {port}: {output:?}");
        assert!(output.stdout == pattern(1_000_000), "port {port}");
    }
    for port in [5003, 5004, 5005] {
        refused(&fetch(&world, &edge1, port, "").await?);
    }
    // What edge1 may, edge2 may not.
    for port in [5001, 5002, 5003, 5004, 5005] {
        refused(&fetch(&world, &edge2, port, "").await?);
    }
    Ok(())
}

/// A DNS server of the cloud side, another of edge2, and who may ask which.
const DNS_RULES: &str = r#"
[[service]]
name = "dns"
target = "127.0.0.1:5353"
protocol = "udp"

[[service]]
name = "registry"
target = "127.0.0.1:5353"

[[rule]]
subjects = ["node:edge1"]
nodes = "cloud"
targets = ["service:dns", "service:registry"]

[[rule]]
subjects = ["node:edge1"]
nodes = "edge2"
targets = ["service:dns"]
"#;

const DNS_WAYS_OUT: &str = r#"
[[service]]
name = "dns"
target = "127.0.0.1:8353"
protocol = "udp"

[[listen]]
listen = "127.0.0.1:5301"
service = "dns.cloud"
protocol = "udp"

[[listen]]
listen = "127.0.0.1:5302"
service = "dns.edge2"
protocol = "udp"

[[listen]]
listen = "127.0.0.1:5303"
service = "registry.cloud"
protocol = "udp"

[[listen]]
listen = "127.0.0.1:5304"
service = "dns.cloud"

[[listen]]
listen = "127.0.0.1:5305"
service = "dns.edge2"
"#;

#[tokio::test]
async fn dig_at_an_edge_asks_servers_of_the_cloud_side_and_of_another_edge_across_two_nats() -> anyhow::Result<()> {
    require!(
        Need::Lab,
        Need::Program("curl"),
        Need::Program("dig"),
        Need::Program("dnsmasq")
    );
    let sites = [
        Site::new().nat(Nat::Symmetric).link("50mbit,20ms"),
        Site::new().link("50mbit,20ms"),
    ];
    let mut world = World::start(sites).await?;
    let config = fs::read_to_string(world.config())?;
    fs::write(world.config(), config + DNS_RULES)?;
    stop(&mut world.gateway).await?;
    world.restart_gateway().await?;
    let (edge1, edge2) = (
        edge_with(&world, 1, DNS_WAYS_OUT).await?,
        edge_with(&world, 2, DNS_WAYS_OUT).await?,
    );
    for (host, port, address) in [("gw", 5353, "192.0.2.1"), (&edge2.host, 8353, "192.0.2.2")] {
        let server = dns::serve(&world, world.lab.host(host), port, address).await?;
        world.keep(server);
    }

    let from = world.lab.host(&edge1.host);
    for (port, address) in [(5301, "192.0.2.1"), (5302, "192.0.2.2")] {
        let answer = dns::dig(from, "127.0.0.1", port, &["+short", "small.example", "A"]).await?;
        assert_eq!(answer, address);
        let answer = dns::dig(from, "127.0.0.1", port, &["large.example", "TXT"]).await?;
        assert_eq!(answer.matches(&dns::text()).count(), 12, "{answer}");
    }
    // More clients than have places: those that were answered give way.
    for _ in 0..40 {
        let answer = dns::dig(from, "127.0.0.1", 5302, &["+short", "small.example", "A"]).await?;
        assert_eq!(answer, "192.0.2.2");
    }
    // By the other protocol than the service's nothing is reached, neither of the cloud side nor of an edge.
    dns::dig(from, "127.0.0.1", 5303, &["+tries=1", "small.example", "A"])
        .await
        .unwrap_err();
    for port in [5304, 5305] {
        refused(&fetch(&world, &edge1, port, "").await?);
    }
    // What edge1 may, edge2 may not.
    let from = world.lab.host(&edge2.host);
    for port in [5301, 5302] {
        dns::dig(from, "127.0.0.1", port, &["+tries=1", "small.example", "A"])
            .await
            .unwrap_err();
    }

    // Whoever asks why is told, by the protocol that the service has.
    for (what, who) in [
        ("edge2:service:dns", "node:edge1"),
        ("cloud:service:dns", "node:edge1"),
        ("dns.edge2:53", "group:admins"),
        ("udp:edge2:8353", "group:admins"),
    ] {
        let explained: Value = world.cloud_json(&["explain", what, "--as", who]).await?;
        let hops = explained["hops"].as_array().context("no hops")?;
        ensure!(
            hops.len() == 6 && hops.iter().all(|hop| hop["verdict"] == "ok"),
            "{what}: {explained}"
        );
    }
    Ok(())
}

async fn edge(world: &World, site: usize) -> anyhow::Result<Edge> {
    edge_with(world, site, WAYS_OUT).await
}

async fn edge_with(world: &World, site: usize, more: &str) -> anyhow::Result<Edge> {
    let mut edge = world.join(site).await?;
    let text = fs::read_to_string(&edge.config)?;
    fs::write(&edge.config, text + more)?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    Ok(edge)
}

/// curl's exit codes for a connection that was reset while it sent, or while it waited (curl(1)).
fn refused(output: &Output) {
    assert!(matches!(output.status.code(), Some(55 | 56)), "{output:?}");
}

async fn fetch(world: &World, edge: &Edge, port: u16, path: &str) -> anyhow::Result<Output> {
    let mut curl: Command = world.lab.host(&edge.host).command("curl");
    curl.args(["-sS", "--max-time", "25", &format!("http://127.0.0.1:{port}/{path}")]);
    run(curl, SOON + Duration::from_secs(5)).await
}
