use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use tunnel_e2e::{Nat, Need, Process, Site, require, run, run_with_input};

use crate::stream::pattern;
use crate::world::{Edge, SOON, World, stdout_of};

const SIZE: usize = 5_000_000;
const COPY_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn openssh_runs_a_command_and_copies_across_a_symmetric_nat() -> anyhow::Result<()> {
    require!(
        Need::Lab,
        Need::Program("ssh"),
        Need::Program("ssh-keygen"),
        Need::Program("sshd"),
        Need::Program("ncat")
    );
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link("50mbit,20ms")).await?;
    let keys = Keys::new(world.lab.dir()).await?;
    let sshd = keys.sshd(&world, &edge)?;
    world.keep(sshd);
    // Through the tunnel the port cannot be asked, as a service that is not there yet is a refusal.
    let listening = ([127, 0, 0, 1], 22).into();
    world.lab.host(&edge.host).wait_for_port(listening, SOON).await?;

    // Which machine answers is told by its addresses.
    let output = run(keys.ssh(&world, "cat /proc/net/fib_trie"), SOON).await?;
    let address = world.lab.host(&edge.host).addr().to_string();
    assert!(stdout_of(&output)?.contains(&address), "{output:?}");

    let output = run(keys.ssh(&world, "exit 42"), SOON).await?;
    assert_eq!(output.status.code(), Some(42), "{output:?}");

    let copied = run_with_input(keys.ssh(&world, "cat"), &pattern(SIZE), COPY_WITHIN).await?;
    assert!(
        copied.stdout == pattern(SIZE),
        "{} bytes: {:?}",
        copied.stdout.len(),
        copied.stderr
    );
    Ok(())
}

/// A host's key and a user's, made for one test.
pub(crate) struct Keys {
    dir: PathBuf,
}

impl Keys {
    pub(crate) async fn new(lab: &Path) -> anyhow::Result<Self> {
        let dir = lab.join("ssh");
        fs::create_dir(&dir)?;
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name));
            stdout_of(&run(keygen, SOON).await?)?;
        }
        fs::copy(dir.join("user.pub"), dir.join("authorized_keys"))?;
        let host = fs::read_to_string(dir.join("host.pub"))?;
        fs::write(dir.join("known_hosts"), format!("edge1 {host}"))?;
        Ok(Self { dir })
    }

    /// The server, on the loopback interface of the edge.
    pub(crate) fn sshd(&self, world: &World, edge: &Edge) -> anyhow::Result<Process> {
        // Where sshd puts its unprivileged half; its package makes it when the service starts.
        fs::create_dir_all("/run/sshd").context("/run/sshd")?;
        let dir = self.dir.display();
        let config = format!(
            "ListenAddress 127.0.0.1:22\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized_keys\nPidFile none\n\
             PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\n"
        );
        let path = self.dir.join("sshd_config");
        fs::write(&path, config)?;
        let mut command = world.lab.host(&edge.host).command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(path);
        Process::spawn("sshd", command, world.logs())
    }

    /// The client, through the proxy.
    pub(crate) fn ssh(&self, world: &World, remote: &str) -> Command {
        let (user, proxy) = (&world.user, world.proxy());
        let through = format!(
            "ncat --proxy-type http --proxy-auth {}:{} --proxy {proxy} %h %p",
            user.name, user.secret
        );
        self.ssh_through(&through, world, remote)
    }

    /// The client, through a command of the test's choice.
    pub(super) fn ssh_through(&self, through: &str, world: &World, remote: &str) -> Command {
        let mut command = world.client().command("ssh");
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            &format!("ProxyCommand={through}"),
        ]);
        command
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.dir.join("known_hosts").display()));
        command.arg("-i").arg(self.dir.join("user"));
        command.args(["root@edge1", remote]);
        command
    }
}
