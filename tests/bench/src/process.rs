//! Child processes that end with the bench.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// A process that is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
}

/// A process whose first lines on stdout are read, and no more than those.
pub(crate) struct Talking {
    pub(crate) running: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a program; what it says goes to `log`.
    pub(crate) fn start(program: &Path, args: &[&str], log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log)?;
        spawn(program, args, log.try_clone()?.into(), log)
    }

    /// Starts a program that says on stdout when it is ready.
    pub(crate) fn start_talking(program: &Path, args: &[&str], log: &Path) -> anyhow::Result<Talking> {
        let mut running = spawn(program, args, Stdio::piped(), File::create(log)?)?;
        let stdout = running.child.stdout.take().context("stdout is a pipe")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Talking { running, lines })
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the program has ended")
    }
}

impl Talking {
    /// The next line on its stdout.
    pub(crate) async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(Duration::from_secs(20), self.lines.next_line()).await??;
        line.context("the program ended before it was ready")
    }
}

fn spawn(program: &Path, args: &[&str], stdout: Stdio, log: File) -> anyhow::Result<Running> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} does not start", program.display()))?;
    Ok(Running { child })
}

/// Runs a command to its end, and gives what it says on stdout.
pub(crate) async fn capture(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{:?}: {said}", command.as_std());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib * 1024)
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A program on the path, or beside this one.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.parent()?.join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::iter::once(beside)
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .chain(more.into_iter().map(|dir| dir.join(name)))
        .find(|candidate| candidate.is_file())
}

/// Waits until somebody accepts at the address.
pub(crate) async fn wait_for_port(address: std::net::SocketAddr) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while tokio::time::Instant::now() < deadline {
        every.tick().await;
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
    }
    bail!("nothing listens at {address}")
}

/// A UDP port of loopback that was free a moment ago.
pub(crate) fn free_udp_port() -> anyhow::Result<u16> {
    Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A TCP port of loopback that was free a moment ago, for programs that cannot say which one they took.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let [port] = free_ports()?;
    Ok(port)
}

/// Several of them: ports that are taken one after the other may be the same one.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
