//! Streams through the proxy that a test reads and writes byte by byte, and targets that a test plays itself.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::world::{SOON, User, World};

/// What `/bytes/N` counts, over and over; uploads do the same.
const ROUND: usize = 251;

/// What is read at once.
const READ: usize = 16 * 1024;

impl User {
    /// The credential as the field of a request to a proxy.
    pub(crate) fn field(&self) -> String {
        let pair = BASE64_STANDARD.encode(format!("{}:{}", self.name, self.secret));
        format!("Proxy-Authorization: Basic {pair}\r\n")
    }
}

impl World {
    /// A stream to `HOST:PORT` by CONNECT.
    pub(crate) async fn connect(&self, target: &str) -> anyhow::Result<BufReader<TcpStream>> {
        let stream = self.client().connect(self.proxy()).await?;
        let mut stream = BufReader::new(stream);
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
            self.user.field()
        );
        stream.write_all(request.as_bytes()).await?;
        let head = timeout(SOON, head(&mut stream))
            .await
            .context("no answer to CONNECT")??;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Ok(stream)
    }

    /// The answer to a request by plain proxying, from its head on: `GET http://HOST:PORT/...`.
    pub(crate) async fn get(&self, uri: &str) -> anyhow::Result<(String, BufReader<TcpStream>)> {
        let authority = uri.split('/').nth(2).context("no authority")?;
        let mut stream = BufReader::new(self.client().connect(self.proxy()).await?);
        let request = format!("GET {uri} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n", self.user.field());
        stream.write_all(request.as_bytes()).await?;
        let head = timeout(SOON, head(&mut stream)).await.context("no answer to GET")??;
        Ok((head, stream))
    }
}

/// A transfer whose every byte is checked on arrival.
pub(crate) struct Transfer<R = BufReader<TcpStream>> {
    stream: R,
    size: usize,
    received: usize,
    /// The longest time between two reads that brought something.
    pub(crate) longest_stall: Duration,
}

impl Transfer {
    /// Begins to download `size` bytes from the web server of an edge, through a stream by CONNECT.
    pub(crate) async fn download(world: &World, target: &str, size: usize) -> anyhow::Result<Self> {
        let mut stream = world.connect(target).await?;
        let request = format!("GET /bytes/{size} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = timeout(SOON, head(&mut stream)).await.context("no answer to GET")??;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Ok(Self::new(stream, size))
    }
}

impl<R: AsyncRead + Unpin> Transfer<R> {
    /// The receiving end of `size` bytes that [`send`] or `/bytes` writes.
    pub(crate) fn new(stream: R, size: usize) -> Self {
        Self {
            stream,
            size,
            received: 0,
            longest_stall: Duration::ZERO,
        }
    }

    /// Reads on until so many bytes have arrived in all, none of which may keep it waiting longer than `patience`.
    pub(crate) async fn read_to(&mut self, offset: usize, patience: Duration) -> anyhow::Result<()> {
        let mut buffer = vec![0; READ];
        let round = pattern(ROUND + READ);
        while self.received < offset {
            let room = buffer.len().min(offset - self.received);
            let start = Instant::now();
            let read = timeout(patience, self.stream.read(&mut buffer[..room])).await;
            let read = read.with_context(|| format!("nothing came for {patience:?} after {} bytes", self.received))?;
            let read = read.with_context(|| format!("after {} bytes", self.received))?;
            ensure!(read > 0, "an end after {} of {} bytes", self.received, self.size);
            self.longest_stall = self.longest_stall.max(start.elapsed());
            let wanted = &round[self.received % ROUND..][..read];
            if buffer[..read] != *wanted {
                let differs = buffer.iter().zip(wanted).position(|(came, wanted)| came != wanted);
                let at = self.received + differs.unwrap_or_default();
                bail!("byte {at} is not {}", at % ROUND);
            }
            self.received += read;
        }
        Ok(())
    }

    /// Reads the rest.
    pub(crate) async fn finish(mut self, patience: Duration) -> anyhow::Result<Duration> {
        self.read_to(self.size, patience).await?;
        Ok(self.longest_stall)
    }

    /// Reads until the stream breaks, and returns how: an end that is no error, or all that was wanted, is not a break.
    pub(crate) async fn break_of(mut self) -> anyhow::Result<std::io::Error> {
        let error = self.read_to(self.size, SOON).await.err().context("it was not broken")?;
        error.downcast()
    }
}

/// Sends `size` bytes for a [`Transfer`] to check, and ends the direction.
pub(crate) async fn send(mut stream: BufReader<TcpStream>, size: usize) -> std::io::Result<()> {
    let round = pattern(ROUND * 64);
    let mut sent = 0;
    while sent < size {
        let part = &round[..round.len().min(size - sent)];
        stream.write_all(part).await?;
        sent += part.len();
    }
    stream.shutdown().await
}

/// The bytes that uploads and downloads consist of.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..251u8).cycle().take(size).collect()
}

/// The next connection to a target that the test plays.
pub(crate) async fn accept(listener: &TcpListener) -> anyhow::Result<BufReader<TcpStream>> {
    let (stream, _) = timeout(SOON, listener.accept()).await.context("nobody came")??;
    Ok(BufReader::new(stream))
}

/// A head of HTTP, up to the empty line.
pub(crate) async fn head(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut head).await?;
        ensure!(read > 0, "an end within a head: {head:?}");
    }
    Ok(head)
}
