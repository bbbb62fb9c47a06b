//! Programs under test: started, watched line by line, and ended with certainty.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Lines of each stream that are kept in memory; the log files have all of them.
const KEPT_LINES: usize = 10_000;

/// Lines that an error shows.
const TAIL: usize = 20;

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Child,
    stdout: watch::Receiver<Lines>,
    stderr: watch::Receiver<Lines>,
}

/// What a stream has said so far.
#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    closed: bool,
}

impl Process {
    /// Starts a program with nothing on stdin. What it prints goes to `NAME.out` and `NAME.err` in
    /// `logs`.
    ///
    /// # Errors
    /// Where it cannot be started, or the logs not be written.
    pub fn spawn(name: &str, mut command: Command, logs: &Path) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let pid = child.id().context("the program ended before it began")?;
        let (stdout, stderr) = child
            .stdout
            .take()
            .zip(child.stderr.take())
            .context("no pipes to the program")?;
        Ok(Self {
            name: name.to_owned(),
            pid: Pid::from_raw(pid.try_into()?),
            child,
            stdout: follow(stdout, &logs.join(format!("{name}.out")))?,
            stderr: follow(stderr, &logs.join(format!("{name}.err")))?,
        })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What it printed to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().kept.iter().cloned().collect()
    }

    /// What it printed to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.borrow().kept.iter().cloned().collect()
    }

    /// The first line, of either stream and from the beginning on, that contains `text`.
    ///
    /// # Errors
    /// With the last lines of both, where no such line comes `within` the time or before both
    /// streams end.
    pub async fn wait_for_line(&self, text: &str, within: Duration) -> anyhow::Result<String> {
        self.wait_for_line_that(&format!("contains {text:?}"), within, |line| line.contains(text))
            .await
    }

    /// As [`wait_for_line`](Self::wait_for_line), by any test of a line, which `what` says in words.
    ///
    /// # Errors
    /// As [`wait_for_line`](Self::wait_for_line).
    pub async fn wait_for_line_that(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let (out, err) = (self.stdout.clone(), self.stderr.clone());
        let found = async {
            tokio::select! {
                Some(line) = find(out, &wanted) => Some(line),
                Some(line) = find(err, &wanted) => Some(line),
                else => None,
            }
        };
        match tokio::time::timeout(within, found).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.complaint(&format!("ended without a line that {what}"))),
            Err(_) => Err(self.complaint(&format!("printed no line that {what} within {within:?}"))),
        }
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// Where it does not `within` the time.
    pub async fn wait_for_exit(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(self.complaint(&format!("still ran after {within:?}"))),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where the program has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Once reaped its id may belong to another.
        if self.child.id().is_none() {
            bail!("{} has ended already", self.name);
        }
        kill(self.pid, signal).with_context(|| format!("could not send {signal} to {}", self.name))
    }

    /// Kills the program as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("could not kill {}", self.name))
    }

    fn complaint(&self, problem: &str) -> anyhow::Error {
        anyhow!("{} {problem}; its last lines:\n{}", self.name, self.tail())
    }

    fn tail(&self) -> String {
        [("out", &self.stdout), ("err", &self.stderr)]
            .into_iter()
            .flat_map(|(stream, lines)| {
                let lines = &lines.borrow().kept;
                let from = lines.len().saturating_sub(TAIL);
                let shown = lines
                    .range(from..)
                    .map(|line| format!("  {} {stream}: {line}\n", self.name));
                shown.collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Process {
    // The test runner shows this for tests that fail, and for no others.
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        eprint!("{}", self.tail());
    }
}

/// Runs a program to its end, with nothing on stdin.
///
/// # Errors
/// Where it cannot be started, or does not end `within` the time; then it is killed.
pub async fn run(command: Command, within: Duration) -> anyhow::Result<Output> {
    run_with_input(command, b"", within).await
}

/// Runs a program to its end, with `input` on stdin.
///
/// # Errors
/// As [`run`].
pub async fn run_with_input(mut command: Command, input: &[u8], within: Duration) -> anyhow::Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("could not start {shown}"))?;
    let mut stdin = child.stdin.take().context("no pipe to the program")?;
    let writing = async move {
        // A program that ends without reading its input says by its exit status how it went.
        let _ = stdin.write_all(input).await;
    };
    let finished = async { tokio::join!(writing, child.wait_with_output()).1 };
    match tokio::time::timeout(within, finished).await {
        Ok(output) => Ok(output?),
        Err(_) => bail!("still ran after {within:?}: {shown}"),
    }
}

/// A program of this workspace, beside the test that runs.
///
/// # Errors
/// Where it has not been built.
pub fn built(program: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test
        .ancestors()
        .nth(2)
        .context("the test runs in no target directory")?
        .join(program);
    if !path.is_file() {
        bail!(
            "{} is missing: build it with `cargo build --bin {program}`",
            path.display()
        );
    }
    Ok(path)
}

/// Copies a stream, line by line, to a log file and to who waits. Ends with the stream.
fn follow(stream: impl AsyncRead + Send + Unpin + 'static, log: &Path) -> anyhow::Result<watch::Receiver<Lines>> {
    let mut log = File::create(log).with_context(|| format!("could not write {}", log.display()))?;
    let (lines, receiver) = watch::channel(Lines::default());
    tokio::spawn(async move {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).await.is_ok_and(|len| len > 0) {
            // A log that cannot be written is no reason to stop a test.
            let _ = log.write_all(&line);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.send_modify(|lines| {
                lines.kept.push_back(text);
                if lines.kept.len() > KEPT_LINES {
                    lines.kept.pop_front();
                }
            });
            line.clear();
        }
        lines.send_modify(|lines| lines.closed = true);
    });
    Ok(receiver)
}

/// The first line that is wanted, or `None` once the stream has ended without it.
async fn find(mut stream: watch::Receiver<Lines>, wanted: &impl Fn(&str) -> bool) -> Option<String> {
    let first = |lines: &Lines| lines.kept.iter().find(|line| wanted(line)).cloned();
    let lines = stream
        .wait_for(|lines| lines.closed || first(lines).is_some())
        .await
        .ok()?;
    first(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_line_is_found_on_either_stream_even_after_the_fact() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = Process::spawn("talker", sh("echo one; echo two >&2"), logs.path()).unwrap();
        assert!(process.wait_for_exit(SOON).await.unwrap().success());
        assert_eq!(process.wait_for_line("two", SOON).await.unwrap(), "two");
        assert_eq!(process.wait_for_line("one", SOON).await.unwrap(), "one");
        assert_eq!(process.stdout(), ["one"]);
        let log = std::fs::read_to_string(logs.path().join("talker.err")).unwrap();
        assert_eq!(log, "two\n");
    }

    #[tokio::test]
    async fn a_line_that_never_comes_is_an_error_with_the_last_lines() {
        let logs = tempfile::tempdir().unwrap();
        let process = Process::spawn("talker", sh("echo something else"), logs.path()).unwrap();
        let error = process.wait_for_line("ready", SOON).await.unwrap_err().to_string();
        assert!(
            error.contains("ended without") && error.contains("something else"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_killed_program_is_gone() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = Process::spawn("sleeper", sh("exec sleep 600"), logs.path()).unwrap();
        process.kill().await.unwrap();
        assert!(process.signal(Signal::SIGTERM).is_err());
    }

    #[tokio::test]
    async fn input_reaches_a_program_that_runs_to_its_end() {
        let output = run_with_input(Command::new("cat"), b"hello", SOON).await.unwrap();
        assert_eq!(output.stdout, b"hello");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_an_error() {
        let error = run(sh("exec sleep 600"), Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().starts_with("still ran after 50ms"), "{error}");
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }
}
