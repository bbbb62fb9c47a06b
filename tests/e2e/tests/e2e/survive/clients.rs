//! Unmodified clients, each in the middle of something that takes longer than what happens to its link.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tunnel_e2e::{Process, Service};

use crate::clients::kubectl::{Cluster, FIRST};
use crate::clients::ssh::Keys;
use crate::stream::Transfer;
use crate::world::{Edge, SOON, World};

/// What curl fetches.
const SIZE: usize = 200_000_000;
/// How much of that comes in one step of a test: more than all buffers on the way hold.
const STEP: usize = 30_000_000;
/// How long a step may take, all clients together, beyond what the link does to them.
const STEP_WITHIN: Duration = Duration::from_secs(90);
/// What the command at the far end of ssh ends with.
const STATUS: i32 = 42;

/// ssh, curl, kubectl and a WebSocket.
pub(super) struct Clients {
    ssh: Process,
    /// ssh's command ends when this file is there.
    stop: PathBuf,
    curl: Child,
    download: Transfer<ChildStdout>,
    fetched: usize,
    socket: WebSocketStream<BufReader<TcpStream>>,
    /// What was said on it and has not come back.
    said: Vec<String>,
    cluster: Cluster,
    kubectl: Process,
    /// What kubectl has to print.
    nodes: Vec<String>,
}

impl Clients {
    /// How many streams they have at least: kubectl may have two.
    pub(super) const COUNT: usize = 4;

    /// Starts servers behind the edge, and the clients; each has had an answer when this returns.
    pub(super) async fn start(world: &mut World, edge: &Edge) -> anyhow::Result<Self> {
        let keys = Keys::new(world.lab.dir()).await?;
        let sshd = keys.sshd(world, edge)?;
        world.keep(sshd);
        world.offer(edge, Service::Http, 8080).await?;
        world.offer(edge, Service::WsEcho, 8081).await?;
        let listening = ([127, 0, 0, 1], 22).into();
        world.lab.host(&edge.host).wait_for_port(listening, SOON).await?;
        let cluster = Cluster::start(world, edge)?;

        let stop = world.lab.dir().join("stop-counting");
        let count = format!(
            "i=0; until [ -e {} ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit {STATUS}",
            stop.display()
        );
        let mut curl = world.client().command("curl");
        curl.args([
            "-sS",
            "--fail",
            "-x",
            &world.proxy_url("http"),
            &format!("http://edge1:8080/bytes/{SIZE}"),
        ]);
        curl.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut curl = curl.spawn()?;
        let stream = world.connect("edge1:8081").await?;
        let (socket, _) = timeout(SOON, tokio_tungstenite::client_async("ws://edge1:8081/", stream)).await??;
        let mut clients = Self {
            ssh: Process::spawn("ssh", keys.ssh(world, &count), world.logs())?,
            stop,
            download: Transfer::new(curl.stdout.take().context("no pipe to curl")?, SIZE),
            curl,
            fetched: 0,
            socket,
            said: Vec::new(),
            kubectl: cluster.watch(world)?,
            cluster,
            nodes: vec![FIRST.to_owned()],
        };
        clients.kubectl.wait_for_line(FIRST, SOON).await?;
        clients.go_on().await?;
        Ok(clients)
    }

    /// Something for each of them is under way, whether or not it arrives now.
    pub(super) async fn speak(&mut self) -> anyhow::Result<()> {
        let number = self.nodes.len() + 1;
        let name = format!("worker-{number}");
        self.cluster.add(&name);
        self.socket.send(Message::text(name.clone())).await?;
        self.said.push(name.clone());
        self.nodes.push(name);
        Ok(())
    }

    /// Each of them hears what is under way, and something new.
    pub(super) async fn go_on(&mut self) -> anyhow::Result<()> {
        self.speak().await?;
        let last = self.nodes.last().context("no node")?;
        self.fetched = SIZE.min(self.fetched + STEP);
        let counted = self.ssh.stdout().len();
        let counting = async {
            let further = |line: &str| line.parse().is_ok_and(|number: usize| number > counted);
            let line = self.ssh.wait_for_line_that("counts on", STEP_WITHIN, further).await;
            line.map(drop).context("ssh")
        };
        let watching = async {
            let line = self.kubectl.wait_for_line(last, STEP_WITHIN).await;
            line.map(drop).context("kubectl")
        };
        let fetching = async { self.download.read_to(self.fetched, STEP_WITHIN).await.context("curl") };
        let echoing = async {
            for said in self.said.drain(..) {
                let heard = timeout(STEP_WITHIN, self.socket.next()).await.context("no echo")?;
                ensure!(heard.context("the WebSocket was closed")?? == Message::text(said));
            }
            anyhow::Ok(())
        };
        tokio::try_join!(counting, watching, fetching, echoing)?;
        Ok(())
    }

    /// They come to their ends, and nothing was lost, came twice or in another order.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        self.download.finish(STEP_WITHIN).await.context("curl")?;
        let status = timeout(SOON, self.curl.wait()).await.context("curl does not end")??;
        ensure!(status.success(), "curl: {status}");

        std::fs::write(&self.stop, "")?;
        let status = self.ssh.wait_for_exit(SOON).await?;
        ensure!(status.code() == Some(STATUS), "ssh: {status}");
        let counted = self.ssh.stdout();
        let all = (1..=counted.len()).map(|number| number.to_string());
        ensure!(all.eq(counted.iter().cloned()), "ssh: {counted:?}");

        let printed = self.kubectl.stdout();
        let first_words = printed.iter().filter_map(|line| line.split_whitespace().next());
        let printed: Vec<_> = first_words.filter(|word| *word != "NAME").collect();
        ensure!(printed == self.nodes, "kubectl: {printed:?}");

        timeout(SOON, async {
            self.socket.close(None).await?;
            while self.socket.next().await.transpose()?.is_some() {}
            anyhow::Ok(())
        })
        .await
        .context("the WebSocket does not end")?
    }
}
