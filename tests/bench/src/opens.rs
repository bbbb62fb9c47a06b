//! How long it takes to open a stream across a link with a round trip that counts.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, RootCertStore};
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

/// What was measured: from TCP connect to the first byte that tells of the target.
pub(crate) struct OpensFigures {
    count: usize,
    /// By CONNECT, to the answer 200.
    connect: Latencies,
    /// By the server name of TLS, to the echo of the client hello.
    sni: Latencies,
    /// To an echo, without a tunnel or a link.
    direct: Latencies,
}

impl OpensFigures {
    fn ways(&self) -> [(&str, &Latencies); 2] {
        [("CONNECT", &self.connect), ("SNI", &self.sni)]
    }

    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let line = |way: &str, taken: &Latencies| {
            let [p99, median] = [taken.p99(), taken.median()].map(|time| time.as_secs_f64() * 1e3);
            (
                format!("{} opens by {CALLERS} callers, {way}, p99 (median)", self.count),
                format!("{p99:.1} ms ({median:.1})"),
            )
        };
        let tunnel = self.ways();
        let tunnel = tunnel.map(|(way, taken)| line(&format!("{way} across 20 ms"), taken));
        tunnel.into_iter().chain([line("direct", &self.direct)]).collect()
    }

    pub(crate) fn missed(&self) -> Vec<String> {
        let bar = ROUND_TRIP + BEYOND + self.direct.p99();
        let missed = self.ways().into_iter().filter(|(_, taken)| taken.p99() > bar);
        missed
            .map(|(way, taken)| format!("opens by {way}: p99 {:.1?}, the bar is {bar:.1?}", taken.p99()))
            .collect()
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
    let (sni, hello) = (gateway.sni(), Arc::new(client_hello(Ours::BULK)?));

    eprintln!("opens: {count} each");
    let by_connect = move || {
        let entry = Arc::clone(&entry);
        async move { entry.connect_tcp().await.map(drop) }
    };
    let by_name = move || {
        let hello = Arc::clone(&hello);
        async move { echoed(sni, &hello).await }
    };
    all(WARM_UP, by_connect.clone()).await?;
    let connect = all(count, by_connect).await?;
    all(WARM_UP, by_name.clone()).await?;
    let sni = all(count, by_name).await?;
    let direct = all(count, move || echoed(echo, &[1])).await?;
    serving.abort();
    Ok(OpensFigures {
        count,
        connect,
        sni,
        direct,
    })
}

/// What a client of TLS says first to a server of this name.
fn client_hello(name: &'static str) -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// Connects, says something, and waits for the first byte of its echo.
async fn echoed(address: SocketAddr, said: &[u8]) -> anyhow::Result<()> {
    let mut socket = connect(address).await?;
    socket.write_all(said).await?;
    anyhow::ensure!(socket.read_u8().await? == said[0], "this is no echo");
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
