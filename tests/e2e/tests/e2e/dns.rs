//! A DNS server on a host of the lab, and questions to it.

use tunnel_e2e::lab::Host;
use tunnel_e2e::{Process, run};

use crate::world::{SOON, World, stdout_of};

/// What `large.example` says twelve times over, so that its answer is larger than a packet.
pub(crate) fn text() -> String {
    "x".repeat(250)
}

/// Runs dnsmasq on a port of a host's loopback address. `small.example` has this address.
pub(crate) async fn serve(world: &World, host: &Host, port: u16, small: &str) -> anyhow::Result<Process> {
    let mut server = host.command("dnsmasq");
    server.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--edns-packet-max=4096",
        "--pid-file=",
    ]);
    server.args([&format!("--port={port}"), &format!("--address=/small.example/{small}")]);
    server.args((0..12).map(|n| format!("--txt-record=large.example,{n}{}", text())));
    let name = format!("dnsmasq-{}-{port}", host.name());
    let server = Process::spawn(&name, server, world.logs())?;
    host.wait_for_port(([127, 0, 0, 1], port).into(), SOON).await?;
    Ok(server)
}

/// Asks a server with dig, from a host, and returns what dig prints; an error if nothing answers.
pub(crate) async fn dig(from: &Host, server: &str, port: u16, question: &[&str]) -> anyhow::Result<String> {
    let mut dig = from.command("dig");
    dig.args([&format!("@{server}"), "-p", &port.to_string()]);
    dig.args(["+ignore", "+bufsize=4096", "+tries=3", "+time=3"])
        .args(question);
    stdout_of(&run(dig, SOON).await?)
}
