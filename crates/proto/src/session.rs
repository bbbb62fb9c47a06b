//! The session machine: the control stream, the streams' lives, and time.

mod acks;
mod event;
mod pace;
mod resume;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tunnel_model::{Class, LinkLoss, Offer, Reason, Refusal};

use self::{
    acks::Acks,
    resume::{Gone, PeerList},
    streams::{Early, Stream},
};
pub use self::{
    acks::ReplayLimits,
    event::Event,
    resume::Attach,
    streams::{Incoming, OpenError, Stale},
};
use crate::{
    Control, FrameReader, MAX_CONTROL_FRAME, Rate, ScheduleConfig, Scheduler, StreamId,
    budget::Budget,
    keepalive::{Keepalive, Verdict},
    message::{MAX_LOSSES, OfferError, encode_offer},
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

/// Whether a session outlives a carrier that ended for this reason: nobody meant it to end.
pub fn outlives(reason: Reason) -> bool {
    matches!(reason, Reason::CarrierLost | Reason::IdleTimeout)
}

/// What a session may do and for how long it waits.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many streams of the peer may be open at once.
    pub max_streams: usize,
    /// After how much silence to ping. The side that dialled needs a value below the NAT's timeout; `None` leaves it to
    /// the peer.
    pub keepalive: Option<Duration>,
    /// Whether to ping while no stream is open, too. Where not, the owner sees to it ([`Session::ping_held`]).
    pub idle_pings: bool,
    /// How long a ping or the hello may stay unanswered.
    pub patience: Duration,
    /// How long the announcement of a direction's end may come after the end of its carrier stream.
    pub end_grace: Duration,
    /// How long streams wait for another carrier, if the peer keeps them as long.
    pub resume_for: Duration,
    /// How much of what was sent is kept until the peer has it.
    pub replay: ReplayLimits,
    /// In which order streams send where the link is thin.
    pub schedule: ScheduleConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            keepalive: None,
            idle_pings: true,
            patience: Duration::from_secs(10),
            end_grace: Duration::from_secs(10),
            resume_for: Duration::from_secs(600),
            replay: ReplayLimits::default(),
            schedule: ScheduleConfig::default(),
        }
    }
}

/// The peer broke the protocol, or cannot go on: close the session with this refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Violation(#[from] pub Refusal);

impl Violation {
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self(Refusal::new(Reason::Protocol, message))
    }
}

/// Bytes that may wait for a peer that does not read its control stream.
const MAX_CONTROL_BACKLOG: usize = 1024 * 1024;
/// The longest that a pong is held back; one that is asked for later comes then.
pub const MAX_HOLD: Duration = Duration::from_secs(300);
/// Pings of our own that may be under way at once.
const MAX_PINGS: usize = 64;

#[derive(Debug)]
enum Phase {
    /// There was no carrier yet.
    New,
    /// There is a carrier.
    Up {
        /// What the peer still has, as far as it has said, on a carrier that continues the session.
        resuming: Option<PeerList>,
    },
    /// The carrier is of no use, and the owner was told.
    GivenUp,
    /// The carrier was lost; streams wait until then.
    Down { until: Instant },
    /// The session is over.
    Closed,
}

/// One end of a session. The crate's root says in which order to call it.
#[derive(Debug)]
pub struct Session {
    side: Side,
    config: Config,
    phase: Phase,
    /// The number of the last carrier.
    carrier: u64,
    /// As agreed on the last carrier.
    resume_for: Duration,
    reader: FrameReader,
    transmit: BytesMut,
    events: VecDeque<Event>,
    streams: HashMap<StreamId, Stream>,
    /// How many of `streams` have a direction that has not ended here.
    open: usize,
    /// How many of these the peer opened.
    peer_open: usize,
    next_id: StreamId,
    seen: SeenIds,
    early: BTreeMap<StreamId, Early>,
    /// When to give up on announcements of an end.
    graces: BTreeSet<(Instant, StreamId)>,
    acks: Acks,
    schedule: Scheduler,
    /// What the scheduler holds to.
    rate: Option<Rate>,
    /// What the peer is to hold to.
    down: Option<Rate>,
    /// Bytes that streams of each class have moved since somebody asked, in the order of [`Class::ALL`].
    moved: [u64; Class::ALL.len()],
    gone: Gone,
    /// There may be a new time to wait for.
    timer_moved: bool,
    keepalive: Option<Keepalive>,
    pings: VecDeque<(u64, Instant)>,
    next_ping: u64,
    /// A pong that the peer wants later.
    held: Option<(Instant, u64)>,
    /// After a pong that was held, when the peer must have been heard of again.
    expected: Option<Instant>,
    peer_resets: Budget,
    peer_pings: Budget,
    peer_offers: Budget,
    peer_journals: Budget,
    peer_paces: Budget,
    /// We, or the peer, said goaway.
    leaving: bool,
    drained: bool,
}

impl Session {
    /// A session without a carrier.
    pub fn new(side: Side, config: Config, now: Instant) -> Self {
        Self {
            side,
            acks: Acks::new(config.replay),
            schedule: Scheduler::new(config.schedule.clone(), now),
            config,
            phase: Phase::New,
            carrier: 0,
            resume_for: Duration::ZERO,
            reader: FrameReader::new(MAX_CONTROL_FRAME),
            transmit: BytesMut::new(),
            events: VecDeque::new(),
            streams: HashMap::new(),
            open: 0,
            peer_open: 0,
            next_id: StreamId::first_of(side),
            seen: SeenIds::starting_at(StreamId::first_of(side.peer())),
            early: BTreeMap::new(),
            graces: BTreeSet::new(),
            rate: None,
            down: None,
            moved: [0; Class::ALL.len()],
            gone: Gone::default(),
            timer_moved: false,
            keepalive: None,
            pings: VecDeque::new(),
            next_ping: 0,
            held: None,
            expected: None,
            peer_resets: Budget::new(20_000, Duration::from_micros(50), now),
            peer_pings: Budget::new(100, Duration::from_millis(100), now),
            peer_offers: Budget::new(20, Duration::from_secs(1), now),
            peer_journals: Budget::new(20, Duration::from_secs(1), now),
            peer_paces: Budget::new(20, Duration::from_secs(1), now),
            leaving: false,
            drained: false,
        }
    }

    /// Takes what arrived on the control stream.
    pub fn handle_control(&mut self, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.heard(now);
        }
        self.expected = None;
        self.reader.push(bytes);
        while let Some(frame) = self
            .reader
            .next_frame()
            .map_err(|e| Violation::protocol(format!("control stream: {e}")))?
        {
            let message = Control::decode(&frame).map_err(|e| Violation::protocol(format!("control stream: {e}")))?;
            // What comes after we have given the carrier up says nothing.
            if let (Some(message), Phase::Up { .. }) = (message, &self.phase) {
                self.handle_message(message, now)?;
            }
        }
        Ok(())
    }

    fn handle_message(&mut self, message: Control, now: Instant) -> Result<(), Violation> {
        match message {
            Control::Hello(_) => return Err(Violation::protocol("a second hello")),
            Control::Ping(number) => {
                if !self.peer_pings.take(now) {
                    return Err(Violation::protocol("too many pings"));
                }
                self.queue(&Control::Pong(number));
            }
            Control::HeldPing { number, hold } => {
                if !self.peer_pings.take(now) {
                    return Err(Violation::protocol("too many pings"));
                }
                self.held = Some((now + hold.min(MAX_HOLD), number));
            }
            Control::Pong(number) => self.handle_pong(number, now),
            Control::End { id, offset } => self.handle_end(id, offset, now)?,
            Control::Reset { id, refusal } => self.handle_reset(id, refusal, now)?,
            Control::Acks(streams) => self.handle_acks(&streams)?,
            Control::Resume { streams, last } => self.handle_resume(streams, last)?,
            Control::GoAway { refusal, retry_after } => {
                self.leaving = true;
                self.flush_acks();
                self.events.push_back(Event::GoAway { refusal, retry_after });
                self.note_drained();
            }
            Control::Offer(_) if self.side == Side::Edge => {
                return Err(Violation::protocol("a gateway offers nothing"));
            }
            Control::Offer(offer) => {
                // Each is read whole and told to whoever follows the directory.
                if !self.peer_offers.take(now) {
                    return Err(Violation::protocol("too many offers"));
                }
                self.events.push_back(Event::Offer(offer));
            }
            Control::Journal(_) if self.side == Side::Edge => {
                return Err(Violation::protocol("a gateway keeps no journal"));
            }
            Control::Journal(losses) => {
                if !self.peer_journals.take(now) {
                    return Err(Violation::protocol("too many pages of the journal"));
                }
                self.events.push_back(Event::Journal(losses));
            }
            Control::Journaled(_) if self.side == Side::Gateway => {
                return Err(Violation::protocol("an edge keeps nobody's journal"));
            }
            Control::Pace(rate) => self.handle_pace(rate, now)?,
            Control::Journaled(number) => self.events.push_back(Event::Journaled(number)),
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
        let number = self.new_ping(now);
        self.queue(&Control::Ping(number));
        number
    }

    /// Likewise, but the peer is to answer only after so long, at most [`MAX_HOLD`], and expects to hear from us again soon
    /// after that. Another such ping takes the place of one that is not answered yet.
    pub fn ping_held(&mut self, hold: Duration, now: Instant) -> u64 {
        let number = self.new_ping(now);
        self.queue(&Control::HeldPing { number, hold });
        number
    }

    fn new_ping(&mut self, now: Instant) -> u64 {
        let number = self.next_ping;
        self.next_ping += 1;
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((number, now));
        number
    }

    /// Tells the gateway all that this edge offers. To be said on each carrier.
    ///
    /// # Errors
    /// It is more than a gateway takes; nothing was told.
    pub fn offer(&mut self, offer: &Offer) -> Result<(), OfferError> {
        let message = encode_offer(offer)?;
        self.queue_frame(&message);
        Ok(())
    }

    /// Tells the gateway losses of the link, the first [`MAX_LOSSES`] of these.
    pub fn journal(&mut self, losses: &[LinkLoss]) {
        let page = &losses[..losses.len().min(MAX_LOSSES)];
        self.queue(&Control::Journal(page.to_vec()));
    }

    /// Tells the edge that its journal is kept up to this number.
    pub fn journaled(&mut self, number: u64) {
        self.queue(&Control::Journaled(number));
    }

    /// Opens and accepts no more streams; those that run may end. [`Event::Drained`] says when they have.
    pub fn drain(&mut self, refusal: Refusal, retry_after: Option<Duration>) {
        self.leaving = true;
        self.flush_acks();
        self.queue(&Control::GoAway { refusal, retry_after });
        self.note_drained();
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = match self.phase {
            Phase::Down { until } => Some(until),
            Phase::New | Phase::Up { .. } | Phase::GivenUp | Phase::Closed => None,
        };
        let keepalive = self.keepalive.as_ref().filter(|_| self.keeps_alive());
        let keepalive = keepalive.map(Keepalive::deadline);
        let held = self.held.map(|(at, _)| at);
        let grace = self.graces.first().map(|&(at, _)| at);
        let turn = self.schedule.poll_timeout().filter(|_| self.is_up());
        [expiry, keepalive, held, self.expected, grace, self.acks.due(), turn]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Down { until } if until <= now) {
            let waited = self.resume_for.as_secs();
            let message = format!("the link broke, and no connection came back within {waited} s");
            let refusal = Refusal::new(Reason::CarrierLost, message);
            self.close(&refusal);
            self.events.push_back(Event::Failed(refusal));
            return;
        }
        if let Some((_, number)) = self.held.take_if(|(at, _)| *at <= now) {
            self.queue(&Control::Pong(number));
            self.expected = Some(now + 2 * self.config.patience);
        }
        let keeps_alive = self.keeps_alive();
        // With open streams the keepalive decides.
        let silent = self.expected.take_if(|at| *at <= now).is_some() && self.open == 0;
        let verdict = self.keepalive.as_mut().filter(|_| keeps_alive).map(|k| k.poll(now));
        match verdict {
            _ if silent => return self.fail_silent(),
            Some(Verdict::Ping) => {
                self.ping(now);
            }
            Some(Verdict::Dead) => return self.fail_silent(),
            Some(Verdict::Quiet) | None => {}
        }
        self.end_graces(now);
        if self.acks.due().is_some_and(|due| due <= now) {
            self.flush_acks();
        }
        if self.is_paced() {
            self.give_turns(now);
        }
    }

    /// What is to be written to the control stream, all of it.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.transmit.is_empty()).then(|| self.transmit.split().freeze())
    }

    /// Whether the owner has something to write or to learn, or a new time to wait for. To be asked after calls that come
    /// from elsewhere than the owner's own loop.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.timer_moved) || !self.transmit.is_empty() || !self.events.is_empty()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How many streams are open: those with a direction that has not ended here.
    pub fn open_streams(&self) -> usize {
        self.open
    }

    /// Whether there is a carrier.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Whether the last carrier was lost, and the streams wait for another.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Down { .. })
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Ends the session, and with it every stream. The owner closes the carrier and tells the peer.
    pub fn close(&mut self, refusal: &Refusal) {
        self.leave_carrier();
        self.phase = Phase::Closed;
        self.break_all(refusal);
    }

    fn queue(&mut self, message: &Control) {
        self.queue_frame(&message.encode());
    }

    fn queue_frame(&mut self, frame: &[u8]) {
        if !self.is_up() {
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

    /// The carrier is of no use. Nothing that it still brings is heard; the owner says what becomes of the session.
    fn fail(&mut self, refusal: Refusal) {
        self.phase = Phase::GivenUp;
        self.keepalive = None;
        self.held = None;
        self.expected = None;
        self.events.push_back(Event::Failed(refusal));
    }

    fn fail_silent(&mut self) {
        self.fail(Refusal::new(Reason::IdleTimeout, "the peer does not answer"));
    }

    fn keeps_alive(&self) -> bool {
        self.config.idle_pings || self.open > 0
    }

    fn note_drained(&mut self) {
        if self.leaving && !self.drained && self.streams.is_empty() {
            self.drained = true;
            self.events.push_back(Event::Drained);
        }
    }
}
