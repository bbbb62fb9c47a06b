//! A lab with a gateway and edges in it: what the tests of the whole system start from.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::runtime::Handle;
use tunnel_carrier::quic::{Dialer, Limits};
use tunnel_e2e::lab::Host;
use tunnel_e2e::{Lab, Process, Service, Site, built, run, run_with_input, wait_until};

/// Longer than anything that works takes on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Where the logs of all programs stay after the tests, one directory for each test. Without it only the last
/// lines are shown, for tests that fail.
const LOGS: &str = "TUNNEL_E2E_LOGS";

/// What edges allow beside ssh, kubelet and node-exporter, by TCP and by UDP.
const ALLOWED: &str = "127.0.0.1:8000-8999";

/// The gateway's ports.
pub(crate) const PUBLIC: u16 = 7_000;
pub(crate) const PROXY: u16 = 7_080;

/// A running gateway in a lab, with whatever edges a test lets join.
pub(crate) struct World {
    // Programs go before the lab in whose hosts they run.
    pub(crate) gateway: Process,
    services: Vec<Process>,
    /// Who may reach everything.
    pub(crate) user: User,
    config: PathBuf,
    logs: PathBuf,
    pub(crate) lab: Lab,
}

/// Somebody who uses the proxy.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) secret: String,
}

/// An edge that has joined.
pub(crate) struct Edge {
    /// The agent, if it runs.
    pub(crate) agent: Option<Process>,
    pub(crate) name: String,
    /// The lab's host that it runs on.
    pub(crate) host: String,
    pub(crate) config: PathBuf,
    pub(crate) state: PathBuf,
    /// What its programs find in their environment, beside what the test's has.
    pub(crate) env: Vec<(&'static str, OsString)>,
    logs: PathBuf,
}

impl World {
    /// A gateway and one connected edge, `edge1`.
    pub(crate) async fn with_edge(site: Site) -> anyhow::Result<(Self, Edge)> {
        let world = Self::start([site]).await?;
        let edge = world.edge(1).await?;
        Ok((world, edge))
    }

    /// A gateway, and sites without anything running there.
    pub(crate) async fn start(sites: impl IntoIterator<Item = Site>) -> anyhow::Result<Self> {
        let lab = sites
            .into_iter()
            .fold(Lab::builder(), |lab, site| lab.site(site))
            .build()?;
        let dir = lab.dir().to_owned();
        Self::start_in(lab, &dir).await
    }

    /// As [`start`](Self::start), with the gateway's files in a directory of the test's choice.
    pub(crate) async fn start_in(lab: Lab, dir: &Path) -> anyhow::Result<Self> {
        let logs = log_dir(&lab)?;
        let config = init(&lab, dir).await?;
        let gateway = serve(&lab, &config, &logs).await?;
        let mut world = Self {
            gateway,
            services: Vec::new(),
            user: User {
                name: "ops".to_owned(),
                secret: String::new(),
            },
            config,
            logs,
            lab,
        };
        world.user = world.create_user("ops", Some("admins")).await?;
        Ok(world)
    }

    /// The host of the gateway.
    pub(crate) fn gw(&self) -> &Host {
        self.lab.host("gw")
    }

    /// The host of those who use it.
    pub(crate) fn client(&self) -> &Host {
        self.lab.host("user1")
    }

    /// A socket of the client's host from which the test itself dials the gateway as an edge does.
    pub(crate) fn dialer(&self) -> anyhow::Result<Dialer> {
        let runtime = Handle::current();
        self.client().enter(|| {
            let _inside = runtime.enter();
            Ok(Dialer::bind(0, Limits::edge())?)
        })
    }

    /// The gateway's proxy port.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.gw().at(PROXY)
    }

    /// The proxy as clients are told about it, with `ops`'s credential.
    pub(crate) fn proxy_url(&self, scheme: &str) -> String {
        let User { name, secret } = &self.user;
        format!("{scheme}://{name}:{secret}@{}", self.proxy())
    }

    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The gateway's configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// The gateway's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        state_of(&self.config)
    }

    /// Runs `tunnel-cloud` to its end, with the gateway's configuration.
    pub(crate) async fn cloud(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.gw().command(built("tunnel-cloud")?);
        command.arg("--config").arg(&self.config).args(args);
        run(command, SOON).await
    }

    /// As [`cloud`](Self::cloud), for a command that must work; returns what it prints as data.
    pub(crate) async fn cloud_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.cloud(args).await?;
        stdout_of(&output).with_context(|| format!("tunnel-cloud {}", args.join(" ")))
    }

    /// As [`cloud_ok`](Self::cloud_ok), with the data as JSON.
    pub(crate) async fn cloud_json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.cloud_ok(&[args, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// A user, in a group or in none.
    pub(crate) async fn create_user(&self, name: &str, group: Option<&str>) -> anyhow::Result<User> {
        let mut args = vec!["users", "create", name];
        args.extend(group.iter().flat_map(|group| ["--group", group]));
        let secret = self.cloud_ok(&args).await?;
        Ok(User {
            name: name.to_owned(),
            secret,
        })
    }

    /// A token for one node of any name.
    pub(crate) async fn token(&self) -> anyhow::Result<String> {
        self.cloud_ok(&["token", "create"]).await
    }

    /// What `nodes ls` says about a node.
    pub(crate) async fn node(&self, name: &str) -> anyhow::Result<Value> {
        let list = self.cloud_json(&["nodes", "ls"]).await?;
        let node = list["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|node| node["name"] == name));
        node.cloned().with_context(|| format!("no node {name} in {list}"))
    }

    /// Waits until the gateway calls a node `online` or `offline`.
    pub(crate) async fn wait_for_state(&self, name: &str, state: &str, within: Duration) -> anyhow::Result<()> {
        wait_until(&format!("{name} is {state}"), within, async || {
            self.node(name).await.is_ok_and(|node| node["state"] == state)
        })
        .await
    }

    /// The edge of a site, joined and connected, with the site's number in its name.
    pub(crate) async fn edge(&self, site: usize) -> anyhow::Result<Edge> {
        let mut edge = self.join(site).await?;
        edge.start(&self.lab)?;
        edge.wait_connected(&self.lab).await?;
        Ok(edge)
    }

    /// As [`edge`](Self::edge), but not started yet.
    pub(crate) async fn join(&self, site: usize) -> anyhow::Result<Edge> {
        let edge = self.new_edge(site)?;
        let output = edge.join(&self.lab, &self.token().await?).await?;
        stdout_of(&output).context("join")?;
        let text = fs::read_to_string(&edge.config)?;
        let allow = format!("allow = [{ALLOWED:?}, \"udp:{ALLOWED}\"]");
        fs::write(&edge.config, text.replace("allow = []", &allow))?;
        Ok(edge)
    }

    /// The files of an edge that has not joined yet.
    pub(crate) fn new_edge(&self, site: usize) -> anyhow::Result<Edge> {
        let name = format!("edge{site}");
        let dir = self.lab.dir().join(&name);
        fs::create_dir_all(&dir)?;
        Ok(Edge {
            agent: None,
            host: name.clone(),
            name,
            config: dir.join("edge.toml"),
            state: dir.join("state"),
            env: Vec::new(),
            logs: self.logs.clone(),
        })
    }

    /// Runs a service on the loopback interface of an edge's machine.
    pub(crate) async fn offer(&mut self, edge: &Edge, service: Service, port: u16) -> anyhow::Result<()> {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let process = self.lab.host(&edge.host).serve(service, addr, &self.logs).await?;
        self.services.push(process);
        Ok(())
    }

    /// Keeps a program running as long as this world.
    pub(crate) fn keep(&mut self, process: Process) {
        self.services.push(process);
    }

    /// Starts the gateway again after it has ended.
    pub(crate) async fn restart_gateway(&mut self) -> anyhow::Result<()> {
        self.gateway = serve(&self.lab, &self.config, &self.logs).await?;
        Ok(())
    }

    /// `curl` on the client's host, with its arguments.
    pub(crate) async fn curl(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.client().command("curl");
        command.args(["-sS", "--max-time", "60"]).args(args);
        run(command, Duration::from_secs(70)).await
    }

    /// As [`curl`](Self::curl), for a transfer that must work; returns the body.
    pub(crate) async fn curl_ok(&self, args: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self.curl(args).await?;
        ensure!(output.status.success(), "curl {args:?}: {output:?}");
        Ok(output.stdout)
    }
}

impl Edge {
    /// Joins with a token.
    pub(crate) async fn join(&self, lab: &Lab, token: &str) -> anyhow::Result<Output> {
        let mut command = self.command(lab)?;
        command
            .args(["join", "-", "--name", &self.name])
            .arg("--state")
            .arg(&self.state);
        run_with_input(command, token.as_bytes(), SOON).await
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let mut command = self.command(lab)?;
        command.arg("run");
        self.agent = Some(Process::spawn(&unique(&self.logs, &self.name), command, &self.logs)?);
        Ok(())
    }

    /// Waits until the agent says that it is connected.
    pub(crate) async fn wait_connected(&self, lab: &Lab) -> anyhow::Result<()> {
        let output = self.run(lab, &["wait", "--timeout", "25s"]).await?;
        stdout_of(&output).map(drop)
    }

    /// The agent, which must have been started.
    pub(crate) fn agent(&mut self) -> anyhow::Result<&mut Process> {
        self.agent.as_mut().context("the agent does not run")
    }

    /// Runs `tunnel-edge` to its end, with this edge's configuration.
    pub(crate) async fn run(&self, lab: &Lab, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.command(lab)?;
        command.args(args);
        run(command, SOON).await
    }

    fn command(&self, lab: &Lab) -> anyhow::Result<Command> {
        let mut command = lab.host(&self.host).command(built("tunnel-edge")?);
        command.arg("--config").arg(&self.config).envs(self.env.iter().cloned());
        Ok(command)
    }
}

/// Makes a cluster in `dir` whose gateway is to run on the lab's host for it; returns its configuration file.
pub(crate) async fn init(lab: &Lab, dir: &Path) -> anyhow::Result<PathBuf> {
    let gw = lab.host("gw");
    let config = dir.join("cloud.toml");
    let mut command = gw.command(built("tunnel-cloud")?);
    command
        .arg("init")
        .arg("--config")
        .arg(&config)
        .arg("--state")
        .arg(state_of(&config));
    command.args([
        "--public",
        &gw.at(PUBLIC).to_string(),
        "--proxy",
        &gw.at(PROXY).to_string(),
    ]);
    stdout_of(&run(command, SOON).await?)?;
    Ok(config)
}

/// Starts a gateway, and returns once it listens.
pub(crate) async fn serve(lab: &Lab, config: &Path, logs: &Path) -> anyhow::Result<Process> {
    let mut command = lab.host("gw").command(built("tunnel-cloud")?);
    command.arg("serve").arg("--config").arg(config);
    let gateway = Process::spawn(&unique(logs, "gateway"), command, logs)?;
    gateway.wait_for_line("gateway up", SOON).await?;
    Ok(gateway)
}

/// Ends a program as its service manager would, and waits for it.
pub(crate) async fn stop(process: &mut Process) -> anyhow::Result<()> {
    process.signal(Signal::SIGTERM)?;
    let status = process.wait_for_exit(SOON).await?;
    ensure!(status.success(), "stopped with {status}");
    Ok(())
}

/// What a program that must have succeeded has printed, without the last line's end.
pub(crate) fn stdout_of(output: &Output) -> anyhow::Result<String> {
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// What a program has said to a person.
pub(crate) fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn state_of(config: &Path) -> PathBuf {
    config.with_file_name("cloud-state")
}

fn log_dir(lab: &Lab) -> anyhow::Result<PathBuf> {
    let Some(all) = std::env::var_os(LOGS) else {
        return Ok(lab.dir().to_owned());
    };
    // The test runner gives each test a thread with its name.
    let thread = std::thread::current();
    let dir = PathBuf::from(all).join(thread.name().unwrap_or("test").replace("::", "-"));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A name that no log has yet: programs are started again, and their first logs are to stay.
fn unique(logs: &Path, name: &str) -> String {
    let free = |name: &String| !logs.join(format!("{name}.err")).exists();
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned())
        .chain(numbered)
        .find(free)
        .unwrap_or_else(|| name.to_owned())
}
