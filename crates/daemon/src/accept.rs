//! Accept loops that survive exhaustion: of descriptors, of memory, of their own bound.
//!
//! An [`Acceptor`] takes a connection only when there is room for it, so that the kernel's backlog holds the rest. When
//! the process or the system runs out of descriptors it pauses, longer each time and never beyond [`LONGEST_PAUSE`],
//! and goes on when accepting works again: the listener stays readable all the while, and a loop that simply tried
//! again would burn a core for as long as the shortage lasts.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// The first pause of a shortage; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause, and so the longest that a listener stays closed after a shortage has ended.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Something that connections come from.
pub trait Listener: Send {
    /// A connection.
    type Io: Send + 'static;
    /// Whom it comes from.
    type Peer: Debug + Send;

    /// Takes the next connection from the backlog.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Self::Peer)>>;
}

impl Listener for TcpListener {
    type Io = TcpStream;
    type Peer = SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        Self::poll_accept(self, cx)
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;
    type Peer = tokio::net::unix::SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Self::Peer)>> {
        Self::poll_accept(self, cx)
    }
}

/// A bounded accept loop's one step: call [`accept`](Self::accept) again and again.
#[derive(Debug)]
pub struct Acceptor<L> {
    listener: L,
    room: Arc<Semaphore>,
    shortage: Option<Shortage>,
    measures: ListenerMetrics,
}

/// A connection, and the room it takes.
#[derive(Debug)]
pub struct Accepted<L: Listener> {
    /// The connection.
    pub io: L::Io,
    /// Whom it comes from.
    pub peer: L::Peer,
    /// Keep this for as long as the connection is served.
    pub permit: Permit,
}

/// The room that one connection takes; dropping it makes room for another.
#[derive(Debug)]
pub struct Permit {
    _room: OwnedSemaphorePermit,
    open: Gauge,
}

/// A run of pauses without a connection between them.
#[derive(Clone, Copy, Debug)]
struct Shortage {
    until: Instant,
    next_pause: Duration,
}

impl<L: Listener> Acceptor<L> {
    /// Takes connections from `listener`, at most `limit` at a time. The name appears in metrics and logs.
    pub fn new(listener: L, limit: usize, metrics: &AcceptMetrics, name: &'static str) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(limit)),
            shortage: None,
            measures: metrics.of(name),
        }
    }

    /// Waits for room, then for a connection. Cancel safe.
    ///
    /// # Errors
    /// Only where the listener itself is broken and will never accept again; a shortage, or a connection that was gone
    /// before it could be taken, is dealt with here.
    pub async fn accept(&mut self) -> io::Result<Accepted<L>> {
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return Err(io::Error::other("the acceptor's semaphore was closed"));
        };
        loop {
            if let Some(shortage) = self.shortage {
                tokio::time::sleep_until(shortage.until).await;
            }
            let error = match poll_fn(|cx| self.listener.poll_accept(cx)).await {
                Ok((io, peer)) => {
                    self.recovered();
                    self.measures.accepted.inc();
                    self.measures.open.inc();
                    return Ok(Accepted {
                        io,
                        peer,
                        permit: Permit {
                            _room: room,
                            open: self.measures.open.clone(),
                        },
                    });
                }
                Err(error) => error,
            };
            match Blame::of(&error) {
                Blame::Connection => {}
                Blame::Listener => return Err(error),
                Blame::Shortage => self.pause(&error),
            }
        }
    }

    /// The listener, for its local address and the like.
    pub fn get_ref(&self) -> &L {
        &self.listener
    }

    fn pause(&mut self, error: &io::Error) {
        let name = self.measures.name;
        let pause = match self.shortage {
            Some(shortage) => shortage.next_pause,
            None => {
                tracing::warn!(listener = name, %error, "accepting paused");
                FIRST_PAUSE
            }
        };
        self.measures.pauses.inc();
        self.shortage = Some(Shortage {
            until: Instant::now() + pause,
            next_pause: (pause * 2).min(LONGEST_PAUSE),
        });
    }

    fn recovered(&mut self) {
        if self.shortage.take().is_some() {
            tracing::info!(listener = self.measures.name, "accepting resumed");
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Whose fault a failed accept is, which decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The connection was gone, or refused by a firewall: take the next one.
    Connection,
    /// The descriptor is no listening socket: give up.
    Listener,
    /// Nothing wrong with either, and trying at once would fail again.
    Shortage,
}

impl Blame {
    /// Linux hands errors that are pending on the new connection to accept, see accept(2).
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(
                Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::TIMEDOUT,
            ) => Self::Connection,
            Some(Errno::BADF | Errno::FAULT | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP) => Self::Listener,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM; and whatever else may come must not spin either.
            _ => Self::Shortage,
        }
    }
}

/// The metrics of all accept loops of a process, by listener.
#[derive(Clone, Debug)]
pub struct AcceptMetrics {
    accepted: Family<ListenerLabel, Counter>,
    pauses: Family<ListenerLabel, Counter>,
    open: Family<ListenerLabel, Gauge>,
}

/// The share of [`AcceptMetrics`] that belongs to one listener.
#[derive(Clone, Debug)]
struct ListenerMetrics {
    name: &'static str,
    accepted: Counter,
    pauses: Counter,
    open: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

impl AcceptMetrics {
    /// Registers `accepted_connections`, `accept_pauses` and `open_connections`; once per process.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            accepted: metrics.register("accepted_connections", "Connections taken", Family::default()),
            pauses: metrics.register(
                "accept_pauses",
                "Pauses of an accept loop for want of descriptors or memory",
                Family::default(),
            ),
            open: metrics.register("open_connections", "Connections being served", Family::default()),
        }
    }

    /// How often the listener of that name has paused.
    pub fn pauses(&self, name: &'static str) -> u64 {
        self.pauses.get_or_create(&ListenerLabel { listener: name }).get()
    }

    fn of(&self, name: &'static str) -> ListenerMetrics {
        let label = ListenerLabel { listener: name };
        ListenerMetrics {
            name,
            accepted: self.accepted.get_or_create_owned(&label),
            pauses: self.pauses.get_or_create_owned(&label),
            open: self.open.get_or_create_owned(&label),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_blamed_on_the_connection_the_listener_or_a_shortage() {
        for (errno, blame) in [
            (Errno::CONNABORTED, Blame::Connection),
            (Errno::HOSTUNREACH, Blame::Connection),
            (Errno::MFILE, Blame::Shortage),
            (Errno::NFILE, Blame::Shortage),
            (Errno::NOMEM, Blame::Shortage),
            (Errno::NOBUFS, Blame::Shortage),
            (Errno::INVAL, Blame::Listener),
        ] {
            assert_eq!(Blame::of(&errno.into()), blame, "{errno}");
        }
        assert_eq!(Blame::of(&io::Error::other("unheard of")), Blame::Shortage);
    }

    #[tokio::test]
    async fn a_full_acceptor_takes_the_next_connection_when_one_ends() {
        let metrics = AcceptMetrics::new(&Metrics::new("test"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut acceptor = Acceptor::new(listener, 1, &metrics, "test");
        let _clients = (
            TcpStream::connect(addr).await.unwrap(),
            TcpStream::connect(addr).await.unwrap(),
        );

        let open = acceptor.measures.open.clone();

        let first = acceptor.accept().await.unwrap();
        assert_eq!(open.get(), 1);
        {
            let mut second = std::pin::pin!(acceptor.accept());
            // The second connection waits in the backlog already: had there been room, this would be ready.
            assert!(poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx))).await.is_pending());
            drop(first);
            assert_eq!(open.get(), 0);
            second.await.unwrap();
        }
        assert_eq!(acceptor.measures.accepted.get(), 2);
    }
}
