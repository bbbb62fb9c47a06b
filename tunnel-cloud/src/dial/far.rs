//! What a stream or flow leads to: a node, by its session, or a service of the cloud side, by a socket of the gateway's own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tunnel_carrier::{Flow, Stream, Tunnel};
use tunnel_encoding::{Compressed, scrape::Scraped};
use tunnel_ingress::Dialled;
use tunnel_model::{HostPort, Refusal};

use super::{
    cloud::{CloudFlow, CloudStream},
    stream::Carried,
};

/// Where a destination is, once it is found.
#[derive(Debug)]
pub(super) enum Place {
    /// At the other end of a session.
    Node(Tunnel),
    /// At an address that the gateway dials.
    Cloud(HostPort),
}

/// A byte stream to a destination.
#[derive(Debug)]
pub enum Far {
    /// To a node.
    Node(Stream),
    /// Likewise, compressed on its way.
    Compressed(Box<Compressed<Stream>>),
    /// Likewise, for scrapes of metrics.
    Scrapes(Box<Scraped<Stream>>),
    /// To a service of the cloud side.
    Cloud(CloudStream),
}

impl Dialled for Far {
    async fn established(&mut self) -> Result<(), Refusal> {
        match self {
            Self::Node(stream) => stream.established().await,
            Self::Compressed(compressed) => compressed.stream().established().await,
            Self::Scrapes(scraped) => match scraped.stream() {
                Some(stream) => stream.established().await,
                // Whoever asks it for something finds out.
                None => Ok(()),
            },
            // It was connected before it became a stream.
            Self::Cloud(_) => Ok(()),
        }
    }
}

impl Carried for Far {
    fn reset(self, why: &Refusal) {
        match self {
            Self::Node(stream) => stream.reset(why),
            Self::Compressed(compressed) => compressed.into_stream().reset(why),
            Self::Scrapes(scraped) => scraped.reset(why),
            Self::Cloud(stream) => drop(stream),
        }
    }
}

impl AsyncRead for Far {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Node(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Compressed(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Scrapes(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Cloud(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Far {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Node(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Compressed(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Scrapes(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Cloud(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Node(stream) => Pin::new(stream).poll_flush(cx),
            Self::Compressed(stream) => Pin::new(stream).poll_flush(cx),
            Self::Scrapes(stream) => Pin::new(stream).poll_flush(cx),
            Self::Cloud(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Node(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Compressed(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Scrapes(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Cloud(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A flow of packets to a destination.
#[derive(Debug)]
pub(super) enum FarFlow {
    /// To a node. Apart, because it is so much larger than the other.
    Node(Box<Flow>),
    /// To a service of the cloud side.
    Cloud(CloudFlow),
}

impl FarFlow {
    /// Waits until the target is there, as far as that can be known without its answer. Cancelling loses nothing.
    pub(super) async fn established(&mut self) -> Result<(), Refusal> {
        match self {
            Self::Node(flow) => flow.established().await,
            Self::Cloud(_) => Ok(()),
        }
    }

    /// Sends a packet, or drops it where there is no room; says whether it is on its way.
    pub(super) fn send(&self, packet: &[u8]) -> bool {
        match self {
            Self::Node(flow) => flow.send(packet),
            Self::Cloud(flow) => flow.send(packet),
        }
    }

    /// Waits for packets and adds them. Cancelling loses nothing.
    pub(super) async fn recv_many(&mut self, packets: &mut Vec<Bytes>) -> Result<(), Refusal> {
        match self {
            Self::Node(flow) => flow.recv_many(packets).await,
            Self::Cloud(flow) => flow.recv_many(packets).await,
        }
    }

    /// Makes it void, and tells the far end why where it has a way to.
    pub(super) fn reset(self, why: &Refusal) {
        match self {
            Self::Node(flow) => flow.reset(why),
            Self::Cloud(flow) => drop(flow),
        }
    }
}
