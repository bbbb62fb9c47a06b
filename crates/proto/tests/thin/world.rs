//! Two nodes and the link between them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use tunnel_linkem::{Link, LinkConfig};
use tunnel_model::Class;
use tunnel_proto::{Packets, Rate, RateModel, ScheduleConfig, Scheduler, StreamId, Turn};

use crate::{
    carrier::{Carrier, DATA, HEADERS, Packet, Piece},
    host::{Host, Load},
};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// What a relay reads from a socket at once.
const READ: usize = 16 * 1024;
/// How finely a runtime's timers tell time.
const TICK: Duration = Duration::from_millis(1);

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Always has more.
    Bulk,
    /// A byte each 100 ms, which the other node sends back.
    Typing,
    /// Says so much, and no more.
    Hello(usize),
}

#[derive(Debug)]
struct Source {
    class: Class,
    kind: Kind,
    /// Bytes that wait to be asked for.
    want: usize,
    waiting: bool,
    sent: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) scheduler: Scheduler,
    pub(crate) carrier: Carrier,
    sources: BTreeMap<StreamId, Source>,
    /// By stream, what arrived here.
    pub(crate) arrived: HashMap<StreamId, u64>,
    pub(crate) host: Host,
    /// What came while the node did not run.
    inbox: VecDeque<Packet>,
}

impl Node {
    fn new(given: Option<Rate>, seed: u64, now: Instant) -> Self {
        Self::with_thin(Rate::THIN, given, seed, now)
    }

    fn with_thin(thin: Rate, given: Option<Rate>, seed: u64, now: Instant) -> Self {
        let config = ScheduleConfig {
            packets: Packets {
                data: u32::try_from(DATA).unwrap(),
                headers: u32::try_from(HEADERS).unwrap(),
            },
            thin,
            ..ScheduleConfig::default()
        };
        let mut model = RateModel::new(config.thin, seed, now);
        model.set_given(given, now);
        Self {
            scheduler: Scheduler::new(config, now),
            carrier: Carrier::new(model, now),
            sources: BTreeMap::new(),
            arrived: HashMap::new(),
            host: Host::idle(now),
            inbox: VecDeque::new(),
        }
    }

    /// Asks for turns and sends what it gets.
    fn pump(&mut self, now: Instant) {
        let unasked = self.carrier.take_unasked();
        if unasked > 0 {
            self.scheduler.spend(unasked, now);
        }
        self.scheduler.set_rate(self.carrier.model.pacing(), now);
        let ids: Vec<_> = self.sources.keys().copied().collect();
        for id in ids {
            let mut asked = 0;
            while let Some(source) = self.sources.get_mut(&id)
                && !source.waiting
                && self.carrier.has_room()
            {
                let want = if source.kind == Kind::Bulk { READ } else { source.want };
                if want == 0 {
                    break;
                }
                match self.scheduler.request(id, source.class, want, now) {
                    Turn::Granted(bytes) => self.send(id, bytes, now),
                    Turn::Queued => source.waiting = true,
                }
                asked += 1;
                assert!(asked < 1000, "a stream is granted without end");
            }
        }
        while let Some((id, bytes)) = self.scheduler.poll_ready() {
            self.send(id, bytes, now);
            if let Some(source) = self.sources.get_mut(&id) {
                source.waiting = false;
            }
        }
    }

    fn send(&mut self, id: StreamId, bytes: usize, now: Instant) {
        let source = self.sources.get_mut(&id).unwrap();
        source.want = source.want.saturating_sub(bytes);
        let piece = Piece {
            id,
            number: source.sent,
            len: bytes,
        };
        source.sent += bytes as u64;
        self.carrier.write(piece, now);
        self.scheduler.sent(id, bytes);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.scheduler.poll_timeout(), self.carrier.poll_timeout()]
            .into_iter()
            .flatten()
            .min();
        if self.inbox.is_empty() {
            due
        } else {
            Some(self.host.runs_from())
        }
        .map(|due| due.max(self.host.runs_from()))
    }
}

/// Both nodes: 0 and 1. The link from 0 to 1 is `links[0]`.
pub(crate) struct World {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) nodes: [Node; 2],
    pub(crate) links: [Link<Packet>; 2],
    typed: HashMap<StreamId, Vec<Instant>>,
    /// By typing stream, how long each echo took.
    pub(crate) echoes: HashMap<StreamId, Vec<Duration>>,
    next_key: Instant,
    next_id: u64,
    rival: Option<Rival>,
}

/// A sender in the manner of TCP Reno: a window that grows by a packet in each round trip, and is halved for a loss.
struct Rival {
    window: f64,
    /// What it sent, by when that has arrived and been acknowledged.
    flying: VecDeque<Instant>,
    halved: Instant,
}

impl Rival {
    fn new(now: Instant) -> Self {
        Self {
            window: 10.0,
            flying: VecDeque::new(),
            halved: now,
        }
    }

    fn turn(&mut self, link: &mut Link<Packet>, now: Instant) {
        while self.flying.front().is_some_and(|acked| *acked <= now) {
            self.flying.pop_front();
            self.window += 1.0 / self.window;
        }
        while (self.flying.len() as f64) < self.window.floor() {
            let before = link.stats();
            link.handle_packet(now, Packet::foreign());
            let config = *link.config();
            let queue = Rate::from_bits_per_second(config.rate.unwrap().get())
                .unwrap()
                .time_for(before.queued_bytes);
            let round_trip = queue + config.delay * 2;
            if link.stats().overflow == before.overflow {
                self.flying.push_back(now + round_trip);
            } else {
                if now >= self.halved + round_trip {
                    self.window = (self.window / 2.0).max(2.0);
                    self.halved = now;
                }
                return;
            }
        }
    }
}

impl World {
    /// A link like `3mbit,60ms`, the same both ways, whose rate the nodes have to find out.
    pub(crate) fn new(link: &str) -> Self {
        Self::with(link, None)
    }

    /// The same, and the nodes are told its rate.
    pub(crate) fn given(link: &str) -> Self {
        let config: LinkConfig = link.parse().unwrap();
        let bits = config.rate.unwrap().get();
        Self::with(link, Rate::from_bits_per_second(bits))
    }

    /// Nodes whose chances are those of this seed, on machines with little else to do.
    pub(crate) fn seeded(link: &str, seed: u64) -> Self {
        let mut world = Self::with(link, None);
        let now = world.now;
        world.nodes = [2 * seed, 2 * seed + 1].map(|seed| Node {
            host: Host::shared(Load::light(seed), now),
            ..Node::new(None, seed, now)
        });
        world
    }

    /// Nodes that take links up to this rate for thin.
    pub(crate) fn with_thin(link: &str, thin: Rate) -> Self {
        let mut world = Self::with(link, None);
        world.nodes = [1, 2].map(|seed| Node::with_thin(thin, None, seed, world.now));
        world
    }

    /// As connections begin: a few small packets each way.
    pub(crate) fn greet(&mut self) {
        for _ in 0..2 {
            self.open(0, Class::Control, Kind::Hello(300));
            self.open(1, Class::Control, Kind::Hello(300));
            self.run(self.links[0].config().delay * 2 + 50 * MS);
        }
    }

    fn with(link: &str, rate: Option<Rate>) -> Self {
        let now = Instant::now();
        let config: LinkConfig = link.parse().unwrap();
        Self {
            now,
            start: now,
            nodes: [Node::new(rate, 1, now), Node::new(rate, 2, now)],
            links: [Link::new(config, 1), Link::new(config, 2)],
            typed: HashMap::new(),
            echoes: HashMap::new(),
            next_key: now,
            next_id: 1,
            rival: None,
        }
    }

    pub(crate) fn set_up(&mut self, up: bool) {
        for link in &mut self.links {
            let config = *link.config();
            link.set(LinkConfig { up, ..config });
        }
    }

    /// From now on a sender is beside us on the link from 0 to 1 that holds back for losses only.
    pub(crate) fn compete(&mut self) {
        self.rival = Some(Rival::new(self.now));
    }

    pub(crate) fn set_link(&mut self, link: &str) {
        let config: LinkConfig = link.parse().unwrap();
        for link in &mut self.links {
            link.set(config);
        }
    }

    /// Opens a stream that this node sends on.
    pub(crate) fn open(&mut self, node: usize, class: Class, kind: Kind) -> StreamId {
        let id = StreamId(self.next_id);
        self.next_id += 1;
        let source = |kind| Source {
            class,
            kind,
            want: if let Kind::Hello(want) = kind { want } else { 0 },
            waiting: false,
            sent: 0,
        };
        self.nodes[node].sources.insert(id, source(kind));
        if kind == Kind::Typing {
            self.nodes[1 - node].sources.insert(id, source(Kind::Typing));
        }
        id
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
            let next = self.next(end);
            assert!(next > self.now, "time stands still");
            self.now = next;
        }
    }

    fn next(&self, end: Instant) -> Instant {
        let links = self.links.iter().filter_map(Link::poll_timeout);
        // A timer fires at the next tick of the runtime's clock.
        let nodes = self.nodes.iter().filter_map(Node::poll_timeout).map(|at| self.tick(at));
        let rival = self.rival.iter().filter_map(|rival| rival.flying.front().copied());
        let keys = [self.next_key, end];
        links
            .chain(nodes)
            .chain(rival)
            .chain(keys)
            .min()
            .unwrap()
            .max(self.now + Duration::from_nanos(1))
    }

    fn tick(&self, at: Instant) -> Instant {
        let nanos = at.saturating_duration_since(self.start).as_nanos();
        let ticks = nanos.div_ceil(TICK.as_nanos());
        self.start + TICK * u32::try_from(ticks).unwrap()
    }

    fn turn(&mut self) {
        let now = self.now;
        if self.next_key <= now {
            self.next_key += 100 * MS;
            for (id, source) in &mut self.nodes[0].sources {
                if source.kind == Kind::Typing {
                    source.want += 1;
                    self.typed.entry(*id).or_default().push(now);
                }
            }
        }
        if let Some(rival) = &mut self.rival {
            rival.turn(&mut self.links[0], now);
        }
        for from in 0..2 {
            let to = 1 - from;
            while let Some(packet) = self.links[from].poll_transmit(now) {
                self.nodes[to].inbox.push_back(packet);
            }
            if !self.nodes[to].host.runs(now) {
                continue;
            }
            while let Some(packet) = self.nodes[to].inbox.pop_front() {
                self.nodes[to].host.work(now);
                for piece in self.nodes[to].carrier.handle_packet(packet, now) {
                    self.arrive(to, piece);
                }
            }
        }
        for (node, link) in self.nodes.iter_mut().zip(&mut self.links) {
            if !node.host.runs(now) {
                continue;
            }
            if node.carrier.poll_timeout().is_some_and(|due| due <= now) {
                node.carrier.handle_timeout(now);
            }
            if node.scheduler.poll_timeout().is_some_and(|due| due <= now) {
                node.scheduler.handle_timeout(now);
            }
            node.pump(now);
            while let Some(packet) = node.carrier.poll_transmit(now) {
                node.host.work(now);
                link.handle_packet(now, packet);
            }
            // The acknowledged made room.
            node.pump(now);
            while let Some(packet) = node.carrier.poll_transmit(now) {
                node.host.work(now);
                link.handle_packet(now, packet);
            }
        }
    }

    fn arrive(&mut self, node: usize, piece: Piece) {
        *self.nodes[node].arrived.entry(piece.id).or_default() += piece.len as u64;
        let Some(source) = self.nodes[node].sources.get_mut(&piece.id) else {
            return;
        };
        if source.kind == Kind::Typing && node == 1 {
            source.want += piece.len;
        } else if source.kind == Kind::Typing {
            let typed = self.typed.get_mut(&piece.id).unwrap();
            for at in typed.drain(..piece.len) {
                self.echoes.entry(piece.id).or_default().push(self.now - at);
            }
        }
    }

    /// Bytes of this stream that arrived at this node.
    pub(crate) fn arrived(&self, node: usize, id: StreamId) -> u64 {
        self.nodes[node].arrived.get(&id).copied().unwrap_or_default()
    }

    /// How long what is sent from node 0 to node 1 stands in line, looked at every 10 ms for some time.
    pub(crate) fn queues(&mut self, time: Duration) -> Vec<Duration> {
        let end = self.now + time;
        let mut queues = Vec::new();
        while self.now < end {
            self.run(10 * MS);
            let link = &self.links[0];
            let rate = Rate::from_bits_per_second(link.config().rate.unwrap().get()).unwrap();
            queues.push(rate.time_for(link.stats().queued_bytes));
        }
        queues
    }

    /// What part of the link's rate the data of these streams is that arrives at this node within some time.
    pub(crate) fn goodput(&mut self, time: Duration, streams: &[(usize, StreamId)]) -> Vec<f64> {
        let before: Vec<u64> = streams.iter().map(|(node, id)| self.arrived(*node, *id)).collect();
        self.run(time);
        let rate = self.links[0].config().rate.unwrap().get() as f64;
        let share = |((node, id), before): (&(usize, StreamId), u64)| {
            (self.arrived(*node, *id) - before) as f64 * 8.0 / time.as_secs_f64() / rate
        };
        streams.iter().zip(before).map(share).collect()
    }
}

/// The value below which so many percent are.
pub(crate) fn percentile(values: &[Duration], percent: usize) -> Duration {
    if values.is_empty() {
        return Duration::MAX;
    }
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
