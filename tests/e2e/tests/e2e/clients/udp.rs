use std::fs;

use anyhow::Context;
use serde_json::Value;
use tunnel_e2e::{Nat, Need, Process, Site, built, require, run};

use crate::dns;
use crate::world::{Edge, SOON, World, stop};

/// A DNS server on an edge, and the port of the gateway that leads to it.
const DNS: u16 = 8_353;
const FORWARD: u16 = 7_053;
/// An iperf3 on an edge, and the port of the gateway that leads to it, for its control by TCP and its packets by UDP.
const IPERF: u16 = 8_201;
const MEASURE: u16 = 7_201;

#[tokio::test]
async fn dig_asks_a_dns_server_behind_a_nat_and_gets_answers_larger_than_packets() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("dig"), Need::Program("dnsmasq"));
    let (mut world, edge) = forwarding(&format!("udp:{DNS}"), &[(FORWARD, DNS, "udp")]).await?;
    let server = dns::serve(&world, world.lab.host(&edge.host), DNS, "192.0.2.7").await?;
    world.keep(server);

    let gw = world.gw().addr().to_string();
    let answer = dns::dig(world.client(), &gw, FORWARD, &["+short", "small.example", "A"]).await?;
    assert_eq!(answer, "192.0.2.7");
    let answer = dns::dig(world.client(), &gw, FORWARD, &["large.example", "TXT"]).await?;
    assert_eq!(answer.matches(&dns::text()).count(), 12, "{answer}");
    let size = answer.split("MSG SIZE  rcvd: ").nth(1).context("no size")?;
    assert!(size.trim().parse::<usize>()? > 3_000, "{answer}");

    // A forward of a command does the same, on the gateway's own machine.
    let mut command = world.gw().command(built("tunnel-cloud")?);
    command.arg("--config").arg(world.config());
    command.args(["forward", &format!("edge1:udp:{DNS}")]);
    let forward = Process::spawn("forward", command, world.logs())?;
    let line = forward.wait_for_line("leads to", SOON).await?;
    let local = line.split(' ').next().context("no address")?.to_owned();
    let port = local.rsplit(':').next().context("no port")?.parse()?;
    let answer = dns::dig(world.gw(), "127.0.0.1", port, &["+short", "small.example", "A"]).await?;
    assert_eq!(answer, "192.0.2.7");
    Ok(())
}

#[tokio::test]
async fn iperf3_measures_udp_through_two_forwards_of_one_port() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("iperf3"));
    let ports = [(MEASURE, IPERF, "tcp"), (MEASURE, IPERF, "udp")];
    let (mut world, edge) = forwarding(&format!("tcp:{IPERF}\", \"udp:{IPERF}"), &ports).await?;
    let host = world.lab.host(&edge.host);
    let mut server = host.command("iperf3");
    server.args(["--server", "--bind", "127.0.0.1", "--port", &IPERF.to_string()]);
    let server = Process::spawn("iperf3", server, world.logs())?;
    host.wait_for_port(([127, 0, 0, 1], IPERF).into(), SOON).await?;
    world.keep(server);

    for direction in [&[][..], &["--reverse"]] {
        let mut iperf3 = world.client().command("iperf3");
        iperf3.args([
            "--client",
            &world.gw().addr().to_string(),
            "--port",
            &MEASURE.to_string(),
        ]);
        iperf3.args(["--udp", "--length", "1200", "--bitrate", "2M", "--time", "2", "--json"]);
        iperf3.args(direction);
        let output = run(iperf3, SOON).await?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let sum = &report["end"]["sum"];
        let lost = sum["lost_percent"].as_f64().context("no loss")?;
        assert!(sum["packets"].as_u64() > Some(300) && lost < 5.0, "{sum}");
    }
    Ok(())
}

/// A gateway whose ports lead to ports of its one edge, as the client's address may.
async fn forwarding(targets: &str, ports: &[(u16, u16, &str)]) -> anyhow::Result<(World, Edge)> {
    let site = Site::new().nat(Nat::Symmetric).link("20mbit,40ms");
    let mut world = World::start([site]).await?;
    let (gw, client) = (world.gw().addr(), world.client().addr());
    let mut text = fs::read_to_string(world.config())?;
    text += &format!("\n[[rule]]\nsubjects = [\"cidr:{client}/32\"]\nnodes = \"edge1\"\ntargets = [\"{targets}\"]\n");
    for (listen, target, protocol) in ports {
        text += &format!(
            "[[forward]]\nlisten = \"{gw}:{listen}\"\nnode = \"edge1\"\ntarget = \"{target}\"\nprotocol = \"{protocol}\"\n"
        );
    }
    fs::write(world.config(), text)?;
    stop(&mut world.gateway).await?;
    world.restart_gateway().await?;
    let edge = world.edge(1).await?;
    Ok((world, edge))
}
