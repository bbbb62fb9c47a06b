//! An OpenSSH server of the lab's own, for the user who runs it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

/// A running server; it is killed when this is dropped.
pub(super) struct Sshd {
    _child: Child,
    address: SocketAddr,
    /// The key that lets the user in.
    pub(super) key: PathBuf,
}

impl Sshd {
    /// Starts one with new keys; `None` where OpenSSH's server is not installed or does not start.
    pub(super) async fn start(dir: &Path) -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
            .into_iter()
            .find(|p| Path::new(p).exists())?;
        let (host_key, key) = (dir.join("ssh_host_key"), dir.join("ssh_key"));
        for path in [&host_key, &key] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "tunnel-lab", "-f"])
                .arg(path)
                .stdin(Stdio::null())
                .status();
            made.await.ok().filter(std::process::ExitStatus::success)?;
        }
        // Free until the server takes it, a moment later.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .ok()?
            .local_addr()
            .ok()?;
        let config = format!(
            "ListenAddress {}\nPort {}\nHostKey {}\nAuthorizedKeysFile {}.pub\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n",
            address.ip(),
            address.port(),
            host_key.display(),
            key.display(),
        );
        let config_file = dir.join("sshd_config");
        std::fs::write(&config_file, config).ok()?;
        // As root, the server wants a directory that only its service makes. Elsewhere this fails and does not matter.
        let _ = std::fs::create_dir("/run/sshd");
        let mut child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(&config_file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut said = BufReader::new(child.stderr.take()?).lines();
        while let Ok(Some(line)) = said.next_line().await {
            if line.starts_with("Server listening") {
                // Its further words would fill the pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
                return Some(Self {
                    _child: child,
                    address,
                    key,
                });
            }
        }
        None
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}
