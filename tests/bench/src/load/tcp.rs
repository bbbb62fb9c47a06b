//! Bulk: a server that sends as fast as it can.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::Instant,
};

use super::Entry;

pub(crate) struct Source(TcpListener);

impl Source {
    pub(crate) async fn bind() -> anyhow::Result<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0").await?))
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let block = Arc::new(vec![0x5a; 256 * 1024]);
        loop {
            let (mut socket, _) = self.0.accept().await?;
            let block = Arc::clone(&block);
            tokio::spawn(async move { while socket.write_all(&block).await.is_ok() {} });
        }
    }
}

/// Reads from so many connections for so long, and says how many bits came each second. The first tenth does not count.
pub(crate) async fn download(entry: &Entry, streams: usize, time: Duration) -> anyhow::Result<f64> {
    let received = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..streams {
        let mut socket = entry.connect_tcp().await?;
        let received = Arc::clone(&received);
        readers.spawn(async move {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(n @ 1..) = socket.read(&mut buffer).await {
                received.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(time / 10).await;
    let (before, start) = (received.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let bytes = received.load(Ordering::Relaxed) - before;
    let elapsed = start.elapsed().as_secs_f64();
    anyhow::ensure!(readers.len() == streams && bytes > 0, "the transfer broke off");
    readers.shutdown().await;
    Ok(bytes as f64 * 8.0 / elapsed)
}
