//! rathole with its Noise and TLS transports: `rathole` from the path.

use std::path::Path;

use anyhow::Context;
use tokio::process::Command;

use super::{Place, Started, two_ports, udp_port};
use crate::{
    load::{Backends, Entry},
    process::{Running, capture, find, free_port, wait_for_port},
};

/// How it encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Noise,
    Tls,
}

pub(super) async fn start(
    place: &Place,
    backends: Backends,
    dir: &Path,
    transport: Transport,
) -> anyhow::Result<Option<Started>> {
    let Some(rathole) = find("rathole") else {
        return Ok(None);
    };
    let keys = match transport {
        Transport::Noise => Some(noise(&rathole).await?),
        Transport::Tls => tls(&rathole, dir).await?,
    };
    let Some(ends) = keys else { return Ok(None) };

    let control = place.near_port(free_port()?);
    let (tcp, http) = two_ports()?;
    let udp = udp_port()?;
    let server = format!(
        "[server]\nbind_addr = \"{control}\"\ndefault_token = \"bench\"\n{}\
         [server.services.tcp]\nbind_addr = \"{tcp}\"\n[server.services.http]\nbind_addr = \"{http}\"\n\
         [server.services.udp]\ntype = \"udp\"\nbind_addr = \"{udp}\"\n",
        ends.server
    );
    let client = format!(
        "[client]\nremote_addr = \"{control}\"\ndefault_token = \"bench\"\n{}\
         [client.services.tcp]\nlocal_addr = \"{}\"\n[client.services.http]\nlocal_addr = \"{}\"\n\
         [client.services.udp]\ntype = \"udp\"\nlocal_addr = \"{}\"\n",
        ends.client, backends.tcp, backends.http, backends.udp
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
        // Over TLS it is measured beside ours, which carries none there.
        udp: (transport == Transport::Noise).then_some(udp),
        _processes: vec![near, far],
    }))
}

/// The part of each end's configuration that says how to encrypt.
struct Ends {
    server: String,
    client: String,
}

async fn noise(rathole: &Path) -> anyhow::Result<Ends> {
    let keys = capture(Command::new(rathole).arg("--genkey")).await?;
    let mut lines = keys
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.ends_with(':'));
    let (private, public) = (
        lines.next().context("no private key")?,
        lines.next().context("no public key")?,
    );
    let end = |name: &str| {
        let pattern = "Noise_NK_25519_ChaChaPoly_BLAKE2s";
        format!("[{name}.transport]\ntype = \"noise\"\n[{name}.transport.noise]\npattern = \"{pattern}\"\n")
    };
    Ok(Ends {
        server: format!("{}local_private_key = \"{private}\"\n", end("server")),
        client: format!("{}remote_public_key = \"{public}\"\n", end("client")),
    })
}

/// With a certificate made here; `None` where it was built without TLS, or nobody can pack the certificate as it wants it.
async fn tls(rathole: &Path, dir: &Path) -> anyhow::Result<Option<Ends>> {
    let version = capture(Command::new(rathole).arg("--version")).await?;
    let features = version.lines().find_map(|line| line.strip_prefix("cargo Features:"));
    let built_with = |feature: &str| features.is_some_and(|all| all.split(',').any(|one| one.trim() == feature));
    if !built_with("tls") && !built_with("native-tls") && !built_with("rustls") {
        eprintln!("this rathole was built without TLS");
        return Ok(None);
    }
    let Some(openssl) = find("openssl") else {
        eprintln!("rathole needs `openssl` for its certificate");
        return Ok(None);
    };
    let file = |name: &str| dir.join(name).display().to_string();
    let (key, cert, packed) = (file("rathole.key"), file("rathole.crt"), file("rathole.p12"));
    let make = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        &key,
        "-out",
        &cert,
    ];
    capture(Command::new(&openssl).args(make)).await?;
    let pack = [
        "pkcs12",
        "-export",
        "-inkey",
        &key,
        "-in",
        &cert,
        "-passout",
        "pass:bench",
        "-out",
        &packed,
    ];
    capture(Command::new(&openssl).args(pack)).await?;
    Ok(Some(Ends {
        server: format!(
            "[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"{packed}\"\npkcs12_password = \"bench\"\n"
        ),
        client: format!(
            "[client.transport]\ntype = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{cert}\"\nhostname = \"localhost\"\n"
        ),
    }))
}
