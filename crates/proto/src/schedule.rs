//! Who sends next: one [`Scheduler`] for each node and direction, whatever carries its streams.
//!
//! A thin link has a queue in front of it, and a keystroke that stands in it waits for everything that came before. So what
//! is handed to the carrier is held to the link's rate ([`Bucket`]), the modem's queue stays empty, and the queue stands
//! here, where it is sorted:
//!
//! 1. **control** goes at once, whatever that makes others wait.
//! 2. **interactive** goes before all data, up to a packet ahead of its time, and as long as it keeps within its share of the
//!    link. What exceeds that has the rank of api, so that it cannot starve the others.
//! 3. **api**, **metrics** and **bulk** divide what is left by their weights ([`Shares`]); what one does not use, the others
//!    have.
//!
//! Within a rank those go first who have sent little ([`Fair`]). A stream that talks long is bulk until it pauses
//! ([`Talker`]). Where no rate is known, or one that no stream has to wait for, nothing is sorted and nothing is remembered.
//!
//! # How to call it
//!
//! A stream calls [`Scheduler::request`] before it hands bytes to the carrier, and [`Scheduler::sent`] when it has. After any
//! call, [`Scheduler::poll_ready`] until `None` gives those whose turn has come; [`Scheduler::poll_timeout`] then says when
//! to call [`Scheduler::handle_timeout`]. A stream that is no more is [removed](Scheduler::remove).

mod bucket;
mod config;
mod fair;
mod talker;

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use tunnel_model::Class;

pub use self::config::{Caps, Packets, ScheduleConfig, Shares};
use self::{
    bucket::Bucket,
    fair::{Fair, Place},
    talker::Talker,
};
use crate::{rate::Rate, stream::StreamId};

/// What a timer that comes late may catch up with, and an idle link may take at once, beside one packet. Timers keep to a
/// millisecond.
const CATCH_UP: Duration = Duration::from_millis(2);
/// Over this time interactive streams may use up their share.
const SHARE_OVER: Duration = Duration::from_secs(1);
/// What a rank with a cap may send at once after a pause.
const CAP_DEPTH: Duration = Duration::from_millis(50);

/// How data is ranked in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Interactive,
    Api,
    Metrics,
    Bulk,
}

impl Rank {
    const ALL: [Self; 4] = [Self::Interactive, Self::Api, Self::Metrics, Self::Bulk];
    /// Those that share by weight.
    const WEIGHED: [Self; 3] = [Self::Api, Self::Metrics, Self::Bulk];

    fn of(class: Class) -> Option<Self> {
        match class {
            Class::Control => None,
            Class::Interactive => Some(Self::Interactive),
            Class::Api => Some(Self::Api),
            Class::Metrics => Some(Self::Metrics),
            Class::Bulk => Some(Self::Bulk),
        }
    }
}

/// What a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// So many bytes may be sent now.
    Granted(usize),
    /// The stream waits; [`Scheduler::poll_ready`] will name it.
    Queued,
}

/// Decides who sends next, and when.
#[derive(Debug)]
pub struct Scheduler {
    config: ScheduleConfig,
    link: Option<Link>,
    /// By rank.
    caps: [Option<Bucket>; Rank::ALL.len()],
    queues: [Fair; Rank::ALL.len()],
    /// Where the turn before of each rank ended, in bytes by weight, as [`Fair`] does it for streams.
    ended: [u64; Rank::ALL.len()],
    time: u64,
    streams: HashMap<StreamId, Stream>,
    ready: VecDeque<(StreamId, usize)>,
    /// What was granted and not given back since somebody asked, in bytes of whole packets.
    granted: u64,
}

/// A link that is thin enough to be sorted for.
#[derive(Debug)]
struct Link {
    bucket: Bucket,
    /// What interactive streams may use of it.
    interactive: Bucket,
}

#[derive(Debug)]
struct Stream {
    talker: Talker,
    /// Where its turn before ended, in the queue of this rank.
    ended: (Rank, u64),
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    Waiting {
        rank: Rank,
        place: Place,
        class: Class,
        want: usize,
    },
    /// May send so many bytes, and has not said yet how many it did.
    Granted {
        rank: Rank,
        bytes: usize,
    },
}

impl Scheduler {
    /// Sorts nothing until it knows a [rate](Self::set_rate).
    pub fn new(config: ScheduleConfig, now: Instant) -> Self {
        let caps = &config.caps;
        let caps = [caps.interactive, caps.api, caps.metrics, caps.bulk];
        Self {
            caps: caps.map(|cap| cap.map(|rate| Bucket::new(rate, CAP_DEPTH, now))),
            config,
            link: None,
            queues: Default::default(),
            ended: Default::default(),
            time: 0,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            granted: 0,
        }
    }

    /// What was granted and not given back since this was asked last, in bytes of whole packets.
    pub fn take_granted(&mut self) -> u64 {
        std::mem::take(&mut self.granted)
    }

    /// All streams are no more.
    pub fn clear(&mut self) {
        self.queues = Default::default();
        self.streams.clear();
        self.ready.clear();
    }

    /// The link carries so much; `None` if that is not known.
    pub fn set_rate(&mut self, rate: Option<Rate>, now: Instant) {
        match (rate.filter(|rate| *rate <= self.config.thin), &mut self.link) {
            (None, _) => self.link = None,
            (Some(rate), Some(link)) => {
                link.bucket.set_rate(rate, now);
                let share = self.config.shares.of_interactive(rate);
                link.interactive.set_rate(share, now);
            }
            (Some(rate), link @ None) => {
                *link = Some(Link {
                    bucket: Bucket::new(rate, CATCH_UP, now),
                    interactive: Bucket::new(self.config.shares.of_interactive(rate), SHARE_OVER, now),
                });
            }
        }
        self.dispatch(now);
    }

    /// The size of packets on the path.
    pub fn set_packets(&mut self, packets: Packets) {
        self.config.packets = packets;
    }

    /// Whether streams of this class ever wait. Those that do not need not ask.
    pub fn sorts(&self, class: Class) -> bool {
        self.link.is_some() || Rank::of(class).is_some_and(|rank| self.caps[rank as usize].is_some())
    }

    /// A stream wants to send so many bytes, at least one. What it was granted before and has not [sent](Self::sent) counts
    /// as sent; if it waits already, it now waits for this.
    pub fn request(&mut self, id: StreamId, class: Class, want: usize, now: Instant) -> Turn {
        if !self.sorts(class) && self.streams.is_empty() {
            return Turn::Granted(want);
        }
        self.ask(id, class, want, now)
    }

    fn ask(&mut self, id: StreamId, class: Class, want: usize, now: Instant) -> Turn {
        self.withdraw(id);
        let Some(rank) = Rank::of(class) else {
            let cost = self.config.packets.cost(want);
            self.granted += cost;
            self.spend(cost, now);
            return Turn::Granted(want);
        };
        if !self.sorts(class) {
            return Turn::Granted(want);
        }
        let stream = self.streams.entry(id).or_insert_with(|| Stream {
            talker: Talker::new(now),
            ended: (rank, 0),
            state: State::Idle,
        });
        let within = |link: &Link| link.interactive.is_open(now);
        let rank = match rank {
            _ if stream.talker.wants(now) => Rank::Bulk,
            Rank::Interactive if !self.link.as_ref().is_none_or(within) => Rank::Api,
            rank => rank,
        };
        let ended = if stream.ended.0 == rank { stream.ended.1 } else { 0 };
        stream.state = State::Waiting {
            rank,
            place: self.queues[rank as usize].push(id, ended),
            class,
            want,
        };
        self.dispatch(now);
        // Its own turn, if it came, came last or nearly so.
        match self.ready.iter().rposition(|(ready, _)| *ready == id) {
            Some(at) => Turn::Granted(self.ready.remove(at).map_or(0, |(_, bytes)| bytes)),
            None => Turn::Queued,
        }
    }

    /// A stream has sent so much of what it was granted. The rest is given back.
    pub fn sent(&mut self, id: StreamId, bytes: usize) {
        if self.streams.is_empty() {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let State::Granted { rank, bytes: granted } = stream.state {
            stream.state = State::Idle;
            let unused = self.config.packets.cost(granted) - self.config.packets.cost(bytes.min(granted));
            self.give_back(rank, unused);
        }
    }

    /// A stream is ranked anew, also if it waits.
    pub fn set_class(&mut self, id: StreamId, class: Class, now: Instant) {
        let waiting = self.streams.get(&id).map(|stream| stream.state);
        if let Some(State::Waiting {
            class: before, want, ..
        }) = waiting
            && before != class
            && let Turn::Granted(bytes) = self.ask(id, class, want, now)
        {
            self.ready.push_back((id, bytes));
        }
    }

    /// A stream is no more. What it was granted and did not say it sent is given back.
    pub fn remove(&mut self, id: StreamId) {
        if self.streams.is_empty() {
            return;
        }
        self.sent(id, 0);
        self.withdraw(id);
        self.ready.retain(|(ready, _)| *ready != id);
        self.streams.remove(&id);
    }

    /// Something took room on the link that nobody asked for here, such as what is sent again; in bytes of whole packets.
    pub fn spend(&mut self, bytes: u64, now: Instant) {
        if let Some(link) = &mut self.link {
            link.bucket.take(bytes, now);
        }
    }

    /// What was granted took less room on the link than it was taken for: it shared packets. In bytes of whole packets.
    pub fn refund(&mut self, bytes: u64) {
        if let Some(link) = &mut self.link {
            link.bucket.give_back(bytes);
        }
    }

    /// The next stream whose turn it is, and how many bytes it may send.
    pub fn poll_ready(&mut self) -> Option<(StreamId, usize)> {
        self.ready.pop_front()
    }

    /// When to call [`Self::handle_timeout`]; `None` while nobody waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = Rank::ALL
            .into_iter()
            .filter(|rank| !self.queues[*rank as usize].is_empty());
        waiting.filter_map(|rank| self.turn_at(rank)).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.dispatch(now);
    }

    /// Streams that wait.
    pub fn waiting(&self) -> usize {
        let waits = |stream: &&Stream| matches!(stream.state, State::Waiting { .. });
        self.streams.values().filter(waits).count()
    }

    /// Takes a stream out of its queue.
    fn withdraw(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if let State::Waiting { rank, place, .. } = stream.state {
                self.queues[rank as usize].remove(place);
            }
            stream.state = State::Idle;
        }
    }

    /// When a rank may send; `None` if it always may.
    fn turn_at(&self, rank: Rank) -> Option<Instant> {
        let link = self.link.as_ref().map(|link| match rank {
            // It would have to wait for the packet on the wire in any case, and so is the next.
            Rank::Interactive => {
                let ahead = link.bucket.rate().time_for(self.config.packets.whole());
                let opens = link.bucket.opens();
                opens.checked_sub(ahead).unwrap_or(opens)
            }
            _ => link.bucket.opens(),
        });
        let cap = self.caps[rank as usize].as_ref().map(Bucket::opens);
        link.max(cap)
    }

    /// Gives turns until the link or the caps are used up, or nobody waits.
    fn dispatch(&mut self, now: Instant) {
        while let Some(rank) = self.next_rank(now) {
            let Some((id, begins)) = self.queues[rank as usize].pop() else {
                return;
            };
            self.grant(id, rank, begins, now);
        }
    }

    fn next_rank(&self, now: Instant) -> Option<Rank> {
        let may =
            |rank: &Rank| !self.queues[*rank as usize].is_empty() && self.turn_at(*rank).is_none_or(|turn| turn <= now);
        // A rank that had nothing to send, or was not let, has saved up nothing.
        let begins = |rank: &Rank| self.ended[*rank as usize].max(self.time);
        let interactive = Some(Rank::Interactive).filter(may);
        interactive.or_else(|| Rank::WEIGHED.into_iter().filter(may).min_by_key(begins))
    }

    fn grant(&mut self, id: StreamId, rank: Rank, begins: u64, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let State::Waiting { want, .. } = stream.state else {
            return;
        };
        let packets = self.config.packets;
        let buckets = [
            self.link.as_ref().map(|link| &link.bucket),
            self.caps[rank as usize].as_ref(),
        ];
        let most = buckets
            .into_iter()
            .flatten()
            .map(|bucket| packets.data_in(bucket.saved(now)));
        let bytes = most.min().map_or(want, |most| want.min(most));
        let cost = packets.cost(bytes);
        self.granted += cost;
        stream.state = State::Granted { rank, bytes };
        stream.ended = (rank, begins + cost);
        if let Some(link) = &mut self.link {
            link.bucket.take(cost, now);
            stream.talker.said(cost, link.bucket.rate(), now);
            if rank == Rank::Interactive {
                link.interactive.take(cost, now);
            }
        }
        if let Some(cap) = &mut self.caps[rank as usize] {
            cap.take(cost, now);
        }
        if let Some(weight) = self.config.shares.weight(rank as usize) {
            let ended = &mut self.ended[rank as usize];
            self.time = self.time.max(*ended);
            *ended = self.time + (cost * WEIGHT_SCALE / weight).max(1);
        }
        self.ready.push_back((id, bytes));
    }

    fn give_back(&mut self, rank: Rank, cost: u64) {
        self.granted = self.granted.saturating_sub(cost);
        if let Some(link) = &mut self.link {
            link.bucket.give_back(cost);
            if rank == Rank::Interactive {
                link.interactive.give_back(cost);
            }
        }
        if let Some(cap) = &mut self.caps[rank as usize] {
            cap.give_back(cost);
        }
    }
}

/// Bytes by weight are whole numbers; this keeps what dividing would lose.
const WEIGHT_SCALE: u64 = 1024;
