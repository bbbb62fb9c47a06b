//! A network namespace with a name, and the programs that set it up.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A namespace that this process has made. When it is dropped, what runs in it is killed, and it is
/// deleted.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn create(name: String) -> anyhow::Result<Self> {
        // Two first namespaces of a machine at the same moment spoil each other's mount point.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        {
            let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            system("ip", &["netns", "add", &name], "")?;
        }
        let namespace = Self { name };
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` commands in the namespace, until one fails.
    pub(super) fn ip(&self, commands: &[&str]) -> anyhow::Result<()> {
        system("ip", &["-n", &self.name, "-batch", "-"], &commands.join("\n")).map(drop)
    }

    /// Runs a program in the namespace, its arguments divided by spaces.
    pub(super) fn system(&self, program: &str, args: &str) -> anyhow::Result<()> {
        let mut all = vec!["netns", "exec", &self.name, program];
        all.extend(args.split(' '));
        system("ip", &all, "").map(drop)
    }

    /// Calls `f` in the namespace: the sockets that it makes belong there for good.
    pub(super) fn enter<T: Send>(&self, f: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let file = File::open(self.path())?;
        // setns changes the calling thread, so a thread that ends with this call makes it.
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).context("could not enter the namespace")?;
                f()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn kill_all(&self) -> anyhow::Result<()> {
        let pids = system("ip", &["netns", "pids", &self.name], "")?;
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
            // One that ended meanwhile is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(())
    }
}

impl Drop for Namespace {
    // The test runner shows this for tests that fail, and for no others.
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        let deleted = self
            .kill_all()
            .and_then(|()| system("ip", &["netns", "del", &self.name], ""));
        if let Err(error) = deleted {
            eprintln!("the namespace {} stays behind: {error:#}", self.name);
        }
    }
}

/// Runs a program of the system and returns what it prints.
fn system(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let shown = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(shown)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(shown)?;
    }
    let output = child.wait_with_output().with_context(shown)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}; its input: {input:?}", shown(), complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
