//! Bytes both ways over one stream, hashed where they are sent and where they arrive.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
    time::{Instant, interval, timeout},
};

use crate::{
    load::{Backends, Entry},
    thin::world::Namespace,
};

/// What is written at once.
const CHUNK: usize = 16 * 1024;

/// How much to send each way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// As fast as it goes, until it is stopped and so many bytes were sent.
    AtLeast(u64),
    /// Until it is stopped, so many bytes each second.
    Trickle(u32),
}

/// What went one way, as one end of it saw it.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    hash: [u8; 32],
}

/// What both ends share, which are in one process for that.
struct Both {
    amount: Amount,
    stopped: AtomicBool,
    /// What has arrived at the near end and at the far end.
    arrived: [AtomicU64; 2],
}

/// A transfer that is under way.
pub(super) struct Transfer {
    both: Arc<Both>,
    near: JoinHandle<anyhow::Result<[Sum; 2]>>,
    far: JoinHandle<anyhow::Result<[Sum; 2]>>,
}

/// Somebody who looks how long nothing arrives.
pub(super) struct Watch {
    task: JoinHandle<Duration>,
    enough: Arc<AtomicBool>,
}

impl Watch {
    /// The longest time in which nothing arrived at one of the ends.
    pub(super) async fn longest_pause(self) -> anyhow::Result<Duration> {
        self.enough.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

/// The far end of a transfer.
pub(super) struct Server {
    both: Arc<Both>,
    address: SocketAddr,
    far: JoinHandle<anyhow::Result<[Sum; 2]>>,
}

impl Server {
    /// Waits for the one stream in a namespace.
    pub(super) fn start(far: &Namespace, amount: Amount) -> anyhow::Result<Self> {
        let listener = far.enter(|| Ok(std::net::TcpListener::bind("127.0.0.1:0")?))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let both = Arc::new(Both {
            amount,
            stopped: AtomicBool::new(false),
            arrived: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let shared = Arc::clone(&both);
        let far = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await?;
            socket.read_u8().await?;
            exchange(socket, &shared, 1).await
        });
        Ok(Self { both, address, far })
    }

    pub(super) fn backends(&self) -> Backends {
        Backends {
            tcp: self.address,
            http: self.address,
            udp: self.address,
        }
    }

    /// Opens the stream.
    pub(super) async fn begin(self, entry: &Entry) -> anyhow::Result<Transfer> {
        let mut socket = entry.connect_tcp().await?;
        // The other end waits for that: what came together with a proxy's answer would be thrown away here.
        socket.write_u8(0).await?;
        let both = Arc::clone(&self.both);
        let near = tokio::spawn(async move { exchange(socket, &both, 0).await });
        Ok(Transfer {
            both: self.both,
            near,
            far: self.far,
        })
    }
}

impl Transfer {
    /// Bytes that have arrived at the near end and at the far end.
    pub(super) fn arrived(&self) -> [u64; 2] {
        [0, 1].map(|end: usize| self.both.arrived[end].load(Ordering::Relaxed))
    }

    /// Waits until something has arrived at each end that had not at this moment; how long that took there.
    pub(super) async fn go_on(&self, within: Duration) -> anyhow::Result<[Duration; 2]> {
        let (before, begin) = (self.arrived(), Instant::now());
        let mut took = [None; 2];
        let mut looks = interval(Duration::from_millis(5));
        let going = async {
            loop {
                looks.tick().await;
                for ((took, now), before) in took.iter_mut().zip(self.arrived()).zip(before) {
                    if now > before {
                        took.get_or_insert_with(|| begin.elapsed());
                    }
                }
                if let [Some(near), Some(far)] = took {
                    return Ok([near, far]);
                }
                ensure!(!self.is_over(), "the transfer broke off at {:?} bytes", self.arrived());
            }
        };
        timeout(within, going).await.context("the stream stands still")?
    }

    /// Looks at both ends from now on.
    pub(super) fn watch(&self) -> Watch {
        let (both, enough) = (Arc::clone(&self.both), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&enough);
        let task = tokio::spawn(async move {
            let mut ends = [(0, Instant::now()); 2];
            let mut longest = Duration::ZERO;
            let mut looks = interval(Duration::from_millis(5));
            while !until.load(Ordering::Relaxed) {
                looks.tick().await;
                for ((before, since), arrived) in ends.iter_mut().zip(&both.arrived) {
                    let now = arrived.load(Ordering::Relaxed);
                    if now != *before {
                        (*before, *since) = (now, Instant::now());
                    }
                    longest = longest.max(since.elapsed());
                }
            }
            longest
        });
        Watch { task, enough }
    }

    pub(super) fn is_over(&self) -> bool {
        self.near.is_finished() || self.far.is_finished()
    }

    /// No more is sent than was to be sent at least.
    pub(super) fn stop(&self) {
        self.both.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits for both ends, and gives how many bytes arrived at the near end and at the far end, if each that was sent has
    /// arrived once.
    pub(super) async fn whole(self, within: Duration) -> anyhow::Result<[u64; 2]> {
        let ends = async { tokio::try_join!(self.near, self.far) };
        let (near, far) = timeout(within, ends).await.context("the stream does not end")??;
        let ([near_sent, near_got], [far_sent, far_got]) = (near?, far?);
        ensure!(near_got == far_sent, "towards the caller: {near_got:?} of {far_sent:?}");
        ensure!(far_got == near_sent, "to the target: {far_got:?} of {near_sent:?}");
        Ok([near_got.bytes, far_got.bytes])
    }
}

/// One end: what it has sent, and what it has got.
async fn exchange(socket: TcpStream, both: &Arc<Both>, end: usize) -> anyhow::Result<[Sum; 2]> {
    socket.set_nodelay(true)?;
    let (from, to) = socket.into_split();
    let mut ways = JoinSet::new();
    let shared = Arc::clone(both);
    ways.spawn(async move { (0, send(to, &shared, end as u64 + 1).await) });
    let shared = Arc::clone(both);
    ways.spawn(async move { (1, receive(from, &shared.arrived[end]).await) });
    let mut sums = [None, None];
    // Each in its own time; the first that fails ends both.
    while let Some(way) = ways.join_next().await {
        let (index, sum): (usize, _) = way?;
        sums[index] = Some(sum.context(if index == 0 { "sending" } else { "receiving" })?);
    }
    let [sent, got] = sums;
    Ok([sent.context("it sent")?, got.context("it received")?])
}

async fn send(mut to: OwnedWriteHalf, both: &Both, seed: u64) -> anyhow::Result<Sum> {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let (mut bytes, begin) = (0_u64, Instant::now());
    let mut ticks = interval(Duration::from_millis(20));
    let least = match both.amount {
        Amount::AtLeast(least) => least,
        Amount::Trickle(_) => 0,
    };
    while bytes < least || !both.stopped.load(Ordering::Relaxed) {
        let length = match both.amount {
            Amount::AtLeast(_) => CHUNK as u64,
            Amount::Trickle(rate) => {
                ticks.tick().await;
                let due = u64::try_from(begin.elapsed().as_millis())? * u64::from(rate) / 1000;
                due.saturating_sub(bytes).min(CHUNK as u64)
            }
        };
        let chunk = &mut chunk[..usize::try_from(length)?];
        noise.fill(chunk);
        to.write_all(chunk).await?;
        hash.update(&*chunk);
        bytes += length;
    }
    to.shutdown().await?;
    Ok(Sum {
        bytes,
        hash: hash.finalize().into(),
    })
}

async fn receive(mut from: OwnedReadHalf, arrived: &AtomicU64) -> anyhow::Result<Sum> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    while let n @ 1.. = from.read(&mut buffer).await? {
        hash.update(&buffer[..n]);
        bytes += n as u64;
        arrived.store(bytes, Ordering::Relaxed);
    }
    Ok(Sum {
        bytes,
        hash: hash.finalize().into(),
    })
}

/// Bytes that never come again in the same order (xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}
