//! A handle to a connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio::sync::oneshot;
use tunnel_identity::ChannelBinding;
use tunnel_model::{Reason, Refusal};

use super::{
    shared::{Shared, Unclaimed},
    stream::{RecvStream, SendStream, directions},
    sys,
};

/// A connection. Clones are handles to the same one; with the last of them, and the last stream, it ends.
#[derive(Debug, Clone)]
pub struct Connection {
    guard: Arc<Guard>,
}

/// Ends the connection when nobody holds it any more.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared
            .end(Refusal::new(Reason::Cancelled, "nobody uses the connection any more"));
    }
}

/// Figures of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of TCP payload sent.
    pub sent_bytes: u64,
    /// Bytes of TCP payload received.
    pub received_bytes: u64,
    /// Segments that were sent again; only while the connection stands.
    pub retransmitted: Option<u64>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            guard: Arc::new(Guard { shared }),
        }
    }

    /// Opens a stream, waiting until the peer has room for another. The peer hears of it with the first that is written.
    ///
    /// # Errors
    /// The connection has ended, for this reason.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Refusal> {
        let shared = &self.guard.shared;
        let permit = shared.permits.acquire().await.map_err(|_| self.why())?;
        let (sender, opened) = oneshot::channel();
        shared.openings.send(sender).await.map_err(|_| self.why())?;
        // From here on the task that owns the connection gives it back.
        permit.forget();
        shared.ready.task.wake();
        let opened = opened.await.ok().and_then(Unclaimed::claim);
        let lane = opened.ok_or_else(|| self.why())?;
        Ok(directions(lane, &self.guard))
    }

    /// Waits for the next stream that the peer opens. May be cancelled without losing one.
    ///
    /// # Errors
    /// The connection has ended, for this reason.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Refusal> {
        let lane = self.guard.shared.accept().await?;
        Ok(directions(lane, &self.guard))
    }

    /// Ends the connection and tells the peer why. All streams break.
    pub fn close(&self, refusal: &Refusal) {
        self.guard.shared.end(refusal.clone());
    }

    /// Why the connection ended, in the words of whoever ended it; `None` while it stands.
    pub fn close_reason(&self) -> Option<Refusal> {
        self.guard.shared.reason().cloned()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Refusal {
        self.guard.shared.ended().await
    }

    fn why(&self) -> Refusal {
        self.close_reason()
            .unwrap_or_else(|| Refusal::new(Reason::CarrierLost, "the connection has ended"))
    }

    /// The other end of the TCP connection: a proxy's, if one stands between.
    pub fn remote_address(&self) -> SocketAddr {
        self.guard.shared.remote
    }

    /// TCP's estimate of the round trip, which is to the proxy if one stands between; `None` once the connection has ended.
    pub fn rtt(&self) -> Option<Duration> {
        let tcp = self.guard.shared.tcp.upgrade()?;
        sys::tcp_figures(&tcp).map(|figures| figures.rtt)
    }

    /// How much went over it.
    pub fn stats(&self) -> Stats {
        let shared = &self.guard.shared;
        let figures = shared.tcp.upgrade().and_then(|tcp| sys::tcp_figures(&tcp));
        Stats {
            sent_bytes: shared.sent_bytes(),
            received_bytes: shared.received_bytes(),
            retransmitted: figures.map(|figures| figures.retransmitted),
        }
    }

    /// The certificate chain that the peer showed, leaf first; empty if it showed none.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.guard.shared.chain
    }

    /// What binds an enrolment to this connection.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.guard.shared.binding.clone()
    }

    /// Whether both are handles to one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.guard, &other.guard)
    }
}
