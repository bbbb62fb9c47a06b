//! TLS on a TCP socket, as yamux writes to it and reads from it.
//!
//! Small writes are gathered: a frame's header and its data become one record, and many records one call to the kernel.
//! How many is decided here, because what is encrypted can no longer be overtaken: they become more for as long as the
//! socket takes everything, and are few once it is full.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
};

use futures_util::io::{AsyncRead, AsyncWrite};
use rustls::Connection as Tls;
use tokio::{net::TcpStream, time::Instant};
use tunnel_model::{Reason, Refusal};

use super::{
    error::{cut, io_refusal, tls_refusal},
    meter::{DATA, GO_AWAY, HEADER, Meter},
    shared::Traffic,
};

/// Encrypted data that may wait at first, and while the socket is full, in bytes. Each time that the socket takes all of as
/// much at once, twice as much may wait.
const MIN_BACKLOG: usize = 16 * 1024;
/// However often it does.
const MAX_BACKLOG: usize = 256 * 1024;
/// How much is read from the socket at once, in bytes: at first, and at most after reads that came back full. rustls by
/// itself would read 4 KiB.
const MIN_READ: usize = 16 * 1024;
const MAX_READ: usize = 256 * 1024;
/// How much is read before something else gets its turn, in bytes.
const READ_ROUND: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    tcp: Arc<TcpStream>,
    tls: Tls,
    traffic: Arc<Traffic>,
    /// A frame's header whose data comes next.
    head: Vec<u8>,
    /// What was encrypted and not taken by the socket, about.
    backlog: usize,
    /// What this may come to.
    limit: usize,
    /// Frames with data that yamux has handed over.
    data_frames: u64,
    /// What was read and not decrypted. Let go whenever it is empty, for there are many connections and most are idle.
    unread: Unread,
    /// What may still be read in this round.
    round: usize,
    pub(super) meter: Meter,
    pub(super) last_heard: Instant,
    /// Why the connection must end, known before yamux knows.
    pub(super) verdict: Option<Verdict>,
}

/// Why a connection must end.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It is broken; there is nobody to tell.
    Lost(Refusal),
    /// The peer broke the rules and is told.
    Violation(Refusal),
}

#[derive(Debug)]
struct Unread {
    bytes: Vec<u8>,
    start: usize,
    /// How much is read at once.
    size: usize,
}

impl Wire {
    pub(super) fn new(tcp: Arc<TcpStream>, mut tls: Tls, traffic: Arc<Traffic>, meter: Meter) -> Self {
        // What may wait is bounded here.
        tls.set_buffer_limit(None);
        Self {
            tcp,
            tls,
            traffic,
            head: Vec::new(),
            backlog: 0,
            limit: MIN_BACKLOG,
            data_frames: 0,
            unread: Unread {
                bytes: Vec::new(),
                start: 0,
                size: MIN_READ,
            },
            round: 0,
            meter,
            last_heard: Instant::now(),
            verdict: None,
        }
    }

    /// How much more may be written before the socket takes some of what waits, in bytes.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.backlog)
    }

    pub(super) fn data_frames(&self) -> u64 {
        self.data_frames
    }

    pub(super) fn begin_round(&mut self) {
        self.round = READ_ROUND;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // yamux writes headers and data apart, and always whole.
        if self.head.is_empty() && bytes.len() == HEADER {
            match bytes[1] {
                DATA => self.data_frames += 1,
                // yamux says so when the peer broke its rules, and goes on.
                GO_AWAY => {
                    let refusal = Refusal::new(Reason::Protocol, "the peer broke the rules of yamux");
                    self.verdict.get_or_insert(Verdict::Violation(refusal));
                    return Ok(());
                }
                _ => {}
            }
            let has_data = bytes[1] == DATA && bytes[8..HEADER] != [0; 4];
            self.head.extend_from_slice(bytes);
            return if has_data { Ok(()) } else { self.encrypt(&[]) };
        }
        self.encrypt(bytes)
    }

    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        let both = [IoSlice::new(&self.head), IoSlice::new(bytes)];
        let written = self.tls.writer().write_vectored(&both)?;
        self.backlog += written;
        debug_assert_eq!(written, self.head.len() + bytes.len());
        self.head.clear();
        Ok(())
    }

    /// Hands to the socket what waits, as far as it takes it; ready when nothing waits any more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let limited = self.backlog >= self.limit;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&self.tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => {
                    self.backlog = self.backlog.saturating_sub(sent);
                    self.traffic.sent.fetch_add(sent as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.limit = MIN_BACKLOG;
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if limited {
            self.limit = (self.limit * 2).min(MAX_BACKLOG);
        }
        self.backlog = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.verdict.is_some() {
            // What a violator says is not heard.
            return Poll::Pending;
        }
        loop {
            match self.tls.reader().read(into) {
                Ok(0) => return Poll::Ready(self.lost(cut())),
                Ok(read) => {
                    return match self.meter.watch(&into[..read]) {
                        Ok(()) => Poll::Ready(Ok(read)),
                        Err(violation) => {
                            let refusal = Refusal::new(Reason::Protocol, violation.to_string());
                            self.verdict = Some(Verdict::Violation(refusal));
                            Poll::Pending
                        }
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(self.lost(cut())),
            }
            if let Err(refusal) = ready!(self.poll_more(cx)) {
                return Poll::Ready(self.lost(refusal));
            }
        }
    }

    /// Notes why, before yamux wakes whoever reads.
    fn lost(&mut self, refusal: Refusal) -> io::Result<usize> {
        self.verdict.get_or_insert(Verdict::Lost(refusal));
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Decrypts some more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        if self.unread.is_empty() {
            if self.round == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let read = match ready!(self.unread.poll_fill(&self.tcp, cx)) {
                Ok(read) => read,
                Err(error) => return Poll::Ready(Err(io_refusal(&error))),
            };
            self.round = self.round.saturating_sub(read);
            self.traffic.received.fetch_add(read as u64, Ordering::Relaxed);
            self.last_heard = Instant::now();
        }
        // At the end of the socket there is nothing to read, which tells rustls.
        self.tls
            .read_tls(&mut self.unread)
            .map_err(|error| io_refusal(&error))?;
        let processed = self.tls.process_new_packets();
        if let Err(error) = processed {
            // There may be an alert that tells the peer.
            let _ = self.poll_flush(cx);
            return Poll::Ready(Err(tls_refusal(&error)));
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be written.
    pub(super) fn end(&mut self) {
        self.tls.send_close_notify();
    }

    pub(super) fn shut_down(&self) {
        // A connection that is broken already needs no end.
        let _ = socket2::SockRef::from(&*self.tcp).shutdown(std::net::Shutdown::Write);
    }

    /// Reads to the end of the connection and takes no notice. A socket that is closed with something unread is reset, and
    /// the reset may overtake what the peer has not read yet.
    pub(super) fn poll_ignore(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !matches!(ready!(self.unread.poll_fill(&self.tcp, cx)), Ok(read) if read > 0) {
                return Poll::Ready(());
            }
        }
    }
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn poll_fill(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.bytes.clear();
        self.start = 0;
        self.bytes.reserve(self.size);
        loop {
            match tcp.try_read_buf(&mut self.bytes) {
                Ok(read) => {
                    if read >= self.size {
                        self.size = (self.size * 2).min(MAX_READ);
                    } else if read < self.size / 4 {
                        self.size = (self.size / 2).max(MIN_READ);
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if tcp.poll_read_ready(cx)?.is_pending() {
                        self.bytes = Vec::new();
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl io::Read for Unread {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = (&self.bytes[self.start..]).read(into)?;
        self.start += read;
        Ok(read)
    }
}

struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The wire in the hands of yamux. Whoever runs yamux holds it too; both are one task, so nobody ever waits for the lock.
#[derive(Debug, Clone)]
pub(super) struct SharedWire(Arc<Mutex<Wire>>);

impl SharedWire {
    pub(super) fn new(wire: Wire) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for SharedWire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_read(cx, into)
    }
}

impl AsyncWrite for SharedWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.lock();
        // A frame is taken whole or not at all.
        if wire.head.is_empty() && wire.room() == 0 {
            let flushed = wire.poll_flush(cx);
            if let Poll::Ready(Err(error)) = flushed {
                return Poll::Ready(wire.lost(io_refusal(&error)));
            }
            if wire.room() == 0 {
                return Poll::Pending;
            }
        }
        wire.write(bytes)?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Whoever runs yamux flushes, once for many frames.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
