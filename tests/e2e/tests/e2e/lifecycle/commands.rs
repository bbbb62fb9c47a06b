use std::process::Output;

use serde_json::{Value, json};
use tunnel_e2e::{Need, Site, require};

use crate::world::{SOON, World, stderr_of, stdout_of, stop};

const OK: i32 = 0;
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const UNKNOWN_NODE: i32 = 3;
const NODE_OFFLINE: i32 = 4;
const TIMEOUT: i32 = 6;
const FINDINGS: i32 = 7;

#[tokio::test]
async fn the_gateways_commands_tell_by_their_exit_what_is_the_matter() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, mut edge) = World::with_edge(Site::new()).await?;
    exits(&world.cloud(&["status"]).await?, OK, "");
    exits(&world.cloud(&["ping", "edge1", "-c", "3"]).await?, OK, "");
    exits(&world.cloud(&["ping", "edge9"]).await?, UNKNOWN_NODE, "unknown-node");
    exits(
        &world.cloud(&["nodes", "show", "../edge1"]).await?,
        UNKNOWN_NODE,
        "unknown-node",
    );
    exits(&world.cloud(&["nodes", "shew"]).await?, USAGE, "");

    // As long as nobody has noticed that the link is cut, it is silence.
    world.lab.site(1).cut();
    exits(&world.cloud(&["ping", "edge1"]).await?, TIMEOUT, "ping-timeout");
    world.lab.site(1).mend();
    exits(&world.cloud(&["ping", "edge1"]).await?, OK, "");

    stop(edge.agent()?).await?;
    world.wait_for_state("edge1", "offline", SOON).await?;
    exits(&world.cloud(&["ping", "edge1"]).await?, NODE_OFFLINE, "node-offline");
    Ok(())
}

#[tokio::test]
async fn the_edges_commands_tell_by_their_exit_what_is_the_matter() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([Site::new()]).await?;
    let mut edge = world.join(1).await?;
    exits(&edge.run(&world.lab, &["status"]).await?, FAILURE, "admin-no-socket");
    exits(
        &edge.run(&world.lab, &["wait", "--timeout", "1s"]).await?,
        TIMEOUT,
        "wait-timeout",
    );
    exits(&edge.run(&world.lab, &["jion"]).await?, USAGE, "");
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    exits(&edge.run(&world.lab, &["status"]).await?, OK, "");

    // None of the services that it offers is there.
    let checked = edge.run(&world.lab, &["check"]).await?;
    exits(&checked, FINDINGS, "check-findings");
    let findings = String::from_utf8(checked.stdout)?;
    assert!(
        findings.contains("service ssh") && findings.contains("target-refused"),
        "{findings}"
    );
    // To look is not to throw out the agent.
    assert_eq!(world.node("edge1").await?["state"], "online");
    Ok(())
}

#[tokio::test]
async fn nodes_have_the_shape_that_scripts_depend_on() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([Site::new()]).await?;
    assert_eq!(
        world.cloud_json(&["nodes", "ls"]).await?,
        json!({ "schema": "v1", "nodes": [] })
    );
    let args = [
        "token",
        "create",
        "--name",
        "edge1",
        "--label",
        "site=north",
        "--label",
        "ring=1",
    ];
    let token = world.cloud_ok(&args).await?;
    let mut edge = world.new_edge(1)?;
    stdout_of(&edge.join(&world.lab, &token).await?)?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    let node = world.node("edge1").await?;
    assert_eq!(node["state"], "online", "{node}");
    assert_eq!(node["labels"], json!({ "site": "north", "ring": "1" }), "{node}");

    world.cloud_ok(&["nodes", "label", "edge1", "site-", "ring=2"]).await?;
    assert_eq!(world.node("edge1").await?["labels"], json!({ "ring": "2" }));
    let status: Value = serde_json::from_str(&stdout_of(&edge.run(&world.lab, &["status", "-o", "json"]).await?)?)?;
    assert_eq!(
        (&status["state"], &status["name"]),
        (&"connected".into(), &"edge1".into()),
        "{status}"
    );
    Ok(())
}

/// Checks a command's exit status, and the code of its error unless that is empty.
fn exits(output: &Output, status: i32, code: &str) {
    let said = stderr_of(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    let error = if code.is_empty() {
        String::new()
    } else {
        format!("error[{code}]: ")
    };
    assert!(said.contains(&error), "{said}");
}
