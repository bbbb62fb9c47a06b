//! rathole with its Noise transport: `rathole` from the path.

use std::path::Path;

use anyhow::Context;

use super::{Place, Started, two_ports, udp_port};
use crate::{
    load::{Backends, Entry},
    process::{Running, find, free_port, wait_for_port},
};

pub(super) async fn start(place: &Place, backends: Backends, dir: &Path) -> anyhow::Result<Option<Started>> {
    let Some(rathole) = find("rathole") else {
        return Ok(None);
    };
    let keys = tokio::process::Command::new(&rathole).arg("--genkey").output().await?;
    let keys = String::from_utf8(keys.stdout)?;
    let mut lines = keys
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.ends_with(':'));
    let (private, public) = (
        lines.next().context("no private key")?,
        lines.next().context("no public key")?,
    );

    let control = place.near_port(free_port()?);
    let (tcp, http) = two_ports()?;
    let udp = udp_port()?;
    let noise =
        "[NAME.transport]\ntype = \"noise\"\n[NAME.transport.noise]\npattern = \"Noise_NK_25519_ChaChaPoly_BLAKE2s\"\n";
    let server = format!(
        "[server]\nbind_addr = \"{control}\"\ndefault_token = \"bench\"\n{}local_private_key = \"{private}\"\n\
         [server.services.tcp]\nbind_addr = \"{tcp}\"\n[server.services.http]\nbind_addr = \"{http}\"\n\
         [server.services.udp]\ntype = \"udp\"\nbind_addr = \"{udp}\"\n",
        noise.replace("NAME", "server")
    );
    let client = format!(
        "[client]\nremote_addr = \"{control}\"\ndefault_token = \"bench\"\n{}remote_public_key = \"{public}\"\n\
         [client.services.tcp]\nlocal_addr = \"{}\"\n[client.services.http]\nlocal_addr = \"{}\"\n\
         [client.services.udp]\ntype = \"udp\"\nlocal_addr = \"{}\"\n",
        noise.replace("NAME", "client"),
        backends.tcp,
        backends.http,
        backends.udp
    );
    let (server_file, client_file) = (dir.join("rathole-server.toml"), dir.join("rathole-client.toml"));
    std::fs::write(&server_file, server)?;
    std::fs::write(&client_file, client)?;
    let arg = |path: &Path| path.display().to_string();
    let near = Running::start(
        &rathole,
        &["--server", &arg(&server_file)],
        &dir.join("rathole-server.log"),
    )?;
    wait_for_port(control).await?;
    let far = place.start(
        &rathole,
        &["--client", &arg(&client_file)],
        &dir.join("rathole-client.log"),
    )?;
    wait_for_port(tcp).await?;
    wait_for_port(http).await?;
    Ok(Some(Started {
        entry: Entry::Ports { tcp, http },
        udp: Some(udp),
        _processes: vec![near, far],
    }))
}
