//! How long it takes to open a stream across a link with a round trip that counts.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::Instant,
};
use tunnel_linkem::LinkConfig;

use crate::{
    load::{Backends, Latencies, connect},
    subject::Ours,
};

const LINK: &str = "20ms";
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// What the tunnel may take beyond the round trip and what the same open takes without it.
const BEYOND: Duration = Duration::from_millis(5);
const CALLERS: usize = 64;
/// Opens before any counts.
const WARM_UP: usize = CALLERS * 2;

/// What was measured.
pub(crate) struct OpensFigures {
    count: usize,
    /// From TCP connect to the head of the answer 200.
    tunnel: Latencies,
    /// TCP connect and an echo of one byte, without a tunnel or a link.
    direct: Latencies,
}

impl OpensFigures {
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let what = [("CONNECT across 20 ms", &self.tunnel), ("direct", &self.direct)];
        what.into_iter()
            .map(|(way, taken)| {
                (
                    format!("{} opens by {CALLERS} callers, {way}, p99", self.count),
                    format!("{:.1} ms", taken.p99().as_secs_f64() * 1e3),
                )
            })
            .collect()
    }

    pub(crate) fn missed(&self) -> Option<String> {
        let (took, bar) = (self.tunnel.p99(), ROUND_TRIP + BEYOND + self.direct.p99());
        (took > bar).then(|| format!("opens: p99 {took:.1?}, the bar is {bar:.1?}"))
    }
}

/// Opens so many streams to an echo server, through a gateway whose edge is 20 ms away and without one.
pub(crate) async fn measure(count: usize, backends: Backends, dir: &Path) -> anyhow::Result<OpensFigures> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let echo = listener.local_addr()?;
    let serving = tokio::spawn(serve(listener));
    let link: LinkConfig = LINK.parse()?;
    let (gateway, _serve) = Ours::start(dir).await?;
    let relay = gateway.link(link.into()).await?;
    let backends = Backends { tcp: echo, ..backends };
    let _edge = gateway.edge_at(backends, relay.local_addr()).await?;
    let entry = Arc::new(gateway.entry().await?);

    eprintln!("opens: {count}");
    let open = move || {
        let entry = Arc::clone(&entry);
        async move { entry.connect_tcp().await.map(drop) }
    };
    all(WARM_UP, open.clone()).await?;
    let tunnel = all(count, open).await?;
    let direct = all(count, move || direct(echo)).await?;
    serving.abort();
    Ok(OpensFigures { count, tunnel, direct })
}

async fn direct(echo: SocketAddr) -> anyhow::Result<()> {
    let mut socket = connect(echo).await?;
    socket.write_u8(1).await?;
    socket.read_u8().await?;
    Ok(())
}

/// Runs so many opens, each caller one after the other.
async fn all<F, O>(count: usize, open: F) -> anyhow::Result<Latencies>
where
    F: Fn() -> O + Clone + Send + 'static,
    O: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for i in 0..CALLERS {
        let own = count / CALLERS + usize::from(i < count % CALLERS);
        let open = open.clone();
        callers.spawn(async move {
            let mut taken = Vec::with_capacity(own);
            for _ in 0..own {
                let asked = Instant::now();
                open().await?;
                taken.push(asked.elapsed());
            }
            anyhow::Ok(taken)
        });
    }
    let mut taken = Vec::new();
    while let Some(own) = callers.join_next().await {
        taken.extend(own??);
    }
    Ok(Latencies::new(taken, start.elapsed()))
}

async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (mut socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut from, mut to) = socket.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}
