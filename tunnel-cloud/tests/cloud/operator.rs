//! Somebody with a shell and a directory of their own.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tunnel_cloud::{config::Config, state::State, store::Enrolment};
use tunnel_identity::{JoinToken, UnixTime};
use tunnel_model::NodeId;

/// Longer than anything here takes, even on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Operator {
    dir: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Did {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Did {
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.well()).unwrap()
    }

    /// It failed with this exit code, this error code, and one line on stderr.
    #[track_caller]
    pub(crate) fn failed(self, exit: i32, code: &str) -> String {
        assert_eq!(self.code, exit, "{self:?}");
        assert!(self.stderr.starts_with(&format!("error[{code}]: ")), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert_eq!(self.stdout, "");
        self.stderr
    }
}

impl From<Output> for Did {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Operator {
    /// With an empty directory.
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// With a new cluster, whose listeners take any free port.
    pub(crate) fn with_cluster() -> Self {
        let operator = Self::new();
        operator.init().well();
        let text = fs::read_to_string(operator.config()).unwrap();
        let text = text
            .replace("127.0.0.1:7090", "127.0.0.1:0")
            .replace("127.0.0.1:7080", "127.0.0.1:0");
        fs::write(
            operator.config(),
            text.replace("127.0.0.1:7000\"\nproxy", "127.0.0.1:0\"\nproxy"),
        )
        .unwrap();
        operator
    }

    pub(crate) fn init(&self) -> Did {
        let (config, state) = (self.config(), self.state());
        let args = ["init", "--public", "127.0.0.1:7000", "--config"];
        self.run_os(self.command(&args).arg(config).arg("--state").arg(state))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir().join("cloud.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// `tunnel-cloud --config C ARGS`
    pub(crate) fn run(&self, args: &[&str]) -> Did {
        self.run_os(self.command(&[]).arg("--config").arg(self.config()).args(args))
    }

    /// The binary, with these arguments and nothing in the environment that it listens to.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel-cloud"));
        command
            .args(args)
            .current_dir(self.dir())
            .env_remove("TUNNEL_CLOUD_CONFIG")
            .env_remove("TUNNEL_LOG")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run_os(&self, command: &mut Command) -> Did {
        command.output().unwrap().into()
    }

    /// Lets nodes of these names join, as an edge with a token would, while no gateway runs.
    pub(crate) fn join(&self, names: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for name in names {
            let token: JoinToken = self.run(&["token", "create"]).well().trim().parse().unwrap();
            let now = UnixTime::from(std::time::SystemTime::now()).secs();
            let id = NodeId::random(&mut rand::rng());
            let enrolment = Enrolment {
                token: token.id(),
                id,
                name: name.parse().unwrap(),
                services: Vec::new(),
                agent_version: "0.1.0".to_owned(),
                serial: id.to_string(),
                not_after: now + 3600,
                now,
            };
            let config = Config::load(&self.config()).unwrap();
            runtime.block_on(async {
                let state = State::open(&config).await.unwrap();
                Arc::clone(&state.directory).enrol(enrolment).await.unwrap();
            });
        }
    }

    /// Starts the gateway and waits until it says that it is ready.
    pub(crate) fn serve(&self) -> Running {
        let notify = self.dir().join("notify.sock");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = fs::File::create(self.dir().join("gateway.log")).unwrap();
        let child = self
            .command(&["serve", "--config"])
            .arg(self.config())
            .env("NOTIFY_SOCKET", &notify)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let running = Running { child, notify: socket };
        running.wait_for("READY=1", || {
            fs::read_to_string(self.dir().join("gateway.log")).unwrap()
        });
        running
    }
}

/// A gateway, killed when dropped.
pub(crate) struct Running {
    child: Child,
    notify: UnixDatagram,
}

impl Running {
    fn wait_for(&self, what: &str, log: impl Fn() -> String) {
        let mut buf = [0; 4096];
        loop {
            let Ok(len) = self.notify.recv(&mut buf) else {
                panic!("the gateway never said {what}:\n{}", log());
            };
            if String::from_utf8_lossy(&buf[..len]).lines().any(|line| line == what) {
                return;
            }
        }
    }

    /// Asks it to stop, and returns its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` or `kill` it is gone, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
