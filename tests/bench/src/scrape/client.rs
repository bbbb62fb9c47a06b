//! A client that scrapes as Prometheus does: one connection, the same request each time.

use anyhow::{Context, ensure};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::load::{Entry, connect};

/// What Prometheus says of itself and of what it takes (2.42).
const FIELDS: &str = "User-Agent: Prometheus/2.42.0\r\n\
    Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
    Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n";

pub(super) struct Client {
    socket: TcpStream,
    request: String,
    buf: BytesMut,
}

impl Client {
    /// `host` is what a proxy knows the exporter by.
    pub(super) async fn connect(entry: &Entry, host: &str) -> anyhow::Result<Self> {
        let request = match entry {
            Entry::Ports { http, .. } => format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n{FIELDS}\r\n"),
            Entry::Proxy { .. } => {
                let authorization = entry.authorization();
                format!("GET http://{host}/metrics HTTP/1.1\r\nHost: {host}\r\n{FIELDS}{authorization}\r\n")
            }
        };
        Ok(Self {
            socket: connect(entry.http_address()).await?,
            request,
            buf: BytesMut::new(),
        })
    }

    /// The body of an answer, as it came.
    pub(super) async fn scrape(&mut self) -> anyhow::Result<Vec<u8>> {
        self.socket.write_all(self.request.as_bytes()).await?;
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = self.buf.split_to(end);
        let head = std::str::from_utf8(&head)?.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{head}");
        let length = head
            .split("content-length: ")
            .nth(1)
            .context("the page has no length")?;
        let length = length.split("\r\n").next().unwrap_or_default().parse()?;
        while self.buf.len() < length {
            self.more().await?;
        }
        Ok(self.buf.split_to(length).to_vec())
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        let read = self.socket.read_buf(&mut self.buf).await?;
        ensure!(read > 0, "the connection ended");
        Ok(())
    }
}
