//! A session over one connection: the protocol's machine, and the tasks around it.

mod driver;
mod flow;
mod shared;
pub(crate) mod stream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tunnel_model::{Offer, Reason, Refusal};
use tunnel_proto::{Config, Hello, Negotiated, OfferError, Open, OpenError, Session, Side};

use self::shared::Shared;
pub use self::{
    driver::{Driver, Notice},
    flow::{Flow, FlowSender},
    stream::Stream,
};
use crate::quic;

/// An established session. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

/// What [`Tunnel::establish`] gives.
#[derive(Debug)]
pub struct Established {
    /// The handle.
    pub tunnel: Tunnel,
    /// What the peers agreed on.
    pub negotiated: Negotiated,
    /// What makes it go: to be run until it returns.
    pub driver: Driver,
    /// Streams that the peer opens.
    pub incoming: mpsc::Receiver<Incoming>,
    /// What else the peer says.
    pub notices: mpsc::Receiver<Notice>,
}

/// There is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Rejected {
    /// Why.
    pub refusal: Refusal,
    /// When the peer would like us to try again at the earliest.
    pub retry_after: Option<Duration>,
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry_after: None,
        }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        rejected.refusal
    }
}

/// Figures of a session's connection.
#[derive(Debug, Clone)]
pub struct TunnelStatus {
    /// Where the peer is now, as seen from here.
    pub remote: SocketAddr,
    /// The connection's estimate of the round trip.
    pub rtt: Duration,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
    /// Packets that were lost on the way to the peer.
    pub lost_packets: u64,
    /// The largest UDP payload that the path carries, in bytes.
    pub mtu: u16,
    /// Packets of flows that were dropped at this end: of no flow that is open, or without room.
    pub dropped_packets: u64,
    /// Streams that are open.
    pub streams: usize,
}

impl Tunnel {
    /// Greets the peer over an authenticated connection and waits for its hello.
    pub async fn establish(
        connection: quinn::Connection,
        side: Side,
        config: Config,
        hello: Hello,
    ) -> Result<Established, Rejected> {
        let patience = config.patience;
        let session = Session::new(side, config, hello, Instant::now().into_std());
        let shared = Arc::new(Shared::new(connection.clone(), session));
        let (driver, incoming, notices) = match timeout(patience, Driver::start(Arc::clone(&shared), side)).await {
            Ok(started) => started?,
            Err(_) => {
                let refusal = Refusal::new(Reason::IdleTimeout, "the peer opened no control stream in time");
                quic::close(&connection, &refusal);
                return Err(refusal.into());
            }
        };
        let (driver, negotiated) = driver.greet().await?;
        Ok(Established {
            tunnel: Self { shared },
            negotiated,
            driver,
            incoming,
            notices,
        })
    }

    /// Opens a stream to a target at the peer. It takes data at once; the wish goes out together with the first of it, or
    /// as soon as somebody reads or waits for the answer. Whether the peer accepts, [`Stream::established`] tells, and so does the first read; after `patience` without
    /// an answer the stream is given up. Dropping the future gives it up too.
    pub async fn open(&self, open: &Open, patience: Duration) -> Result<Stream, Refusal> {
        match timeout(patience, self.start(open)).await {
            Ok(started) => started.map(|mut stream| {
                stream.await_answer(patience);
                stream
            }),
            Err(_) => {
                let message = format!("no room for another stream within {} s", patience.as_secs());
                Err(Refusal::new(Reason::Overloaded, message))
            }
        }
    }

    async fn start(&self, open: &Open) -> Result<Stream, Refusal> {
        // First, because it may have to wait: a stream that is on the session's books has a carrier stream.
        let opened = self.shared.connection.open_bi().await;
        let (send, recv) = opened.map_err(|error| self.shared.explain(&error))?;
        let opened = self.shared.with(|state| state.session.open(open));
        let (id, header) = opened.map_err(|error| match error {
            OpenError::NotConnected => self.shared.why_closed(),
            OpenError::Draining => Refusal::new(Reason::Draining, "the peer is about to stop"),
        })?;
        let mut stream = Stream::new(stream::Guard::new(Arc::clone(&self.shared), id), send, recv);
        stream.want();
        stream.begin_with(header);
        Ok(stream)
    }

    /// Asks the peer for a sign of life and says how long it took.
    pub async fn ping(&self) -> Result<Duration, Refusal> {
        let (sender, answered) = oneshot::channel();
        self.shared.with(|state| {
            // Once the driver has ended, nobody would answer.
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            let number = state.session.ping(Instant::now().into_std());
            state.pongs.retain(|_, waiting| !waiting.is_closed());
            state.pongs.insert(number, sender);
            Ok(())
        })?;
        answered.await.map_err(|_| self.shared.why_closed())
    }

    /// Tells the gateway all that this edge offers.
    ///
    /// # Errors
    /// It is more than a gateway takes; nothing was told.
    pub fn offer(&self, offer: &Offer) -> Result<(), OfferError> {
        self.shared.with(|state| state.session.offer(offer))
    }

    /// Asks the peer to open no more streams. When the last has ended at both ends, the session ends by itself, for this
    /// reason; how long that may take is the caller's to limit, with [`Self::close`].
    pub fn drain(&self, refusal: Refusal, retry_after: Option<Duration>) {
        self.shared.with(|state| {
            state.leaving = Some(refusal.clone());
            state.session.drain(refusal, retry_after);
        });
    }

    /// Whether both are handles to one session.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Ends the session at once and tells the peer why. Streams break.
    pub fn close(&self, refusal: &Refusal) {
        self.shared.fail(refusal.clone());
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.shared.with_quietly(|state| state.session.open_streams())
    }

    /// How it is doing.
    pub fn status(&self) -> TunnelStatus {
        let stats = self.shared.connection.stats();
        TunnelStatus {
            remote: self.shared.connection.remote_address(),
            rtt: self.shared.connection.rtt(),
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            mtu: stats.path.current_mtu,
            dropped_packets: self.shared.routes.drops(),
            streams: self.open_streams(),
        }
    }
}

/// A stream that the peer wants to open. Dropping it refuses it.
#[derive(Debug)]
pub struct Incoming {
    /// What it is for. Apart, as the stream is: a queue sets aside room for many of these on each connection.
    pub open: Box<Open>,
    answer: Answer,
}

impl Incoming {
    /// What it is for, and the means to answer.
    pub fn into_parts(self) -> (Open, Answer) {
        (*self.open, self.answer)
    }
}

/// Answers a stream that the peer wants to open.
#[derive(Debug)]
pub struct Answer {
    stream: Box<Stream>,
}

impl Answer {
    /// The target is there: tells the peer and gives the stream.
    pub async fn accept(mut self) -> Result<Stream, Refusal> {
        let id = self.stream.id();
        let shared = self.stream.shared();
        let Some(reply) = shared.with(|state| state.session.accept(id)) else {
            return Err(Refusal::new(Reason::Cancelled, "the peer gave the stream up"));
        };
        self.stream.want();
        self.stream.write_header(reply).await?;
        Ok(*self.stream)
    }

    /// Likewise for a stream that was opened for packets.
    pub async fn accept_flow(mut self) -> Result<Flow, Refusal> {
        let id = self.stream.id();
        let shared = self.stream.shared();
        let Some(reply) = shared.with(|state| state.session.accept(id)) else {
            return Err(Refusal::new(Reason::Cancelled, "the peer gave the stream up"));
        };
        self.stream.want();
        self.stream.begin_with(reply);
        // Before the reply goes out, for datagrams may come right after it.
        let mut flow = Flow::new(*self.stream, true);
        flow.established().await?;
        Ok(flow)
    }

    /// The target cannot be had: tells the peer why.
    pub async fn refuse(mut self, refusal: &Refusal) {
        let id = self.stream.id();
        let shared = self.stream.shared();
        let reply = shared.with(|state| state.session.refuse(id, refusal));
        // A peer that is gone needs no answer.
        if self.stream.write_header(reply).await.is_ok() {
            self.stream.finish_refused();
        }
    }

    /// Resolves when the peer has given the stream up or the session has ended, so that a dial in its name can stop.
    pub async fn abandoned(&mut self) {
        self.stream.peer_gone().await;
    }
}
