//! How long a stream that waits for its link takes to go on once the link is back.

use std::{path::Path, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, interval, sleep, timeout},
};
use tunnel_linkem::{LinkConfig, relay::UdpRelay};

use crate::{load::Backends, subject::Ours};

const LINK: &str = "20ms";
/// What the first byte may take: a second and a round trip.
const BAR: Duration = Duration::from_millis(1_020);
/// How long the link is cut, in turn. The longest outages outlast the connection.
const OUTAGES: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
];
/// Between two bytes of the server.
const EVERY: Duration = Duration::from_millis(10);
/// Longer than anything that comes back takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// What was measured: outages, and the time from their ends to the first byte.
pub(crate) struct BackFigures(Vec<(Duration, Duration)>);

impl BackFigures {
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let line = |(outage, taken): &(Duration, Duration)| {
            (
                format!(
                    "link back after {} s, first byte of a stream that waits",
                    outage.as_secs()
                ),
                format!("{:.2} s", taken.as_secs_f64()),
            )
        };
        self.0.iter().map(line).collect()
    }

    pub(crate) fn missed(&self) -> Vec<String> {
        let late = self.0.iter().filter(|(_, taken)| *taken > BAR);
        late.map(|(outage, taken)| format!("link back after {outage:?}: {taken:.2?}, the bar is {BAR:?}"))
            .collect()
    }
}

/// Cuts the link of an edge again and again, each time for longer, under a stream on which a byte comes all the time.
pub(crate) async fn measure(backends: Backends, dir: &Path) -> anyhow::Result<BackFigures> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let backends = Backends {
        tcp: listener.local_addr()?,
        ..backends
    };
    let ticking = tokio::spawn(tick(listener));
    let link: LinkConfig = LINK.parse()?;
    let (gateway, _serve) = Ours::start(dir).await?;
    let relay = gateway.link(link.into()).await?;
    let _edge = gateway.edge_at(backends, relay.local_addr()).await?;
    let mut stream = gateway.entry().await?.connect_tcp().await?;
    let mut figures = Vec::new();
    for outage in OUTAGES {
        eprintln!("link back: {} s", outage.as_secs());
        let taken = timeout(outage + PATIENCE, cut(&relay, &mut stream, outage)).await;
        figures.push((outage, taken.context("the stream stands still")??));
    }
    ticking.abort();
    Ok(BackFigures(figures))
}

async fn cut(relay: &UdpRelay, stream: &mut TcpStream, outage: Duration) -> anyhow::Result<Duration> {
    // It runs, and what it has sent is read.
    let mut buffer = [0; 4096];
    stream.read_exact(&mut buffer[..200]).await?;
    relay.set_link(relay.link().with_up(false));
    let drained = async {
        loop {
            anyhow::ensure!(stream.read(&mut buffer).await? > 0, "the stream ended");
        }
    };
    tokio::select! {
        broken = drained => return broken,
        () = sleep(outage) => {}
    }
    let mended = Instant::now();
    relay.set_link(relay.link().with_up(true));
    stream.read_u8().await?;
    Ok(mended.elapsed())
}

async fn tick(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (mut socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut ticks = interval(EVERY);
            while socket.write_u8(1).await.is_ok() {
                ticks.tick().await;
            }
        });
    }
}
