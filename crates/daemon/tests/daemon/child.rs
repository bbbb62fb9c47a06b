//! Processes to test with: this binary, started again in a role.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal};
use tokio::net::TcpListener;
use tunnel_daemon::accept::{AcceptMetrics, Acceptor};
use tunnel_daemon::cli;
use tunnel_daemon::error::{CliError, Exit};
use tunnel_daemon::metrics::Metrics;
use tunnel_daemon::output::{self, OutputFormat};
use tunnel_daemon::sdnotify;
use tunnel_daemon::shutdown::{self, Deadlines, Signals, Tasks};

const ROLE: &str = "TUNNEL_DAEMON_TEST_ROLE";

/// Not a test: what a child process runs. Does nothing in the test run itself.
#[test]
fn role() {
    let code = match std::env::var(ROLE).as_deref() {
        Err(_) => return,
        Ok("serve") => cli::run(OutputFormat::Table, serve()),
        Ok("fail") => cli::run(OutputFormat::Json, fail()),
        Ok("chatter") => cli::run(OutputFormat::Table, chatter()),
        Ok("exhaust") => exhaust(),
        Ok(role) => panic!("no role {role}"),
    };
    // ExitCode cannot be read back; the comparison is all there is.
    let number = Exit::ALL.into_iter().find(|exit| ExitCode::from(*exit) == code);
    std::process::exit(number.map_or(99, |exit| i32::from(exit.number())));
}

/// A daemon with one stream, which ends when a line arrives on stdin. Nothing but a signal stops it.
async fn serve() -> Result<(), CliError> {
    let signals = Signals::install().unwrap();
    let tasks = Tasks::new();
    tasks.spawn_aside(sdnotify::watchdog(|| true));
    let cutting = tasks.cutting();
    tasks.spawn(cutting.run_until_cancelled_owned(tokio::task::spawn_blocking(line)));
    let stopping = tasks.stopping();
    tasks.spawn_critical("listener", async move {
        stopping.cancelled().await;
        say("stopping");
        Ok::<_, Infallible>(())
    });
    sdnotify::ready("up");
    say("up");
    // Too long to be reached: what ends the drain is the stream's end or a second signal.
    let deadlines = Deadlines {
        drain: Duration::from_secs(3600),
        ..Deadlines::default()
    };
    let ended = shutdown::run(&tasks, signals, deadlines).await?;
    say(&format!("cut {}", ended.cut));
    Ok(())
}

async fn fail() -> Result<(), CliError> {
    Err(CliError::new(
        Exit::NodeOffline,
        "node-offline",
        "node alpha is offline",
    ))
}

/// Prints until somebody stops it.
async fn chatter() -> Result<(), CliError> {
    say("talking");
    loop {
        output::data("y")?;
    }
}

/// Accepts one connection, with no descriptor left for it at first. On paused time, so that pauses can be counted.
fn exhaust() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let metrics = AcceptMetrics::new(&Metrics::new("test"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&listener.local_addr().unwrap().to_string());
        // By now the parent's connection is in the backlog.
        line();
        let mut acceptor = Acceptor::new(listener, 1, &metrics, "test");

        lower(Resource::Nofile, 64);
        // An acceptor that spun would never let paused time go on: the kernel ends it.
        lower(Resource::Cpu, 5);
        let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        tokio::time::timeout(Duration::from_secs(10), acceptor.accept())
            .await
            .unwrap_err();
        say(&format!("pauses {}", metrics.pauses("test")));

        drop(hoard);
        let mut accepted = acceptor.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut accepted.io, b"hello")
            .await
            .unwrap();
        Exit::Ok.into()
    })
}

fn lower(resource: Resource, to: u64) {
    let mut limit = rustix::process::getrlimit(resource);
    limit.current = Some(to);
    rustix::process::setrlimit(resource, limit).unwrap();
}

fn say(text: &str) {
    writeln!(std::io::stdout().lock(), "{MARK}{text}").unwrap();
}

fn line() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    line
}

/// What tells a child's words from those of the test harness around it.
const MARK: &str = "child: ";

/// A running child; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Running {
    pub(crate) fn start(role: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::role", "--nocapture", "--test-threads=1"])
            .env_remove("NOTIFY_SOCKET")
            .env(ROLE, role)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let stdout = BufReader::new(stdout.unwrap());
        Self {
            child,
            stdin: stdin.unwrap(),
            stdout,
            stderr: stderr.unwrap(),
        }
    }

    /// The next thing that the child says.
    pub(crate) fn hears(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "the child said no more: {}",
                self.complaints()
            );
            // The harness leaves its own line unfinished.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Sends a line.
    pub(crate) fn tell(&mut self, text: &str) {
        writeln!(self.stdin, "{text}").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; the status and all of stderr.
    pub(crate) fn ends(mut self) -> (ExitStatus, String) {
        let complaints = self.complaints();
        (self.child.wait().unwrap(), complaints)
    }

    /// Stops listening to its stdout, and waits for the end.
    pub(crate) fn ends_unheard(self) -> (ExitStatus, String) {
        let (mut stderr, mut complaints) = (self.stderr, String::new());
        let mut child = self.child;
        drop(self.stdout);
        stderr.read_to_string(&mut complaints).unwrap();
        (child.wait().unwrap(), complaints)
    }

    fn complaints(&mut self) -> String {
        let mut complaints = String::new();
        self.stderr.read_to_string(&mut complaints).unwrap();
        complaints
    }
}
