//! What the task that owns a connection and those who hold handles to it share.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls_pki_types::CertificateDer;
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, mpsc, oneshot},
};
use tunnel_identity::ChannelBinding;
use tunnel_model::{Reason, Refusal};

use super::{lane::Lane, ready::Ready};

/// Bytes of TCP payload.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// Who asks for a stream.
pub(super) type Opening = oneshot::Sender<Unclaimed>;

/// A stream that was opened for somebody who may have gone meanwhile; then it is given up.
#[derive(Debug)]
pub(super) struct Unclaimed(Option<Arc<Lane>>);

impl Unclaimed {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self(Some(lane))
    }

    pub(super) fn claim(mut self) -> Option<Arc<Lane>> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(lane) = &self.0 {
            lane.reset(Reason::Cancelled);
            lane.stop(Reason::Cancelled);
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ready: Arc<Ready>,
    /// Why the connection ended, by whoever knew first.
    reason: OnceLock<Refusal>,
    ended: Notify,
    /// Streams that the peer opened and nobody has accepted; no more than the peer may have open.
    accepts: Mutex<VecDeque<Arc<Lane>>>,
    accepted: Notify,
    /// Streams that may be opened.
    pub(super) permits: Semaphore,
    pub(super) openings: mpsc::Sender<Opening>,
    pub(super) traffic: Arc<Traffic>,
    /// For the kernel's figures; closed when the connection has ended, whoever holds handles.
    pub(super) tcp: Weak<TcpStream>,
    pub(super) remote: SocketAddr,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) binding: ChannelBinding,
}

/// What a handshake leaves behind.
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) binding: ChannelBinding,
}

impl Shared {
    pub(super) fn new(tcp: &Arc<TcpStream>, peer: Peer, permits: usize, openings: mpsc::Sender<Opening>) -> Self {
        Self {
            ready: Arc::default(),
            reason: OnceLock::new(),
            ended: Notify::new(),
            accepts: Mutex::default(),
            accepted: Notify::new(),
            permits: Semaphore::new(permits),
            openings,
            traffic: Arc::default(),
            tcp: Arc::downgrade(tcp),
            remote: peer.remote,
            chain: peer.chain,
            binding: peer.binding,
        }
    }

    pub(super) fn reason(&self) -> Option<&Refusal> {
        self.reason.get()
    }

    /// Ends the connection, unless it has ended already. The task that owns it does the rest.
    pub(super) fn end(&self, refusal: Refusal) {
        if self.reason.set(refusal).is_ok() {
            self.permits.close();
            self.ended.notify_waiters();
            self.accepted.notify_waiters();
            self.ready.task.wake();
        }
    }

    pub(super) async fn ended(&self) -> Refusal {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(reason) = self.reason() {
                return reason.clone();
            }
            ended.await;
        }
    }

    pub(super) fn offer(&self, lane: Arc<Lane>) {
        self.accepts().push_back(lane);
        self.accepted.notify_one();
    }

    pub(super) async fn accept(&self) -> Result<Arc<Lane>, Refusal> {
        loop {
            let mut accepted = std::pin::pin!(self.accepted.notified());
            accepted.as_mut().enable();
            if let Some(reason) = self.reason() {
                return Err(reason.clone());
            }
            let (next, more) = {
                let mut accepts = self.accepts();
                (accepts.pop_front(), !accepts.is_empty())
            };
            if let Some(lane) = next {
                if more {
                    // Another may wait, and heard of one stream only.
                    self.accepted.notify_one();
                }
                return Ok(lane);
            }
            accepted.await;
        }
    }

    /// Lets go of streams that nobody accepted.
    pub(super) fn forget_offers(&self) {
        self.accepts().clear();
    }

    fn accepts(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Lane>>> {
        self.accepts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.traffic.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.traffic.received.load(Ordering::Relaxed)
    }
}
