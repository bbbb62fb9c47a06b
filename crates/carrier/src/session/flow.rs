//! A stream whose two ends exchange packets: datagrams of the connection, and on the stream what does not fit one.

mod routes;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{PacketReader, StreamId, encode_datagram, encode_packet};

use self::routes::Route;
pub(super) use self::routes::{Routes, read_datagrams};
use super::{
    shared::Shared,
    stream::{Stream, io_refusal},
};
use crate::link::NoDatagram;

/// Packets that wait for their reader, beyond which those that arrive are dropped.
pub(super) const MAX_WAITING: usize = 256;
/// Packets that wait for room on the stream, beyond which more are dropped.
const MAX_LARGE: usize = 64;
/// Packets that may go out before the peer has taken the flow.
const MAX_EARLY: u8 = 16;
/// How much of the stream is read at once, in bytes.
const STREAM_READ: usize = 16 * 1024;

/// A stream that was opened for packets. They may be lost, doubled or overtake each other, as with UDP, but never cut or
/// merged.
///
/// Dropping it makes it void at the peer too.
#[derive(Debug)]
pub struct Flow {
    stream: Stream,
    sender: FlowSender,
    /// What comes as datagrams.
    route: Route,
    /// What is to go out on the stream.
    large: mpsc::Receiver<Bytes>,
    writing: Bytes,
    reader: PacketReader,
}

/// Sends packets on a flow. Clones send on the same one.
#[derive(Debug, Clone)]
pub struct FlowSender {
    id: StreamId,
    shared: Arc<Shared>,
    large: mpsc::Sender<Bytes>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The peer has taken the flow, so that it knows where datagrams belong.
    stands: AtomicBool,
    early: AtomicU8,
}

impl Flow {
    pub(super) fn new(stream: Stream, stands: bool) -> Self {
        let (id, shared) = (stream.id(), stream.shared());
        let route = Route::new(Arc::clone(&shared), id);
        let (sender, large) = mpsc::channel(MAX_LARGE);
        let state = State {
            stands: AtomicBool::new(stands),
            early: AtomicU8::new(0),
        };
        Self {
            stream,
            sender: FlowSender {
                id,
                shared,
                large: sender,
                state: Arc::new(state),
            },
            route,
            large,
            writing: Bytes::new(),
            reader: PacketReader::default(),
        }
    }

    /// Waits until the peer has taken the flow, or says why it did not. [`Self::recv_many`] waits for this by itself. May
    /// be cancelled and called again.
    pub async fn established(&mut self) -> Result<(), Refusal> {
        std::future::poll_fn(|cx| self.poll_large(cx)).await?;
        self.stream.established().await?;
        self.sender.state.stands.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The means to send.
    pub fn sender(&self) -> &FlowSender {
        &self.sender
    }

    /// Sends a packet, as [`FlowSender::send`] does.
    pub fn send(&self, packet: &[u8]) -> bool {
        self.sender.send(packet)
    }

    /// Waits for packets and adds them to `packets`, at most [`Self::BATCH`] of each kind at once. Also moves what goes out on the
    /// stream, so it must be called all the time. Cancelling loses nothing.
    ///
    /// # Errors
    /// The flow is over.
    pub async fn recv_many(&mut self, packets: &mut Vec<Bytes>) -> Result<(), Refusal> {
        std::future::poll_fn(|cx| self.poll_recv(cx, packets)).await
    }

    /// How many packets of each kind [`Self::recv_many`] gives at once, at most: datagrams, and those of the stream.
    pub const BATCH: usize = 64;

    fn poll_recv(&mut self, cx: &mut Context<'_>, packets: &mut Vec<Bytes>) -> Poll<Result<(), Refusal>> {
        if let Poll::Ready(Err(refusal)) = self.poll_large(cx) {
            return Poll::Ready(Err(refusal));
        }
        // The stream first, or a flood of datagrams would hide what it says.
        let over = self.poll_stream(cx, packets);
        let arrived = self.route.poll_recv_many(cx, packets, Self::BATCH);
        if arrived.is_ready() { Poll::Ready(Ok(())) } else { over }
    }

    /// Writes to the stream what waits for it; ready when nothing does.
    fn poll_large(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        loop {
            while !self.writing.is_empty() {
                let written = ready!(self.stream.poll_write_data(cx, &self.writing))?;
                self.writing.advance(written);
            }
            match self.large.poll_recv(cx) {
                Poll::Ready(Some(packet)) => self.writing = packet,
                Poll::Ready(None) | Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads packets from the stream.
    fn poll_stream(&mut self, cx: &mut Context<'_>, packets: &mut Vec<Bytes>) -> Poll<Result<(), Refusal>> {
        let before = packets.len();
        loop {
            while packets.len() - before < Self::BATCH
                && let Some(packet) = self.reader.next_packet()
            {
                packets.push(packet);
            }
            if packets.len() > before {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; STREAM_READ];
            let mut buf = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
            if self.stream.is_answered() {
                self.sender.state.stands.store(true, Ordering::Relaxed);
            }
            ready!(read).map_err(|error| io_refusal(&error))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Err(Refusal::new(Reason::Cancelled, "the other end has ended the flow")));
            }
            self.reader.push(buf.filled());
        }
    }

    /// Makes the flow void and tells the peer why.
    pub fn reset(self, refusal: &Refusal) {
        self.stream.reset(refusal);
    }
}

impl FlowSender {
    /// Sends a packet, or drops it where there is no room: never waits. Says whether it is on its way, which is not to say
    /// that it arrives.
    ///
    /// Until the peer has taken the flow, packets go out right behind its header, so that the first of them wait for no
    /// round trip; after 16 of them, more are dropped.
    pub fn send(&self, packet: &[u8]) -> bool {
        let sent = if self.state.stands.load(Ordering::Relaxed) {
            let connection = self.shared.connection.load();
            match connection
                .as_ref()
                .map(|c| c.send_datagram(encode_datagram(self.id, packet)))
            {
                Some(Ok(())) => true,
                Some(Err(NoDatagram::TooLarge)) => self.send_large(packet),
                // Packets wait neither for a carrier nor, on one without datagrams, behind each other.
                Some(Err(NoDatagram::None)) | None => false,
            }
        } else {
            self.state
                .early
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |early| {
                    (early < MAX_EARLY).then_some(early + 1)
                })
                .is_ok()
                && self.send_large(packet)
        };
        if !sent {
            self.shared.routes.dropped();
        }
        sent
    }

    fn send_large(&self, packet: &[u8]) -> bool {
        let Ok(room) = self.large.try_reserve() else {
            return false;
        };
        let mut framed = BytesMut::new();
        let fits = encode_packet(packet, &mut framed);
        if fits {
            room.send(framed.freeze());
        }
        fits
    }
}
