//! The load across a thin link: transfers both ways, and somebody who types.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::world::Namespace;
use crate::load::{Backends, Entry};

/// The port of ssh, because a stream's rank goes by its port. Free in a namespace that was just made.
const ECHO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 22);
const KEYSTROKE: Duration = Duration::from_millis(100);
/// How long the last keystrokes may be on their way.
const LAST_ECHO: Duration = Duration::from_secs(20);

/// What the first byte of a transfer asks for.
const SEND: u8 = b'd';
const COUNT: u8 = b'u';

/// The servers at the far end.
pub(super) struct Servers {
    bulk: SocketAddr,
    /// Bytes that came up.
    counted: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Servers {
    /// Starts them in a namespace.
    pub(super) fn start(far: &Namespace) -> anyhow::Result<Self> {
        let listen = |address: SocketAddr| {
            let listener = far.enter(|| Ok(std::net::TcpListener::bind(address)?))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(TcpListener::from_std(listener)?)
        };
        let (bulk, echo) = (listen(([127, 0, 0, 1], 0).into())?, listen(ECHO)?);
        let counted = Arc::new(AtomicU64::new(0));
        let address = bulk.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_bulk(bulk, Arc::clone(&counted)));
        tasks.spawn(serve_echo(echo));
        Ok(Self {
            bulk: address,
            counted,
            _tasks: tasks,
        })
    }

    /// The echo has the place of the page.
    pub(super) fn backends(&self) -> Backends {
        Backends {
            tcp: self.bulk,
            http: ECHO,
            // Nobody sends packets here.
            udp: self.bulk,
        }
    }
}

async fn serve_bulk(listener: TcpListener, counted: Arc<AtomicU64>) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let counted = Arc::clone(&counted);
        tokio::spawn(async move {
            match socket.read_u8().await? {
                SEND => send(&mut socket).await,
                _ => count(&mut socket, &counted).await,
            }
        });
    }
}

async fn serve_echo(listener: TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            socket.set_nodelay(true)?;
            let (mut from, mut to) = socket.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

async fn send(socket: &mut TcpStream) -> std::io::Result<()> {
    // Nothing on the way can make it smaller.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(32 * 1024)
    .flatten()
    .collect();
    loop {
        socket.write_all(&noise).await?;
    }
}

async fn count(socket: &mut TcpStream, counted: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while let n @ 1.. = socket.read(&mut buffer).await? {
        counted.fetch_add(n as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// A transfer that goes on until this is dropped.
pub(super) struct Transfer {
    arrived: Arc<AtomicU64>,
    task: AbortHandle,
    _tasks: JoinSet<std::io::Result<()>>,
}

impl Transfer {
    /// Bytes that have arrived so far.
    pub(super) fn bytes(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.task.is_finished() && self.bytes() > 0
    }
}

/// From the far end.
pub(super) async fn download(entry: &Entry) -> anyhow::Result<Transfer> {
    let mut socket = entry.connect_tcp().await?;
    socket.write_u8(SEND).await?;
    let arrived = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&arrived);
    let mut tasks = JoinSet::new();
    let task = tasks.spawn(async move { count(&mut socket, &counter).await });
    Ok(Transfer {
        arrived,
        task,
        _tasks: tasks,
    })
}

/// To the far end.
pub(super) async fn upload(entry: &Entry, servers: &Servers) -> anyhow::Result<Transfer> {
    let mut socket = entry.connect_tcp().await?;
    socket.write_u8(COUNT).await?;
    let mut tasks = JoinSet::new();
    let task = tasks.spawn(async move { send(&mut socket).await });
    Ok(Transfer {
        arrived: Arc::clone(&servers.counted),
        task,
        _tasks: tasks,
    })
}

/// Somebody who types, whatever the echo does: one byte each 100 ms.
pub(super) struct Typing {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Typing {
    pub(super) async fn connect(entry: &Entry) -> anyhow::Result<Self> {
        let (mut from, mut to) = entry.connect_http().await?.into_split();
        to.write_u8(b'x').await?;
        from.read_u8().await?;
        Ok(Self { from, to })
    }

    /// How long each echo took, in seconds, sorted.
    pub(super) async fn for_so_long(&mut self, time: Duration) -> anyhow::Result<Vec<f64>> {
        let keystrokes = usize::try_from(time.as_nanos() / KEYSTROKE.as_nanos())?;
        let typed = Mutex::new(VecDeque::new());
        let typed = || typed.lock().unwrap_or_else(PoisonError::into_inner);
        let typing = async {
            let mut every = interval(KEYSTROKE);
            every.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for _ in 0..keystrokes {
                let due = every.tick().await;
                typed().push_back(due);
                self.to.write_u8(b'x').await?;
            }
            std::io::Result::Ok(())
        };
        let seeing = async {
            let mut echoes = Vec::with_capacity(keystrokes);
            while echoes.len() < keystrokes {
                self.from.read_u8().await?;
                let typed = typed().pop_front().unwrap_or_else(Instant::now);
                echoes.push(typed.elapsed().as_secs_f64());
            }
            std::io::Result::Ok(echoes)
        };
        let both = timeout(time + LAST_ECHO, async { tokio::try_join!(typing, seeing) });
        let ((), mut echoes) = both.await.map_err(|_| anyhow::anyhow!("echoes are missing"))??;
        echoes.sort_by(f64::total_cmp);
        Ok(echoes)
    }
}
