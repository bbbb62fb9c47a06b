//! What carries a session, whatever its kind: one connection, its streams, and what their errors mean.

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::io::ReadBuf;
use tunnel_identity::ChannelBinding;
use tunnel_model::{Reason, Refusal};
use tunnel_proto::Packets;

use crate::{
    quic::{self, LinkRate, code, reason},
    tls,
};

/// An authenticated connection. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub enum Connection {
    /// QUIC, over UDP.
    Quic(quinn::Connection),
    /// TLS, over TCP.
    Tls(tls::Connection),
}

/// What a session goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierKind {
    /// QUIC, over UDP.
    Quic,
    /// TLS, over TCP: the second best way.
    Tls,
}

impl fmt::Display for CarrierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        })
    }
}

/// The sending direction of a connection's stream. Dropping it proves nothing to the peer.
#[derive(Debug)]
pub(crate) enum SendStream {
    Quic(quinn::SendStream),
    Tls(tls::SendStream),
}

/// The receiving direction.
#[derive(Debug)]
pub(crate) enum RecvStream {
    Quic(quinn::RecvStream),
    Tls(tls::RecvStream),
}

/// A stream of the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The peer broke it.
    Broken(Refusal),
    /// It went with the connection.
    Lost,
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoDatagram {
    /// It is larger than the path takes.
    TooLarge,
    /// This connection takes none.
    None,
}

/// Figures of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stats {
    pub(crate) rtt: Duration,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Rises with what was sent that the peer has to answer, if only by acknowledging it. Over TCP the kernel hears of
    /// acknowledgements and does not say so: there it is all that was sent.
    pub(crate) asked: u64,
    pub(crate) lost_packets: u64,
    pub(crate) mtu: u16,
}

impl From<quinn::Connection> for Connection {
    fn from(connection: quinn::Connection) -> Self {
        Self::Quic(connection)
    }
}

impl From<tls::Connection> for Connection {
    fn from(connection: tls::Connection) -> Self {
        Self::Tls(connection)
    }
}

impl Connection {
    /// Opens a stream, waiting until the peer allows one more.
    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), Refusal> {
        match self {
            Self::Quic(connection) => match connection.open_bi().await {
                Ok((send, recv)) => Ok((SendStream::Quic(send), RecvStream::Quic(recv))),
                Err(error) => Err(quic::refusal_of(&error)),
            },
            Self::Tls(connection) => {
                let (send, recv) = connection.open_bi().await?;
                Ok((SendStream::Tls(send), RecvStream::Tls(recv)))
            }
        }
    }

    /// The next stream that the peer opens.
    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Refusal> {
        match self {
            Self::Quic(connection) => match connection.accept_bi().await {
                Ok((send, recv)) => Ok((SendStream::Quic(send), RecvStream::Quic(recv))),
                Err(error) => Err(quic::refusal_of(&error)),
            },
            Self::Tls(connection) => {
                let (send, recv) = connection.accept_bi().await?;
                Ok((SendStream::Tls(send), RecvStream::Tls(recv)))
            }
        }
    }

    /// Closes it and tells the peer why. Does nothing to one that is closed.
    pub fn close(&self, refusal: &Refusal) {
        match self {
            Self::Quic(connection) => quic::close(connection, refusal),
            Self::Tls(connection) => connection.close(refusal),
        }
    }

    /// Why it ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<Refusal> {
        match self {
            Self::Quic(connection) => connection.close_reason().map(|error| quic::refusal_of(&error)),
            Self::Tls(connection) => connection.close_reason(),
        }
    }

    /// The certificate chain that the peer showed, leaf first; empty if it showed none.
    pub fn peer_chain(&self) -> Vec<CertificateDer<'static>> {
        match self {
            Self::Quic(connection) => quic::peer_chain(connection),
            Self::Tls(connection) => connection.peer_chain().to_vec(),
        }
    }

    /// What binds an enrolment to this connection.
    pub fn channel_binding(&self) -> Result<ChannelBinding, Refusal> {
        match self {
            Self::Quic(connection) => quic::channel_binding(connection),
            Self::Tls(connection) => Ok(connection.channel_binding()),
        }
    }

    /// Of which kind it is.
    pub fn kind(&self) -> CarrierKind {
        match self {
            Self::Quic(_) => CarrierKind::Quic,
            Self::Tls(_) => CarrierKind::Tls,
        }
    }

    /// Where the peer is now, as seen from here.
    pub fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tls(connection) => connection.remote_address(),
        }
    }

    /// Has its window follow a rate that is given; nothing over TCP, which has a window of its own.
    pub(crate) fn link_rate(&self) -> Option<LinkRate> {
        match self {
            Self::Quic(connection) => LinkRate::of(connection),
            Self::Tls(_) => None,
        }
    }

    /// How much it is to hold of what was written to it, in bytes. One over TCP sees to that itself.
    pub(crate) fn set_send_buffer(&self, bytes: u64) {
        match self {
            Self::Quic(connection) => connection.set_send_window(bytes),
            Self::Tls(_) => {}
        }
    }

    /// Packets of the path, as the link carries them.
    pub(crate) fn packets(&self) -> Packets {
        match self {
            Self::Quic(connection) => Packets::of_quic(connection.stats().path.current_mtu),
            Self::Tls(_) => Packets::OF_TLS,
        }
    }

    /// What it has put on the link so far, in bytes of whole packets.
    pub(crate) fn sent_on_link(&self) -> u64 {
        match self {
            Self::Quic(connection) => {
                let sent = connection.stats().udp_tx;
                sent.bytes + sent.datagrams * u64::from(Packets::UDP)
            }
            Self::Tls(connection) => Packets::OF_TLS.on_link(connection.stats().sent_bytes),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                Stats {
                    rtt: connection.rtt(),
                    sent_bytes: stats.udp_tx.bytes,
                    received_bytes: stats.udp_rx.bytes,
                    asked: quic::asked(&stats),
                    lost_packets: stats.path.lost_packets,
                    mtu: stats.path.current_mtu,
                }
            }
            Self::Tls(connection) => {
                let stats = connection.stats();
                Stats {
                    rtt: connection.rtt().unwrap_or_default(),
                    sent_bytes: stats.sent_bytes,
                    received_bytes: stats.received_bytes,
                    asked: stats.sent_bytes,
                    lost_packets: stats.retransmitted.unwrap_or_default(),
                    mtu: 0,
                }
            }
        }
    }

    pub(crate) fn send_datagram(&self, datagram: Bytes) -> Result<(), NoDatagram> {
        match self {
            Self::Quic(connection) => connection.send_datagram(datagram).map_err(|error| match error {
                quinn::SendDatagramError::TooLarge => NoDatagram::TooLarge,
                quinn::SendDatagramError::UnsupportedByPeer
                | quinn::SendDatagramError::Disabled
                | quinn::SendDatagramError::ConnectionLost(_) => NoDatagram::None,
            }),
            // A packet that waits behind a stream's is late, and one that is lost delays all others.
            Self::Tls(_) => Err(NoDatagram::None),
        }
    }

    /// The next datagram; nothing once the connection is lost.
    pub(crate) async fn read_datagram(&self) -> Option<Bytes> {
        match self {
            Self::Quic(connection) => connection.read_datagram().await.ok(),
            Self::Tls(_) => None,
        }
    }
}

impl SendStream {
    /// Has it go before those of lower priority. To be set before anything is written.
    pub(crate) fn set_priority(&self, priority: i32) {
        match self {
            // It is new, so its priority can be set.
            Self::Quic(stream) => drop(stream.set_priority(priority)),
            Self::Tls(stream) => stream.set_priority(priority),
        }
    }

    /// Writes as much as there is room for, at least a byte, and takes it off the front of `chunks`; says how many bytes.
    pub(crate) fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<usize, StreamError>> {
        match self {
            // The future holds nothing but its arguments: it can be made anew for each poll.
            Self::Quic(stream) => pin!(stream.write_chunks(chunks))
                .poll(cx)
                .map(|written| written.map(|written| written.bytes).map_err(write_failed)),
            Self::Tls(stream) => pin!(stream.write_chunks(chunks))
                .poll(cx)
                .map(|written| written.map(|written| written.bytes).map_err(tls_write_failed)),
        }
    }

    /// Writes all of them.
    pub(crate) async fn write_all_chunks(&mut self, mut chunks: &mut [Bytes]) -> Result<(), StreamError> {
        while let Some(first) = chunks.iter().position(|chunk| !chunk.is_empty()) {
            chunks = &mut chunks[first..];
            std::future::poll_fn(|cx| self.poll_write_chunks(cx, chunks)).await?;
        }
        Ok(())
    }

    /// Says that nothing more comes on it.
    pub(crate) fn finish(&mut self) {
        match self {
            // One that was reset, or is finished already, cannot be.
            Self::Quic(stream) => drop(stream.finish()),
            Self::Tls(stream) => drop(stream.finish()),
        }
    }

    /// Waits until the peer has all of it, or wants no more.
    pub(crate) async fn stopped(&mut self) {
        match self {
            Self::Quic(stream) => drop(stream.stopped().await),
            Self::Tls(stream) => drop(stream.stopped().await),
        }
    }

    /// Breaks it.
    pub(crate) fn reset(&mut self, why: Reason) {
        match self {
            Self::Quic(stream) => drop(stream.reset(code(why))),
            Self::Tls(stream) => stream.reset(why),
        }
    }
}

impl RecvStream {
    /// Reads into `buf`; nothing read is the end.
    pub(crate) fn poll_read_buf(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), StreamError>> {
        match self {
            Self::Quic(stream) => stream.poll_read_buf(cx, buf).map_err(read_failed),
            Self::Tls(stream) => stream.poll_read_buf(cx, buf).map_err(tls_read_failed),
        }
    }

    /// Fills the first of `chunks`, and says how many; `None` is the end.
    pub(crate) fn poll_read_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>> {
        match self {
            Self::Quic(stream) => pin!(stream.read_chunks(chunks)).poll(cx).map_err(read_failed),
            Self::Tls(stream) => stream.poll_read_chunks(cx, chunks).map_err(tls_read_failed),
        }
    }

    /// The next piece of at most so many bytes; `None` is the end.
    pub(crate) async fn read_chunk(&mut self, most: usize) -> Result<Option<Bytes>, StreamError> {
        match self {
            Self::Quic(stream) => match stream.read_chunk(most, true).await {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(error) => Err(read_failed(error)),
            },
            Self::Tls(stream) => stream.read_chunk(most).await.map_err(tls_read_failed),
        }
    }

    /// Wants no more of it.
    pub(crate) fn stop(&mut self, why: Reason) {
        match self {
            Self::Quic(stream) => drop(stream.stop(code(why))),
            Self::Tls(stream) => stream.stop(why),
        }
    }
}

fn read_failed(error: quinn::ReadError) -> StreamError {
    match error {
        quinn::ReadError::Reset(code) => by_peer(code),
        quinn::ReadError::ConnectionLost(_)
        | quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => StreamError::Lost,
    }
}

fn write_failed(error: quinn::WriteError) -> StreamError {
    match error {
        quinn::WriteError::Stopped(code) => by_peer(code),
        quinn::WriteError::ConnectionLost(_) | quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
            StreamError::Lost
        }
    }
}

fn tls_read_failed(error: tls::ReadError) -> StreamError {
    match error {
        tls::ReadError::Reset(why) => broken_for(why),
        tls::ReadError::ConnectionLost(_) | tls::ReadError::ClosedStream => StreamError::Lost,
    }
}

fn tls_write_failed(error: tls::WriteError) -> StreamError {
    match error {
        tls::WriteError::Stopped(why) => broken_for(why),
        tls::WriteError::ConnectionLost(_) | tls::WriteError::ClosedStream => StreamError::Lost,
    }
}

fn by_peer(code: quinn::VarInt) -> StreamError {
    broken_for(reason(code))
}

fn broken_for(why: Reason) -> StreamError {
    StreamError::Broken(Refusal::new(why, "the other end broke the stream"))
}
