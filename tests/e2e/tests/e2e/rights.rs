use std::fs;
use std::process::Output;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tunnel_e2e::{Need, Service, Site, require, wait_until};

use crate::stream::Transfer;
use crate::world::{Edge, SOON, World, stderr_of, stop};

/// What alice and bob may: exactly this.
const RULE: &str = "nodes = \"site=hz\"\ntargets = [\"service:web\"]\n";
/// More than fits between the two ends of a stream.
const BIG: usize = 200_000_000;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// T4
#[tokio::test]
async fn a_rule_gives_exactly_what_it_names_and_nothing_beside() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, mut edges) = two_sites().await?;
    let alice = world.create_user("alice", None).await?;
    rules(&world, &["user:alice"])?;
    world.cloud_ok(&["reload"]).await?;

    world.user = alice;
    ensure!(status(&world, "http://web.edge1/", &[]).await? == "200");
    for beside in [
        "http://edge1:8000/",
        "http://ssh.edge1/",
        "http://web.edge2/",
        "http://127.0.0.1.via.edge1:8000/",
        "http://10.0.0.1:8000/",
        "http://web.edge9/",
    ] {
        ensure!(status(&world, beside, &[]).await? == "403", "{beside}");
    }
    // One header decides both where it goes and what may be reached.
    for other in ["Host: web.edge2", "X-Forwarded-Host: web.edge2"] {
        let answer = status(&world, "http://web.edge1/", &["-H", other]).await?;
        ensure!(answer == "200" || answer == "400", "{other}: {answer}");
    }

    // A label decides as well, and is judged anew when it changes.
    world.cloud_ok(&["nodes", "label", "edge1", "site-"]).await?;
    ensure!(status(&world, "http://web.edge1/", &[]).await? == "403");
    world.cloud_ok(&["nodes", "label", "edge1", "site=hz"]).await?;

    // The caller's trace is on every side.
    let traceparent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    ensure!(status(&world, "http://web.edge1/", &["-H", &traceparent]).await? == "200");
    world.gateway.wait_for_line(&format!("trace={TRACE}"), SOON).await?;
    edges[0].agent()?.wait_for_line(&format!("trace={TRACE}"), SOON).await?;
    Ok(())
}

#[tokio::test]
async fn who_loses_a_right_loses_the_stream_and_others_keep_theirs() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, _edges) = two_sites().await?;
    let users = [
        world.create_user("alice", None).await?,
        world.create_user("bob", None).await?,
    ];
    rules(&world, &["user:alice", "user:bob"])?;
    world.cloud_ok(&["reload"]).await?;
    let mut transfers = Vec::new();
    for user in users {
        world.user = user;
        let mut transfer = Transfer::download(&world, "web.edge1:80", BIG).await?;
        transfer.read_to(100_000, SOON).await?;
        transfers.push(transfer);
    }
    ensure!(principals(&world).await? == ["user:alice", "user:bob"]);

    rules(&world, &["user:bob"])?;
    let reloaded = world.cloud_json(&["reload"]).await?;
    ensure!(reloaded["applied"] == serde_json::json!(["rule"]), "{reloaded}");
    let lost = transfers[0].read_to(BIG, SOON).await.unwrap_err();
    ensure!(format!("{lost:#}").contains("reset"), "{lost:#}");
    transfers[1].read_to(1_000_000, SOON).await?;
    ensure!(principals(&world).await? == ["user:bob"]);

    // A file that is not good changes nothing, whoever asks for it to be read.
    let good = fs::read_to_string(world.config())?;
    fs::write(
        world.config(),
        good.replace("targets = [\"service:web\"]", "targets = [\"web\"]"),
    )?;
    let refused = world.cloud(&["reload"]).await?;
    ensure!(
        refused.status.code() == Some(1) && stderr_of(&refused).contains("cloud.toml:"),
        "{refused:?}"
    );
    world.gateway.signal(Signal::SIGHUP)?;
    world.gateway.wait_for_line("configuration refused", SOON).await?;
    transfers[1].read_to(2_000_000, SOON).await?;
    fs::write(world.config(), good)?;

    // A removed user's streams end, and a killed one.
    let killed = world
        .cloud_json(&["streams", "kill", "--node", "edge1", "--principal", "user:bob"])
        .await?;
    ensure!(killed["streams"] == 1, "{killed}");
    transfers[1].read_to(BIG, SOON).await.unwrap_err();
    let mut again = Transfer::download(&world, "web.edge1:80", BIG).await?;
    world.cloud_ok(&["users", "rm", "bob"]).await?;
    again.read_to(BIG, SOON).await.unwrap_err();
    wait_until("no stream is open", SOON, async || {
        principals(&world).await.is_ok_and(|all| all.is_empty())
    })
    .await
}

#[tokio::test]
async fn explain_names_the_hop_that_says_no() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (world, mut edges) = two_sites().await?;
    world.create_user("alice", None).await?;
    rules(&world, &["user:alice"])?;
    world.cloud_ok(&["reload"]).await?;
    stop(edges[1].agent()?).await?;
    world.wait_for_state("edge2", "offline", SOON).await?;
    for (what, who, stops_at, exit) in [
        ("edge1:service:web", "user:alice", None, 0),
        ("web.edge1:80", "user:alice", None, 0),
        ("nowhere:22", "user:alice", Some("name"), 3),
        ("edge1:22", "user:alice", Some("policy"), 5),
        ("edge1:service:web", "cidr:10.0.0.1", Some("policy"), 5),
        ("edge2:service:web", "group:admins", Some("session"), 4),
        ("edge1:9", "user:ops", Some("edge"), 5),
        ("edge1:8999", "user:ops", Some("target"), 1),
    ] {
        let output = world.cloud(&["explain", what, "--as", who, "-o", "json"]).await?;
        ensure!(output.status.code() == Some(exit), "{what} as {who}: {output:?}");
        let explained: Value = serde_json::from_slice(&output.stdout)?;
        let hops = explained["hops"].as_array().context("no hops")?;
        let no = hops.iter().find(|hop| hop["verdict"] == "no").map(|hop| &hop["hop"]);
        ensure!(no.and_then(Value::as_str) == stops_at, "{what} as {who}: {explained}");
        ensure!(hops.len() == 6, "{explained}");
    }
    let test = async |who, what| world.cloud(&["policy", "test", who, what]).await;
    let (yes, no) = (
        test("user:alice", "edge1:service:web").await?,
        test("user:alice", "edge1:22").await?,
    );
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said(&yes).starts_with("allowed by rule 1: user:alice -> site=hz"),
        "{yes:?}"
    );
    ensure!(
        no.status.code() == Some(5) && stderr_of(&no).contains("no rule for the subject"),
        "{no:?}"
    );
    ensure!(world.cloud_ok(&["top", "--once"]).await?.starts_with("BY"));
    Ok(())
}

/// T5
#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, _edges) = two_sites().await?;
    let alice = world.create_user("alice", None).await?;
    rules(&world, &["user:alice"])?;
    let text = fs::read_to_string(world.config())?;
    fs::write(
        world.config(),
        text + "\n[limits]\nprincipal_opens_per_second = 1\nnodes = 7\n",
    )?;
    let reloaded = world.cloud_json(&["reload"]).await?;
    ensure!(
        reloaded["needs_restart"] == serde_json::json!(["limits.nodes"]),
        "{reloaded}"
    );
    world.user = alice;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(status(&world, "http://web.edge1/", &["-D", "-"]).await?);
    }
    let limited = answers
        .iter()
        .find(|answer| answer.ends_with("429"))
        .context("never limited")?;
    ensure!(
        limited.contains("Retry-After: 1") && limited.contains("Tunnel-Reason: rate-limited"),
        "{limited}"
    );
    ensure!(answers[0].ends_with("200"), "{answers:?}");
    // Others are not concerned.
    world.user = world.create_user("carol", Some("admins")).await?;
    ensure!(status(&world, "http://web.edge1/", &[]).await? == "200");
    Ok(())
}

/// Two sites with a web server each as the service `web`; the first is labelled `site=hz`. All log at debug.
async fn two_sites() -> anyhow::Result<(World, Vec<Edge>)> {
    let mut world = World::start([Site::new(), Site::new()]).await?;
    let mut edges = Vec::new();
    for site in [1, 2] {
        let mut edge = world.join(site).await?;
        let text = fs::read_to_string(&edge.config)?;
        let service = "\n[[service]]\nname = \"web\"\ntarget = \"127.0.0.1:8000\"\n[log]\nlevel = \"debug\"\n";
        fs::write(&edge.config, text + service)?;
        world.offer(&edge, Service::Http, 8000).await?;
        edge.start(&world.lab)?;
        edge.wait_connected(&world.lab).await?;
        edges.push(edge);
    }
    world.cloud_ok(&["nodes", "label", "edge1", "site=hz"]).await?;
    Ok((world, edges))
}

/// Writes the rule for these subjects behind the one that `init` wrote, in the place of those written before.
fn rules(world: &World, subjects: &[&str]) -> anyhow::Result<()> {
    const MARK: &str = "\n# Written by the test\n";
    let text = fs::read_to_string(world.config())?;
    let head = text.split(MARK).next().unwrap_or_default();
    let text = format!("{head}{MARK}[[rule]]\nsubjects = {subjects:?}\n{RULE}[log]\nlevel = \"debug\"\n");
    Ok(fs::write(world.config(), text)?)
}

/// The status of an answer, behind whatever else curl was told to print.
async fn status(world: &World, url: &str, args: &[&str]) -> anyhow::Result<String> {
    let proxy = world.proxy_url("http");
    let plain = ["-x", &proxy, "-o", "/dev/null", "-w", "%{http_code}", url];
    let output = world.curl_ok(&[&plain[..], args].concat()).await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Who has streams open, in the order in which they were opened.
async fn principals(world: &World) -> anyhow::Result<Vec<String>> {
    let list = world.cloud_json(&["streams", "ls"]).await?;
    let streams = list["streams"].as_array().context("no streams")?;
    let principal = |stream: &Value| stream["principal"].as_str().map(str::to_owned);
    Ok(streams.iter().filter_map(principal).collect())
}
