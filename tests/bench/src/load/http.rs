//! Requests for a small page, over connections that stay or one for each.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use super::{Entry, connect};

const PAGE: &[u8] = &[b'x'; 1024];
/// Clients that keep their connection.
const KEEPING: usize = 32;
/// Clients that do not.
const CLOSING: usize = 16;

pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) async fn bind() -> anyhow::Result<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0").await?))
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        loop {
            let (socket, _) = self.0.accept().await?;
            tokio::spawn(answer_all(socket));
        }
    }
}

async fn answer_all(mut socket: TcpStream) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut request = Vec::with_capacity(4096);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PAGE.len());
    let response = [head.as_bytes(), PAGE].concat();
    loop {
        let Some(end) = find_end(&request) else {
            if socket.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let close = request[..end]
            .windows(17)
            .any(|w| w.eq_ignore_ascii_case(b"connection: close"));
        request.drain(..end);
        socket.write_all(&response).await?;
        if close {
            return Ok(socket.shutdown().await?);
        }
    }
}

fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// How long requests took.
#[derive(Debug)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    elapsed: Duration,
}

impl Latencies {
    pub(crate) fn new(mut taken: Vec<Duration>, elapsed: Duration) -> Self {
        taken.sort_unstable();
        Self { sorted: taken, elapsed }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.sorted.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let at = (self.sorted.len() * percent).div_ceil(100).saturating_sub(1);
        self.sorted.get(at).copied().unwrap_or_default()
    }
}

/// Requests from clients that keep their connections.
pub(crate) async fn keep_alive(entry: &Entry, time: Duration) -> anyhow::Result<Latencies> {
    let mut sockets = Vec::new();
    for _ in 0..KEEPING {
        sockets.push(entry.connect_http().await?);
    }
    let request: Arc<[u8]> = Entry::kept_request().into();
    let start = Instant::now();
    let clients = sockets.into_iter().map(|mut socket| {
        let request = Arc::clone(&request);
        async move {
            let (mut taken, mut buffer) = (Vec::new(), Vec::with_capacity(8192));
            while start.elapsed() < time {
                let asked = Instant::now();
                socket.write_all(&request).await?;
                read_page(&mut socket, &mut buffer).await?;
                taken.push(asked.elapsed());
            }
            anyhow::Ok(taken)
        }
    });
    gather(start, clients).await
}

/// Requests from clients that make a connection for each.
pub(crate) async fn connection_per_request(entry: &Entry, time: Duration) -> anyhow::Result<Latencies> {
    let request: Arc<[u8]> = entry.single_request().into();
    let address = entry.http_address();
    let start = Instant::now();
    let clients = (0..CLOSING).map(|_| {
        let request = Arc::clone(&request);
        async move {
            let (mut taken, mut buffer) = (Vec::new(), Vec::with_capacity(8192));
            while start.elapsed() < time {
                let asked = Instant::now();
                let mut socket = connect(address).await?;
                socket.write_all(&request).await?;
                read_page(&mut socket, &mut buffer).await?;
                taken.push(asked.elapsed());
            }
            anyhow::Ok(taken)
        }
    });
    gather(start, clients).await
}

async fn gather<F>(start: Instant, clients: impl Iterator<Item = F>) -> anyhow::Result<Latencies>
where
    F: Future<Output = anyhow::Result<Vec<Duration>>> + Send + 'static,
{
    let mut running: JoinSet<_> = clients.collect();
    let mut all = Vec::new();
    while let Some(taken) = running.join_next().await {
        all.extend(taken??);
    }
    Ok(Latencies::new(all, start.elapsed()))
}

/// So many requests, a connection for each.
pub(crate) async fn requests(entry: &Entry, count: usize) -> anyhow::Result<()> {
    let request: Arc<[u8]> = entry.single_request().into();
    let address = entry.http_address();
    let mut running = JoinSet::new();
    for i in 0..CLOSING {
        let own = count / CLOSING + usize::from(i < count % CLOSING);
        let request = Arc::clone(&request);
        running.spawn(async move {
            let mut buffer = Vec::with_capacity(8192);
            for _ in 0..own {
                let mut socket = connect(address).await?;
                socket.write_all(&request).await?;
                read_page(&mut socket, &mut buffer).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

async fn read_page(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.clear();
    let mut whole = None;
    while whole.is_none_or(|length| buffer.len() < length) {
        anyhow::ensure!(socket.read_buf(buffer).await? > 0, "the answer was cut");
        if whole.is_none()
            && let Some(head) = find_end(buffer)
        {
            let ok = buffer.starts_with(b"HTTP/1.1 200");
            anyhow::ensure!(ok, "{}", String::from_utf8_lossy(buffer));
            whole = Some(head + PAGE.len());
        }
    }
    Ok(())
}
