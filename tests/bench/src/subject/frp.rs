//! frp: `frps` and `frpc` from the path.

use std::path::Path;

use super::{Place, Started, two_ports, udp_port};
use crate::{
    load::{Backends, Entry},
    process::{Running, find, free_ports, wait_for_port},
};

pub(super) async fn start(
    place: &Place,
    backends: Backends,
    dir: &Path,
    protocol: &str,
) -> anyhow::Result<Option<Started>> {
    let (Some(frps), Some(frpc)) = (find("frps"), find("frpc")) else {
        return Ok(None);
    };
    let [bind, quic] = free_ports()?;
    let (tcp, http) = two_ports()?;
    let udp = udp_port()?;
    let near_ip = place.near();
    let server = format!(
        "bindAddr = \"{near_ip}\"\nproxyBindAddr = \"127.0.0.1\"\nbindPort = {bind}\nquicBindPort = {quic}\ntransport.tls.force = true\nlog.level = \"warn\"\n"
    );
    let port = if protocol == "quic" { quic } else { bind };
    let mut client = format!(
        "serverAddr = \"{near_ip}\"\nserverPort = {port}\ntransport.protocol = \"{protocol}\"\ntransport.tls.enable = true\nlog.level = \"warn\"\n"
    );
    for (name, kind, local, remote) in [
        ("tcp", "tcp", backends.tcp, tcp),
        ("http", "tcp", backends.http, http),
        ("udp", "udp", backends.udp, udp),
    ] {
        client += &format!(
            "[[proxies]]\nname = \"{name}\"\ntype = \"{kind}\"\nlocalIP = \"127.0.0.1\"\nlocalPort = {}\nremotePort = {}\n",
            local.port(),
            remote.port()
        );
    }
    let (server_file, client_file) = (dir.join("frps.toml"), dir.join("frpc.toml"));
    std::fs::write(&server_file, server)?;
    std::fs::write(&client_file, client)?;
    let arg = |path: &Path| path.display().to_string();
    let near = Running::start(&frps, &["-c", &arg(&server_file)], &dir.join("frps.log"))?;
    // The client gives up at once if the server is not there yet.
    wait_for_port(place.near_port(bind)).await?;
    let far = place.start(&frpc, &["-c", &arg(&client_file)], &dir.join("frpc.log"))?;
    wait_for_port(tcp).await?;
    wait_for_port(http).await?;
    Ok(Some(Started {
        entry: Entry::Ports { tcp, http },
        udp: Some(udp),
        _processes: vec![near, far],
    }))
}
