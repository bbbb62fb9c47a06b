//! A session over one connection after the other: the protocol's machine, and the tasks around it.

mod driver;
mod flow;
mod greeting;
mod pace;
mod shared;
pub(crate) mod stream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tunnel_model::{Class, LinkLoss, Offer, Reason, Refusal};
use tunnel_proto::{Config, Counted, OfferError, Open, OpenError, Rate, Session, Side};

use self::shared::{Shared, State, now};
pub use self::{
    driver::{Driver, Meter, Notice},
    flow::{Flow, FlowSender},
    greeting::{Arriving, Carrier},
    stream::Stream,
};
use crate::CarrierKind;

/// A session. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
    incoming: mpsc::Sender<Incoming>,
    notices: mpsc::Sender<Box<Notice>>,
}

/// What [`Tunnel::new`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub tunnel: Tunnel,
    /// Streams that the peer opens.
    pub incoming: mpsc::Receiver<Incoming>,
    /// What else the peer says. Boxed, as a queue sets aside room for many of these on each connection.
    pub notices: mpsc::Receiver<Box<Notice>>,
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

/// Figures of a session's connection, while there is one.
#[derive(Debug, Clone)]
pub struct TunnelStatus {
    /// Where the peer is now, as seen from here.
    pub remote: SocketAddr,
    /// The connection's estimate of the round trip.
    pub rtt: Duration,
    /// Bytes of UDP or TCP payload sent.
    pub sent_bytes: u64,
    /// Bytes of UDP or TCP payload received.
    pub received_bytes: u64,
    /// Packets that were lost on the way to the peer.
    pub lost_packets: u64,
    /// The largest UDP payload that the path carries, in bytes; 0 over TCP.
    pub mtu: u16,
    /// Packets of flows that were dropped at this end: of no flow that is open, or without room.
    pub dropped_packets: u64,
    /// Streams that are open.
    pub streams: usize,
    /// What it goes over.
    pub carrier: CarrierKind,
    /// What this end holds to when it sends, where that is configured.
    pub rate: Option<Rate>,
    /// Likewise where it is not, and the link turned out to be thin.
    pub measured: Option<Rate>,
}

impl Tunnel {
    /// A session without a connection yet.
    #[expect(
        clippy::new_ret_no_self,
        reason = "a session is a handle and what is to be received from it"
    )]
    pub fn new(side: Side, config: Config) -> Opened {
        let (incoming, incoming_receiver) = mpsc::channel(driver::MAX_UNSEEN);
        let (notices, notice_receiver) = mpsc::channel(driver::MAX_NOTICES);
        let session = Session::new(side, config, now());
        Opened {
            tunnel: Self {
                shared: Arc::new(Shared::new(session)),
                incoming,
                notices,
            },
            incoming: incoming_receiver,
            notices: notice_receiver,
        }
    }

    /// Has the session go on over this carrier, instead of the one that may still be there. What is returned makes it go: to
    /// be run until it returns.
    ///
    /// # Errors
    /// The carrier comes too late: there is a later one, or the session is over.
    pub fn attach(&self, carrier: Carrier) -> Result<Driver, Refusal> {
        let (incoming, notices) = (self.incoming.clone(), self.notices.clone());
        Driver::new(Arc::clone(&self.shared), carrier, incoming, notices)
    }

    /// Waits until the session is over because no carrier has come in time, and says so.
    pub async fn expired(&self) -> Refusal {
        loop {
            let due = self.shared.expire();
            if let Some(refusal) = self.shared.over() {
                return refusal;
            }
            // Somebody may close it meanwhile.
            match due {
                Some(due) => drop(timeout_at(Instant::from_std(due), self.shared.changed.notified()).await),
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// Opens a stream to a target at the peer. It takes data at once; the wish goes out together with the first of it, or
    /// as soon as somebody reads or waits for the answer. Whether the peer accepts, [`Stream::established`] tells, and so
    /// does the first read; after `patience` without an answer the stream is given up. Dropping the future gives it up too.
    pub async fn open(&self, open: &Open, patience: Duration) -> Result<Stream, Refusal> {
        match timeout(patience, self.start(open, patience)).await {
            Ok(started) => started,
            Err(_) => {
                let message = format!("no room for another stream within {} s", patience.as_secs());
                Err(Refusal::new(Reason::Overloaded, message))
            }
        }
    }

    async fn start(&self, open: &Open, patience: Duration) -> Result<Stream, Refusal> {
        let Some(connection) = self.shared.connection.load_full() else {
            return Err(self.shared.why_down());
        };
        let carrier = self.shared.with_quietly(|state| state.session.carrier());
        // First, because it may have to wait: a stream that is on the session's books has a carrier stream.
        let opened = connection.open_bi().await;
        let (send, recv) = opened.map_err(|_| self.shared.why_down())?;
        send.set_priority(priority(open.class));
        let opened = self.shared.with(|state| match state.session.carrier() == carrier {
            true => state.session.open(open),
            false => Err(OpenError::NotConnected),
        });
        let (id, header) = opened.map_err(|error| match error {
            OpenError::NotConnected => self.shared.why_down(),
            OpenError::Draining => Refusal::new(Reason::Draining, "the peer is about to stop"),
        })?;
        let guard = stream::Guard::new(Arc::clone(&self.shared), id, true);
        let mut stream = Stream::opened(guard, carrier, (send, recv), header, patience);
        stream.want();
        Ok(stream)
    }

    /// Asks the peer for a sign of life and says how long it took.
    pub async fn ping(&self) -> Result<Duration, Refusal> {
        self.ask(Session::ping).await
    }

    /// Likewise, but the peer is to answer only after so long: see [`Session::ping_held`].
    pub async fn ping_held(&self, hold: Duration) -> Result<Duration, Refusal> {
        self.ask(|session, now| session.ping_held(hold, now)).await
    }

    async fn ask(&self, ping: impl FnOnce(&mut Session, std::time::Instant) -> u64) -> Result<Duration, Refusal> {
        let (sender, answered) = oneshot::channel();
        let asked = self.shared.with(|state| {
            // Without a carrier, nobody would answer.
            if !state.session.is_up() {
                return false;
            }
            let number = ping(&mut state.session, now());
            state.pongs.retain(|_, waiting| !waiting.is_closed());
            state.pongs.insert(number, sender);
            true
        });
        match asked {
            true => answered.await.map_err(|_| self.shared.why_down()),
            false => Err(self.shared.why_down()),
        }
    }

    /// Tells the gateway all that this edge offers.
    ///
    /// # Errors
    /// It is more than a gateway takes; nothing was told.
    pub fn offer(&self, offer: &Offer) -> Result<(), OfferError> {
        self.shared.with(|state| state.session.offer(offer))
    }

    /// Holds to what the edge's link carries, as far as somebody has said that: `up` here, `down` at the gateway. Holds for the
    /// carriers to come too.
    pub fn set_rates(&self, up: Option<Rate>, down: Option<Rate>) {
        self.shared.with(|state| {
            state.session.set_rates(up, down, now());
            state.follow_link();
        });
    }

    /// Tells the gateway losses of the link, the first [`tunnel_proto::MAX_LOSSES`] of these.
    pub fn journal(&self, losses: &[LinkLoss]) {
        self.shared.with(|state| state.session.journal(losses));
    }

    /// Tells the edge that its journal is kept up to this number.
    pub fn journaled(&self, number: u64) {
        self.shared.with(|state| state.session.journaled(number));
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
        self.shared.fail(refusal);
    }

    /// Gives the connection of now up, as one that is of no use any more; the session waits for another.
    pub fn give_up_carrier(&self, refusal: &Refusal) {
        self.shared.with_quietly(|state| {
            if let Some(connection) = &*self.shared.connection.load() {
                state.given_up = Some(refusal.clone());
                connection.close(refusal);
            }
        });
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.shared.connection.load().is_some()
    }

    /// Whether there ever was one.
    pub fn was_connected(&self) -> bool {
        self.shared.with_quietly(|state| state.session.carrier() > 0)
    }

    /// Whether the session is over, now that it has waited for another connection for so long.
    pub fn is_expired(&self) -> bool {
        self.shared.expire();
        self.over().is_some()
    }

    /// Why the session is over, if it is.
    pub fn over(&self) -> Option<Refusal> {
        self.shared.over()
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.shared.with_quietly(|state| state.session.open_streams())
    }

    /// How many of them are of each class, in the order of [`Class::ALL`].
    pub fn open_by_class(&self) -> [usize; Class::ALL.len()] {
        self.shared.with_quietly(|state| state.session.open_by_class())
    }

    /// Bytes of data that streams have moved both ways since this was last asked, by class in the order of [`Class::ALL`].
    /// Packets in datagrams are not among them.
    pub fn take_moved(&self) -> [u64; Class::ALL.len()] {
        self.shared.with_quietly(|state| state.session.take_moved())
    }

    /// Breaks every stream of a class, at both ends.
    pub fn cut_class(&self, class: Class, refusal: &Refusal) {
        self.shared.with(|state| state.session.cut_class(class, refusal));
    }

    /// What a [`Silence`](tunnel_proto::Silence) is judged by; nothing while there is no connection.
    pub fn counted(&self) -> Option<Counted> {
        let stats = self.shared.connection.load_full()?.stats();
        let (moved, streams, interactive) = self.shared.with_quietly(|state| {
            let session = &state.session;
            (session.moved(), session.open_streams(), session.interactive_streams())
        });
        Some(Counted {
            asked: stats.asked,
            received: stats.received_bytes,
            moved,
            rtt: stats.rtt,
            streams,
            interactive,
        })
    }

    /// How it is doing; nothing while there is no connection.
    pub fn status(&self) -> Option<TunnelStatus> {
        let connection = self.shared.connection.load_full()?;
        let stats = connection.stats();
        let rates = |state: &mut State| (state.session.told_rate(), state.session.measured_rate());
        let (rate, measured) = self.shared.with_quietly(rates);
        Some(TunnelStatus {
            remote: connection.remote_address(),
            rtt: stats.rtt,
            sent_bytes: stats.sent_bytes,
            received_bytes: stats.received_bytes,
            lost_packets: stats.lost_packets,
            mtu: stats.mtu,
            dropped_packets: self.shared.routes.drops(),
            streams: self.open_streams(),
            carrier: connection.kind(),
            rate,
            measured,
        })
    }
}

/// In which order a carrier that can tell streams apart sends them.
fn priority(class: Class) -> i32 {
    match class {
        Class::Control => 4,
        Class::Interactive => 3,
        Class::Api => 2,
        Class::Metrics => 1,
        Class::Bulk => 0,
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
        self.stream.answer_with(reply);
        self.stream.send_header().await?;
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
        self.stream.answer_with(reply);
        // Before the reply goes out, for datagrams may come right after it.
        let mut flow = Flow::new(*self.stream, true);
        flow.established().await?;
        Ok(flow)
    }

    /// The target cannot be had: tells the peer why.
    pub async fn refuse(self, refusal: &Refusal) {
        let id = self.stream.id();
        let shared = self.stream.shared();
        let reply = shared.with(|state| state.session.refuse(id, refusal));
        self.stream.refuse(reply).await;
    }

    /// Resolves when the peer has given the stream up or the session has ended, so that a dial in its name can stop.
    pub async fn abandoned(&mut self) {
        self.stream.peer_gone().await;
    }
}
