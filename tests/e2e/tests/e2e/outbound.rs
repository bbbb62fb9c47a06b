use std::fs;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;
use tunnel_e2e::{Nat, Need, Service, Site, require, run, run_with_input, wait_until};

use crate::dns;
use crate::stream::pattern;
use crate::world::{Edge, SOON, World, stdout_of, stop};

/// What the gateway's operator adds: edge1 reaches two services of the cloud side and one of edge2.
const RULES: &str = r#"
[[service]]
name = "registry"
target = "127.0.0.1:5000"

[[service]]
name = "vault"
target = "127.0.0.1:5000"

[[service]]
name = "hidden"
target = "127.0.0.1:5000"

[[rule]]
subjects = ["node:edge1"]
nodes = "cloud"
targets = ["service:registry", "service:hidden"]

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

[proxy]
deny = ["hidden.cloud"]
"#;

/// Where an edge's proxy is unless another address is written.
const PROXY: &str = "127.0.0.1:3128";

/// T1: nothing between edges, and nothing of the cloud side, without a rule that names it.
#[tokio::test]
async fn t1_an_edges_client_reaches_what_a_rule_names_across_two_nats_and_nothing_else() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (world, edge1, edge2) = two_edges().await?;
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

/// T4: what both the gateway's rules and the edge's own list let through, and nothing that is named in another way.
#[tokio::test]
async fn t4_an_edges_proxy_leads_its_clients_to_what_both_sides_allow_across_two_nats() -> anyhow::Result<()> {
    require!(
        Need::Lab,
        Need::Program("curl"),
        Need::Program("ncat"),
        Need::Program("nc")
    );
    let (mut world, edge1, edge2) = two_edges().await?;
    let (http, socks) = (format!("http://{PROXY}"), format!("socks5h://{PROXY}"));
    let ways: [&[&str]; 3] = [&["-x", &http], &["-x", &http, "-p"], &["-x", &socks]];
    for host in ["registry.cloud", "web.edge2", "web.edge2.tunnel"] {
        let url = format!("http://{host}/bytes/1000000");
        for way in ways {
            let output = curl(&world, &edge1, &[way, &[&url]].concat()).await?;
            assert!(output.status.success(), "{way:?} {host}: {output:?}");
            assert!(output.stdout == pattern(1_000_000), "{way:?} {host}");
        }
    }
    let netcats: [&[&str]; 3] = [
        &["ncat", "--proxy", PROXY, "--proxy-type", "http"],
        &["nc", "-X", "connect", "-x", PROXY],
        &["nc", "-X", "5", "-x", PROXY],
    ];
    for netcat in netcats {
        let mut command = world.lab.host(&edge1.host).command(netcat[0]);
        command.args(&netcat[1..]).args(["web.edge2", "80"]);
        let output = run_with_input(command, b"GET / HTTP/1.0\r\n\r\n", SOON).await?;
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.ends_with("hello from the edge\n"), "{netcat:?}: {output:?}");
    }

    let told = [
        "-o",
        "/dev/null",
        "-w",
        "%{http_connect} %{http_code} %header{tunnel-reason}",
    ];
    for (edge, host, reason) in [
        (&edge1, "vault.cloud", "denied"),
        (&edge1, "other.edge2", "denied"),
        (&edge1, "web.edge1", "denied"),
        (&edge2, "registry.cloud", "denied"),
        // The gateway would let it through.
        (&edge1, "hidden.cloud", "not-allowed-by-edge"),
        (&edge1, "edge2:8080", "not-allowed-by-edge"),
        (&edge1, "127.0.0.1:8080", "not-allowed-by-edge"),
        (&edge1, "169.254.169.254", "not-allowed-by-edge"),
    ] {
        let url = format!("http://{host}/");
        let plain = curl(&world, edge, &[ways[0], &told, &[&url]].concat()).await?;
        assert_eq!(stdout_of(&plain)?, format!("000 403 {reason}"), "{host}");
        let tunnel = curl(&world, edge, &[ways[1], &told, &[&url]].concat()).await?;
        let said = String::from_utf8_lossy(&tunnel.stdout).into_owned();
        assert!(
            !tunnel.status.success() && said.starts_with("403 "),
            "{host}: {tunnel:?}"
        );
        // curl's exit code for a proxy that refuses (curl(1)).
        let socks = curl(&world, edge, &[ways[2], &[&url]].concat()).await?;
        assert_eq!(socks.status.code(), Some(97), "{host}: {socks:?}");
    }

    stop(&mut world.gateway).await?;
    wait_until("the answer is that there is no gateway", SOON, async || {
        let output = curl(&world, &edge1, &[ways[0], &["http://registry.cloud/"]].concat()).await;
        output.is_ok_and(|output| {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.starts_with("error[node-offline]: this edge has had no connection to its gateway since ")
        })
    })
    .await
}

/// Two edges behind NATs of their own, each with a web server and every way out, and services of the cloud side.
async fn two_edges() -> anyhow::Result<(World, Edge, Edge)> {
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
    Ok((world, edge1, edge2))
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
    curl(world, edge, &[&format!("http://127.0.0.1:{port}/{path}")]).await
}

async fn curl(world: &World, edge: &Edge, args: &[&str]) -> anyhow::Result<Output> {
    let mut curl: Command = world.lab.host(&edge.host).command("curl");
    // Whatever the test's own environment says of proxies.
    curl.args(["-sS", "--noproxy", "", "--max-time", "25"]).args(args);
    run(curl, SOON + Duration::from_secs(5)).await
}
