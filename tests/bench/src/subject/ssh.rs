//! OpenSSH: a server of the bench's own, with keys of its own.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{Place, Started, two_ports};
use crate::{
    load::{Backends, Entry},
    process::{Running, find, free_port, wait_for_port},
};

/// Which side dials the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Reverse,
    Local,
}

pub(super) async fn start(
    place: &Place,
    backends: Backends,
    dir: &Path,
    direction: Direction,
) -> anyhow::Result<Option<Started>> {
    let (Some(sshd), Some(ssh), Some(keygen)) = (find("sshd"), find("ssh"), find("ssh-keygen")) else {
        return Ok(None);
    };
    let dir = dir.join(format!("ssh-{direction:?}"));
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let file = |name: &str| dir.join(name).display().to_string();
    for key in ["host", "user"] {
        let args = ["-q", "-t", "ed25519", "-N", "", "-f", &file(key)];
        anyhow::ensure!(
            tokio::process::Command::new(&keygen)
                .args(args)
                .status()
                .await?
                .success()
        );
    }
    fs::copy(file("user.pub"), file("authorized_keys"))?;
    let (near_ip, port) = (place.near(), free_port()?);
    let config = format!(
        "ListenAddress {near_ip}\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPasswordAuthentication no\n\
         PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n",
        file("host"),
        file("authorized_keys")
    );
    fs::write(file("sshd_config"), config)?;
    // The server refuses to start without its empty directory, which a package creates only with its service.
    if Path::new("/run").exists() {
        fs::create_dir_all("/run/sshd")?;
    }
    let near = Running::start(&sshd, &["-D", "-e", "-f", &file("sshd_config")], &dir.join("sshd.log"))?;
    wait_for_port(place.near_port(port)).await?;

    let (tcp, http) = two_ports()?;
    let flag = if direction == Direction::Reverse { "-R" } else { "-L" };
    let forwards = [(tcp, backends.tcp), (http, backends.http)].map(|(listen, target)| format!("{listen}:{target}"));
    let (near_ip, port, user, known) = (
        near_ip.to_string(),
        port.to_string(),
        file("user"),
        format!("UserKnownHostsFile={}", file("known_hosts")),
    );
    let args = [
        "-N",
        "-F",
        "none",
        "-i",
        &user,
        "-p",
        &port,
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        &known,
        "-o",
        "ExitOnForwardFailure=yes",
        flag,
        &forwards[0],
        flag,
        &forwards[1],
        &near_ip,
    ];
    let far = place.start(&ssh, &args, &dir.join("ssh.log"))?;
    wait_for_port(tcp).await?;
    wait_for_port(http).await?;
    Ok(Some(Started {
        entry: Entry::Ports { tcp, http },
        udp: None,
        _processes: vec![near, far],
    }))
}
