use std::fs;
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tunnel_e2e::{Nat, Need, Service, Site, require, run};

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

async fn edge(world: &World, site: usize) -> anyhow::Result<Edge> {
    let mut edge = world.join(site).await?;
    let text = fs::read_to_string(&edge.config)?;
    fs::write(&edge.config, text + WAYS_OUT)?;
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
