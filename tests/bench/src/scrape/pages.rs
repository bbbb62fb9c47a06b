//! The pages of a real exporter, and what they were.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{process::Running, thin::world::Namespace};

/// Where the exporter listens. Free in a namespace that was just made.
const EXPORTER: &str = "127.0.0.1:9100";

/// A page that was sent.
pub(super) struct Page {
    sent: Vec<u8>,
    /// Its length without compression, in bytes.
    pub(super) plain: u64,
}

impl Page {
    /// Whether a client got it, which may have asked for gzip.
    pub(super) fn is(&self, body: &[u8]) -> bool {
        self.sent == body
    }
}

/// The server of pages, and the exporter behind it.
pub(super) struct Pages {
    address: SocketAddr,
    sent: Arc<Mutex<VecDeque<Page>>>,
    _exporter: Running,
    _tasks: JoinSet<()>,
}

/// Connections are made in the namespace, by a thread that lives there.
type Connect = mpsc::Sender<oneshot::Sender<std::io::Result<std::net::TcpStream>>>;

impl Pages {
    pub(super) async fn start(far: &Namespace, exporter: &Path, dir: &Path) -> anyhow::Result<Self> {
        let program = exporter.display().to_string();
        let listen = format!("--web.listen-address={EXPORTER}");
        let args = ["netns", "exec", far.name(), &program, &listen];
        let running = Running::start(Path::new("ip"), &args, &dir.join("exporter.log"))?;
        let listener = far.enter(|| Ok(std::net::TcpListener::bind("127.0.0.1:0")?))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let connect = connector(far)?;
        while connected(&connect).await.is_err() {
            tokio::task::yield_now().await;
        }
        let sent = Arc::new(Mutex::default());
        let mut tasks = JoinSet::new();
        let all = Arc::clone(&sent);
        tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (all, connect) = (Arc::clone(&all), connect.clone());
                tokio::spawn(async move { serve(socket, &connect, &all).await });
            }
        });
        Ok(Self {
            address,
            sent,
            _exporter: running,
            _tasks: tasks,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The oldest page that was not taken yet.
    pub(super) fn take(&self) -> Option<Page> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

fn connector(far: &Namespace) -> anyhow::Result<Connect> {
    let (ask, mut asked) = mpsc::channel::<oneshot::Sender<_>>(4);
    // A thread keeps the namespace that it was made in.
    far.enter(|| {
        std::thread::spawn(move || {
            while let Some(answer) = asked.blocking_recv() {
                let _ = answer.send(std::net::TcpStream::connect(EXPORTER));
            }
        });
        Ok(())
    })?;
    Ok(ask)
}

async fn connected(connect: &Connect) -> anyhow::Result<TcpStream> {
    let (answer, answered) = oneshot::channel();
    connect.send(answer).await.ok().context("nothing connects any more")?;
    let socket = answered.await??;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket)?)
}

/// Answers requests, each with a page of the exporter's.
async fn serve(mut socket: TcpStream, connect: &Connect, all: &Mutex<VecDeque<Page>>) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut asked = Vec::new();
    loop {
        let Some(end) = asked.windows(4).position(|end| end == b"\r\n\r\n") else {
            if socket.read_buf(&mut asked).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8(asked.drain(..end + 2).collect())?;
        asked.drain(..2);
        let mut exporter = connected(connect).await?;
        exporter
            .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        exporter.read_to_end(&mut answer).await?;
        let (fields, sent) = parse(&answer)?;
        let plain = if fields.to_ascii_lowercase().contains("content-encoding: gzip") {
            // A gzip member ends with the length of what it holds (RFC 1952 section 2.3.1).
            let length = sent.last_chunk().context("the page is cut")?;
            u64::from(u32::from_le_bytes(*length))
        } else {
            sent.len() as u64
        };
        let head = format!("{fields}Content-Length: {}\r\n\r\n", sent.len());
        let whole = [head.as_bytes(), &sent].concat();
        all.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(Page { sent, plain });
        socket.write_all(&whole).await?;
    }
}

/// Status line and fields without those of the connection, and the body.
fn parse(answer: &[u8]) -> anyhow::Result<(String, Vec<u8>)> {
    let end = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .context("the exporter is cut")?;
    let head = std::str::from_utf8(&answer[..end + 2])?;
    let mut body = &answer[end + 4..];
    let own = ["transfer-encoding:", "content-length:", "connection:"];
    let is_own = |line: &&str| !own.iter().any(|name| line.to_ascii_lowercase().starts_with(name));
    let fields: String = head.split_inclusive("\r\n").filter(is_own).collect();
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok((fields, body.to_vec()));
    }
    let mut whole = Vec::new();
    loop {
        let line = body
            .windows(2)
            .position(|end| end == b"\r\n")
            .context("a chunk is cut")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line])?, 16)?;
        if size == 0 {
            return Ok((fields, whole));
        }
        let (start, end) = (line + 2, line + 2 + size);
        ensure!(body.len() >= end + 2, "a chunk is cut");
        whole.extend_from_slice(&body[start..end]);
        body = &body[end + 2..];
    }
}
