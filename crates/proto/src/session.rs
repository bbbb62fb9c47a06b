//! The session machine: the control stream, the streams' lives, and time.

mod streams;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tunnel_model::{Offer, Reason, Refusal};

use self::streams::{Early, Stream};
pub use self::streams::{Incoming, OpenError};
use crate::{
    Control, FrameReader, Hello, MAX_CONTROL_FRAME, Negotiated, StreamId,
    budget::Budget,
    keepalive::{Keepalive, Verdict},
    message::{OfferError, encode_offer},
    seen::SeenIds,
};

/// Which end of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The agent that dialled out.
    Edge,
    /// The gateway.
    Gateway,
}

impl Side {
    fn peer(self) -> Self {
        match self {
            Self::Edge => Self::Gateway,
            Self::Gateway => Self::Edge,
        }
    }
}

/// What a session may do and for how long it waits.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many streams of the peer may be open at once.
    pub max_streams: usize,
    /// After how much silence to ping. The side that dialled needs a value below the NAT's timeout; `None` leaves it to
    /// the peer.
    pub keepalive: Option<Duration>,
    /// How long a ping or the hello may stay unanswered.
    pub patience: Duration,
    /// How long the announcement of a direction's end may come after the end of its carrier stream.
    pub end_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            keepalive: None,
            patience: Duration::from_secs(10),
            end_grace: Duration::from_secs(10),
        }
    }
}

/// The peer broke the protocol, or cannot go on: close the carrier with this refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Violation(#[from] pub Refusal);

impl Violation {
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self(Refusal::new(Reason::Protocol, message))
    }
}

/// What the owner of the session has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peers have agreed; streams may be opened and accepted.
    Ready(Negotiated),
    /// The edge says anew what it offers.
    Offer(Offer),
    /// The ping of this number was answered.
    Pong {
        /// What [`Session::ping`] returned.
        number: u64,
        /// From ping to pong.
        rtt: Duration,
    },
    /// The answer to [`crate::Fate::Pending`]: the direction ended cleanly, or is void and with it the stream.
    Received {
        /// The stream.
        id: StreamId,
        /// How the direction ended.
        end: Result<(), Refusal>,
    },
    /// Both directions of the stream are void.
    Broken {
        /// The stream.
        id: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// The peer wants no new streams and will leave.
    GoAway {
        /// Why.
        refusal: Refusal,
        /// When to come back at the earliest.
        retry_after: Option<Duration>,
    },
    /// After [`Session::drain`] or a goaway of the peer: no stream is left.
    Drained,
    /// The peer is gone or cannot be talked to: close the carrier with this refusal.
    Failed(Refusal),
}

/// Bytes that may wait for a peer that does not read its control stream.
const MAX_CONTROL_BACKLOG: usize = 1024 * 1024;
/// Pings of our own that may be under way at once.
const MAX_PINGS: usize = 64;

#[derive(Debug)]
enum Phase {
    /// No carrier.
    Down,
    /// The peer's hello is awaited until then.
    Greeting { until: Instant },
    /// The peers have agreed.
    Ready,
}

/// One end of a session. The crate's root says in which order to call it.
#[derive(Debug)]
pub struct Session {
    side: Side,
    config: Config,
    hello: Hello,
    phase: Phase,
    reader: FrameReader,
    transmit: BytesMut,
    events: VecDeque<Event>,
    streams: HashMap<StreamId, Stream>,
    /// How many of `streams` the peer opened.
    peer_streams: usize,
    next_id: StreamId,
    seen: SeenIds,
    early: BTreeMap<StreamId, Early>,
    /// When to give up on announcements of an end.
    graces: BTreeSet<(Instant, StreamId)>,
    keepalive: Option<Keepalive>,
    pings: VecDeque<(u64, Instant)>,
    next_ping: u64,
    peer_resets: Budget,
    peer_pings: Budget,
    peer_offers: Budget,
    /// We, or the peer, said goaway.
    leaving: bool,
    drained: bool,
}

impl Session {
    /// A session without a carrier. `hello` is what we say first on each.
    pub fn new(side: Side, config: Config, hello: Hello, now: Instant) -> Self {
        Self {
            side,
            config,
            hello,
            phase: Phase::Down,
            reader: FrameReader::new(MAX_CONTROL_FRAME),
            transmit: BytesMut::new(),
            events: VecDeque::new(),
            streams: HashMap::new(),
            peer_streams: 0,
            next_id: StreamId::first_of(side),
            seen: SeenIds::starting_at(StreamId::first_of(side.peer())),
            early: BTreeMap::new(),
            graces: BTreeSet::new(),
            keepalive: None,
            pings: VecDeque::new(),
            next_ping: 0,
            peer_resets: Budget::new(20_000, Duration::from_micros(50), now),
            peer_pings: Budget::new(100, Duration::from_millis(100), now),
            peer_offers: Budget::new(20, Duration::from_secs(1), now),
            leaving: false,
            drained: false,
        }
    }

    /// A carrier is there and the peer at its other end is who it should be.
    pub fn handle_carrier_up(&mut self, now: Instant) {
        self.phase = Phase::Greeting {
            until: now + self.config.patience,
        };
        self.reader = FrameReader::new(MAX_CONTROL_FRAME);
        self.keepalive = self
            .config
            .keepalive
            .map(|interval| Keepalive::new(interval, self.config.patience, now));
        self.leaving = false;
        self.drained = false;
        self.queue(&Control::Hello(self.hello.clone()));
    }

    /// The carrier is gone, and with it every stream.
    pub fn handle_carrier_lost(&mut self, refusal: &Refusal) {
        self.phase = Phase::Down;
        self.keepalive = None;
        self.transmit.clear();
        self.pings.clear();
        self.early.clear();
        self.graces.clear();
        self.break_all(refusal);
    }

    /// Takes what arrived on the control stream.
    pub fn handle_control(&mut self, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.heard(now);
        }
        self.reader.push(bytes);
        while let Some(frame) = self
            .reader
            .next_frame()
            .map_err(|e| Violation::protocol(format!("control stream: {e}")))?
        {
            let message = Control::decode(&frame).map_err(|e| Violation::protocol(format!("control stream: {e}")))?;
            if let Some(message) = message {
                self.handle_message(message, now)?;
            }
        }
        Ok(())
    }

    fn handle_message(&mut self, message: Control, now: Instant) -> Result<(), Violation> {
        match (&self.phase, message) {
            (Phase::Greeting { .. }, Control::Hello(peer)) => {
                let agreed = Negotiated::between(&self.hello, peer)?;
                self.phase = Phase::Ready;
                self.events.push_back(Event::Ready(agreed));
            }
            (Phase::Ready, Control::Hello(_)) => return Err(Violation::protocol("a second hello")),
            (Phase::Greeting { .. }, Control::GoAway { refusal, retry_after }) => {
                self.events.push_back(Event::GoAway { refusal, retry_after });
            }
            (Phase::Greeting { .. }, _) => return Err(Violation::protocol("no hello came first")),
            // We have given this carrier up and said so.
            (Phase::Down, _) => {}
            (Phase::Ready, Control::Ping(number)) => {
                if !self.peer_pings.take(now) {
                    return Err(Violation::protocol("too many pings"));
                }
                self.queue(&Control::Pong(number));
            }
            (Phase::Ready, Control::Pong(number)) => self.handle_pong(number, now),
            (Phase::Ready, Control::End { id, offset }) => self.handle_end(id, offset)?,
            (Phase::Ready, Control::Reset { id, refusal }) => self.handle_reset(id, refusal, now)?,
            (Phase::Ready, Control::GoAway { refusal, retry_after }) => {
                self.leaving = true;
                self.events.push_back(Event::GoAway { refusal, retry_after });
                self.note_drained();
            }
            (Phase::Ready, Control::Offer(_)) if self.side == Side::Edge => {
                return Err(Violation::protocol("a gateway offers nothing"));
            }
            (Phase::Ready, Control::Offer(offer)) => {
                // Each is read whole and told to whoever follows the directory.
                if !self.peer_offers.take(now) {
                    return Err(Violation::protocol("too many offers"));
                }
                self.events.push_back(Event::Offer(offer));
            }
        }
        Ok(())
    }

    fn handle_pong(&mut self, number: u64, now: Instant) {
        if let Some(at) = self.pings.iter().position(|&(n, _)| n == number)
            && let Some((_, sent)) = self.pings.remove(at)
        {
            let rtt = now.saturating_duration_since(sent);
            self.events.push_back(Event::Pong { number, rtt });
        }
    }

    /// Asks the peer for a sign of life; [`Event::Pong`] carries the number returned.
    pub fn ping(&mut self, now: Instant) -> u64 {
        let number = self.next_ping;
        self.next_ping += 1;
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((number, now));
        self.queue(&Control::Ping(number));
        number
    }

    /// Tells the gateway all that this edge offers.
    ///
    /// # Errors
    /// It is more than a gateway takes; nothing was told.
    pub fn offer(&mut self, offer: &Offer) -> Result<(), OfferError> {
        let message = encode_offer(offer)?;
        self.queue_frame(&message);
        Ok(())
    }

    /// Opens and accepts no more streams; those that run may end. [`Event::Drained`] says when they have.
    pub fn drain(&mut self, refusal: Refusal, retry_after: Option<Duration>) {
        self.leaving = true;
        self.queue(&Control::GoAway { refusal, retry_after });
        self.note_drained();
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let greeting = match self.phase {
            Phase::Greeting { until } => Some(until),
            Phase::Down | Phase::Ready => None,
        };
        let keepalive = self.keepalive.as_ref().map(Keepalive::deadline);
        let grace = self.graces.first().map(|&(at, _)| at);
        [greeting, keepalive, grace].into_iter().flatten().min()
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Greeting { until } if until <= now) {
            self.fail(Refusal::new(Reason::IdleTimeout, "the peer sent no hello in time"));
            return;
        }
        match self.keepalive.as_mut().map(|k| k.poll(now)) {
            Some(Verdict::Ping) => {
                self.ping(now);
            }
            Some(Verdict::Dead) => {
                self.fail(Refusal::new(Reason::IdleTimeout, "the peer does not answer"));
                return;
            }
            Some(Verdict::Quiet) | None => {}
        }
        self.end_graces(now);
    }

    /// What is to be written to the control stream, all of it.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.transmit.is_empty()).then(|| self.transmit.split().freeze())
    }

    /// Whether the owner has something to write or to learn, or a new time to wait for. To be asked after calls that come
    /// from elsewhere than the owner's own loop.
    pub fn has_news(&self) -> bool {
        !self.transmit.is_empty() || !self.events.is_empty() || !self.graces.is_empty()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    fn queue(&mut self, message: &Control) {
        self.queue_frame(&message.encode());
    }

    fn queue_frame(&mut self, frame: &[u8]) {
        if matches!(self.phase, Phase::Down) {
            return;
        }
        self.transmit.extend_from_slice(frame);
        if self.transmit.len() > MAX_CONTROL_BACKLOG {
            self.transmit.clear();
            self.fail(Refusal::new(
                Reason::Protocol,
                "the peer does not read its control stream",
            ));
        }
    }

    fn fail(&mut self, refusal: Refusal) {
        self.phase = Phase::Down;
        self.keepalive = None;
        self.events.push_back(Event::Failed(refusal));
    }

    fn note_drained(&mut self) {
        if self.leaving && !self.drained && self.streams.is_empty() {
            self.drained = true;
            self.events.push_back(Event::Drained);
        }
    }
}
