//! Two sessions joined by a simulated carrier. Time jumps to whatever happens next.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use tunnel_model::{Reason, Refusal, SessionId};
use tunnel_proto::{
    Config, Event, Greeted, Greeting, Hello, Negotiated, OpenError, Session, Side, Violation, outlives,
};

use crate::{
    app::{App, Plan, Step, World},
    network::{Arrival, Channel, Link, Network, Piece, other},
};

/// One end, and what it lived through.
pub(crate) struct End {
    pub(crate) session: Session,
    config: Config,
    /// The session's name.
    name: SessionId,
    /// Carriers that were dialled.
    dialled: u64,
    side: Side,
    connected: bool,
    /// The peer has not said hello yet.
    greeting: Option<Greeting>,
    /// What the carrier's streams brought before that; nobody looks at them yet.
    held: Vec<(usize, Piece)>,
    /// What was agreed, on each carrier.
    pub(crate) agreed: Vec<(Duration, Negotiated)>,
    /// By the plan's index.
    pub(crate) apps: BTreeMap<usize, App>,
    pub(crate) not_opened: HashMap<usize, OpenError>,
    /// What the session said that concerns no single stream.
    pub(crate) notices: Vec<(Duration, Event)>,
    /// What the peer did wrong in this end's eyes.
    pub(crate) violations: Vec<Refusal>,
    /// Why carriers were lost.
    pub(crate) losses: Vec<(Duration, Refusal)>,
}

pub(crate) struct Pair {
    start: Instant,
    now: Instant,
    pub(crate) network: Network,
    edge: End,
    gateway: End,
    plans: Vec<Plan>,
    /// Plans that are not opened yet.
    waiting: Vec<usize>,
    /// Things that a test does at a certain time.
    acts: BTreeMap<Duration, Act>,
}

/// What happens to the carrier, or what an end does with it.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A new carrier is there at both ends.
    Connect,
    /// The carrier dies; the edge and the gateway learn of it after these times.
    Cut(Duration, Duration),
    /// From now on nothing arrives, and nobody is told.
    Blackhole,
    /// This end says goaway.
    Drain(Side),
}

impl Pair {
    /// A pair without a carrier.
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        Self::with_configs(link, seed, Config::default(), Config::default())
    }

    pub(crate) fn with_configs(link: Link, seed: u64, edge: Config, gateway: Config) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            network: Network::new(link, seed),
            edge: End::new(Side::Edge, edge, start),
            gateway: End::new(Side::Gateway, gateway, start),
            plans: Vec::new(),
            waiting: Vec::new(),
            acts: BTreeMap::new(),
        }
    }

    /// A pair that has agreed.
    pub(crate) fn connected(link: Link) -> Self {
        let mut pair = Self::new(link, 1);
        pair.connect();
        pair
    }

    pub(crate) fn connect(&mut self) {
        self.act(Act::Connect);
        self.run_while(|pair| !pair.is_ready());
    }

    fn is_ready(&self) -> bool {
        [&self.edge, &self.gateway].iter().all(|end| end.session.is_up())
    }

    pub(crate) fn end(&self, side: Side) -> &End {
        match side {
            Side::Edge => &self.edge,
            Side::Gateway => &self.gateway,
        }
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Edge => &mut self.edge,
            Side::Gateway => &mut self.gateway,
        }
    }

    /// Virtual time.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Adds a stream; its index.
    pub(crate) fn plan(&mut self, plan: Plan) -> usize {
        self.plans.push(plan);
        self.waiting.push(self.plans.len() - 1);
        self.plans.len() - 1
    }

    /// A stream that the gateway opens now, to a port of the edge.
    pub(crate) fn stream(&mut self, ask: &[Step], answer: &[Step]) -> usize {
        let at = self.elapsed();
        self.plan(Plan {
            opener: Side::Gateway,
            at,
            target: "port:10250".parse().unwrap(),
            ask: ask.to_vec(),
            answer: answer.to_vec(),
        })
    }

    pub(crate) fn plans(&self) -> &[Plan] {
        &self.plans
    }

    pub(crate) fn app(&self, side: Side, plan: usize) -> &App {
        &self.end(side).apps[&plan]
    }

    /// Does something later.
    pub(crate) fn at(&mut self, time: Duration, act: Act) {
        let mut at = time;
        while self.acts.contains_key(&at) {
            at += Duration::from_nanos(1);
        }
        self.acts.insert(at, act);
    }

    /// Does something now.
    pub(crate) fn act(&mut self, act: Act) {
        match act {
            Act::Connect => {
                for side in [Side::Edge, Side::Gateway] {
                    let another = Refusal::new(Reason::CarrierLost, "another carrier takes over");
                    self.lose(side, &another);
                    self.end_mut(side).connected = true;
                    self.end_mut(side).greeting = Some(Greeting::default());
                }
                self.network.connect();
                let now = self.now;
                self.edge.renew_if_over(now);
                self.edge.dialled += 1;
                self.say_hello(Side::Edge, false);
            }
            Act::Cut(edge, gateway) => {
                self.network.kill();
                let lost = Refusal::new(Reason::CarrierLost, "the carrier died");
                self.network.tell(Side::Edge, lost.clone(), self.now + edge);
                self.network.tell(Side::Gateway, lost, self.now + gateway);
            }
            Act::Blackhole => self.network.blackhole = true,
            Act::Drain(side) => {
                let refusal = Refusal::new(Reason::Draining, "a restart");
                self.end_mut(side)
                    .session
                    .drain(refusal, Some(Duration::from_millis(1500)));
                self.settle(side);
            }
        }
    }

    fn say_hello(&mut self, side: Side, continues: bool) {
        let end = self.end(side);
        let hello = Hello {
            session: end.name,
            carrier: end.dialled,
            continues,
            resume_for: end.config.resume_for,
            ..hello(side)
        };
        let bytes = tunnel_proto::Control::Hello(hello).encode();
        self.network.send(side, Channel::Control, &bytes, self.now);
    }

    fn greeted(&mut self, side: Side, bytes: &[u8]) -> Result<(), Violation> {
        let Some(greeting) = &mut self.end_mut(side).greeting else {
            return Ok(());
        };
        greeting.push(bytes);
        let (peer, rest) = match greeting.poll()? {
            Some(Greeted::Hello { hello, rest }) => (hello, rest),
            Some(Greeted::GoAway { .. }) | None => return Ok(()),
        };
        let (now, elapsed) = (self.now, self.elapsed());
        self.end_mut(side).greeting = None;
        let agreed = Negotiated::between(
            &Hello {
                resume_for: self.end(side).config.resume_for,
                ..hello(side)
            },
            peer.clone(),
        )?;
        let number = match side {
            Side::Gateway => {
                let continues = self.gateway.name == peer.session && !self.gateway.session.is_closed();
                if !continues {
                    self.start_over(side);
                    self.gateway.name = peer.session;
                }
                self.say_hello(side, continues);
                peer.carrier
            }
            Side::Edge => {
                // The gateway has nothing of a session that it knows under no number.
                if !peer.continues && self.edge.session.carrier() > 0 {
                    self.start_over(side);
                    self.edge.name = self.edge.new_name();
                }
                self.edge.dialled
            }
        };
        let end = self.end_mut(side);
        end.agreed.push((elapsed, agreed.clone()));
        end.session.handle_carrier_up(number, agreed.resume_for, now)?;
        end.session.handle_control(&rest, now)?;
        for (index, piece) in std::mem::take(&mut end.held) {
            self.arrive(side, Arrival::Piece(Channel::Stream(index), piece));
        }
        Ok(())
    }

    /// The session ends, and another begins.
    fn start_over(&mut self, side: Side) {
        let now = self.now;
        let over = Refusal::new(Reason::CarrierLost, "the other end has forgotten the session");
        self.end_mut(side).session.close(&over);
        self.settle(side);
        self.end_mut(side).renew_if_over(now);
    }

    /// Runs until a stream is decided at both ends.
    pub(crate) fn run_until_decided(&mut self, stream: usize) {
        self.run_while(|pair| {
            [&pair.edge, &pair.gateway]
                .iter()
                .any(|end| !end.apps.get(&stream).is_some_and(App::is_decided))
        });
    }

    /// Runs until nothing is left to happen.
    pub(crate) fn run(&mut self) {
        self.run_while(|_| true);
    }

    /// Runs to this time since the beginning.
    pub(crate) fn run_until(&mut self, time: Duration) {
        self.run_while(|pair| pair.next().is_some_and(|at| at <= pair.start + time));
        self.now = self.now.max(self.start + time);
    }

    pub(crate) fn run_while(&mut self, mut more: impl FnMut(&Self) -> bool) {
        let mut steps_at_once = 0;
        while more(self) {
            let Some(at) = self.next() else { return };
            steps_at_once = if at > self.now { 0 } else { steps_at_once + 1 };
            assert!(steps_at_once < 100_000, "time stands still at {:?}", self.elapsed());
            self.now = self.now.max(at);
            self.step();
        }
    }

    fn next(&self) -> Option<Instant> {
        let opens = self.waiting.iter().map(|&i| self.start + self.plans[i].at).min();
        let ends = [&self.edge, &self.gateway].map(|end| {
            let apps = end.apps.values().filter_map(App::wake).min();
            [apps, end.session.poll_timeout()].into_iter().flatten().min()
        });
        let acts = self.acts.keys().next().map(|&at| self.start + at);
        [self.network.next_arrival(), opens, acts, ends[0], ends[1]]
            .into_iter()
            .flatten()
            .min()
    }

    fn step(&mut self) {
        if let Some(entry) = self.acts.first_entry()
            && self.start + *entry.key() <= self.now
        {
            let act = entry.remove();
            self.act(act);
            return;
        }
        if let Some((to, arrival)) = self.network.arrived(self.now) {
            self.arrive(to, arrival);
            return;
        }
        if let Some(at) = self
            .waiting
            .iter()
            .position(|&i| self.start + self.plans[i].at <= self.now)
        {
            let plan = self.waiting.remove(at);
            self.open(plan);
            return;
        }
        for side in [Side::Edge, Side::Gateway] {
            let now = self.now;
            let session = &mut self.end_mut(side).session;
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now);
            }
            self.settle(side);
        }
    }

    fn open(&mut self, index: usize) {
        let now = self.now;
        let plan = self.plans[index].clone();
        let side = plan.opener;
        let end = self.end_mut(side);
        match end.session.open(&plan.open()) {
            Ok((id, header)) => {
                let app = App::opener(side, index, &plan.ask, id, end.session.carrier(), now);
                end.apps.insert(index, app);
                self.network.send(side, Channel::Stream(index), &header, now);
            }
            Err(error) => {
                end.not_opened.insert(index, error);
            }
        }
        self.settle(side);
    }

    fn arrive(&mut self, to: Side, arrival: Arrival) {
        if !self.end(to).connected {
            return;
        }
        let now = self.now;
        let outcome = match arrival {
            Arrival::Lost(refusal) => {
                self.lose(to, &refusal);
                Ok(())
            }
            Arrival::Piece(Channel::Control, Piece::Bytes(bytes)) if self.end(to).greeting.is_some() => {
                self.greeted(to, &bytes)
            }
            Arrival::Piece(Channel::Control, Piece::Bytes(bytes)) => {
                self.end_mut(to).session.handle_control(&bytes, now)
            }
            // A session finishes or resets its control stream never.
            Arrival::Piece(Channel::Control, _) => Ok(()),
            Arrival::Piece(Channel::Stream(index), piece) if self.end(to).greeting.is_some() => {
                self.end_mut(to).held.push((index, piece));
                Ok(())
            }
            Arrival::Piece(Channel::Stream(index), piece) => {
                let answer = self.plans[index].answer.clone();
                let (end, network) = self.split(to);
                let app = end.apps.entry(index).or_insert_with(|| App::acceptor(to, index));
                let mut world = World {
                    session: &mut end.session,
                    network,
                    now,
                };
                app.hear(piece, &answer, &mut world)
            }
        };
        if let Err(Violation(refusal)) = outcome {
            self.end_mut(to).violations.push(refusal.clone());
            self.close(to, &refusal);
        }
        self.settle(to);
    }

    /// This end closes the carrier and says why.
    pub(crate) fn close(&mut self, side: Side, refusal: &Refusal) {
        self.network.kill();
        if !self.network.blackhole {
            let at = self.now + self.network.link.latency;
            self.network.tell(other(side), refusal.clone(), at);
        }
        self.lose(side, refusal);
    }

    fn lose(&mut self, side: Side, refusal: &Refusal) {
        let (now, elapsed) = (self.now, self.elapsed());
        let end = self.end_mut(side);
        if !std::mem::take(&mut end.connected) {
            return;
        }
        end.greeting = None;
        end.held.clear();
        end.losses.push((elapsed, refusal.clone()));
        end.apps.retain(|_, app| app.carrier_lost());
        if outlives(refusal.reason) {
            end.session.handle_carrier_lost(refusal, now);
        } else {
            end.session.close(refusal);
        }
        self.settle(side);
    }

    /// Carries out what the session wants, and lets the apps act, until neither has anything to do.
    pub(crate) fn settle(&mut self, side: Side) {
        let (now, elapsed) = (self.now, self.elapsed());
        let mut failed = None;
        let (end, network) = self.split(side);
        loop {
            while let Some(bytes) = end.session.poll_transmit() {
                network.send(side, Channel::Control, &bytes, now);
            }
            let event = end.session.poll_event();
            let idle = event.is_none();
            let mut world = World {
                session: &mut end.session,
                network,
                now,
            };
            match event {
                Some(Event::Broken { id, refusal }) => {
                    if let Some(app) = end.apps.values_mut().find(|a| a.id() == Some(id)) {
                        app.give_up(&refusal, &mut world);
                    }
                }
                Some(Event::Received { id, end: ending }) => {
                    if let Some(app) = end.apps.values_mut().find(|a| a.id() == Some(id)) {
                        app.received_all(ending, &mut world);
                    }
                }
                Some(Event::Room(id)) => {
                    if let Some(app) = end.apps.values_mut().find(|a| a.id() == Some(id)) {
                        app.room(now);
                    }
                }
                Some(Event::Reattach(id)) => {
                    if let Some(app) = end.apps.values_mut().find(|a| a.id() == Some(id)) {
                        app.reattach(&mut world);
                    }
                }
                Some(other) => {
                    if let Event::Failed(refusal) = &other {
                        failed = Some(refusal.clone());
                    }
                    end.notices.push((elapsed, other));
                }
                None => {}
            }
            let due: Vec<_> = end
                .apps
                .iter()
                .filter(|(_, app)| app.wake().is_some_and(|at| at <= now))
                .map(|(&index, _)| index)
                .collect();
            for index in &due {
                if let Some(app) = end.apps.get_mut(index) {
                    app.act(&mut world);
                }
            }
            if idle && due.is_empty() {
                break;
            }
        }
        if let Some(refusal) = failed {
            self.close(side, &refusal);
        }
    }

    fn split(&mut self, side: Side) -> (&mut End, &mut Network) {
        let end = match side {
            Side::Edge => &mut self.edge,
            Side::Gateway => &mut self.gateway,
        };
        (end, &mut self.network)
    }
}

impl End {
    fn new(side: Side, config: Config, now: Instant) -> Self {
        Self {
            session: Session::new(side, config.clone(), now),
            config,
            name: hello(side).session,
            dialled: 0,
            side,
            connected: false,
            greeting: None,
            held: Vec::new(),
            agreed: Vec::new(),
            apps: BTreeMap::new(),
            not_opened: HashMap::new(),
            notices: Vec::new(),
            violations: Vec::new(),
            losses: Vec::new(),
        }
    }

    /// A session that is over makes place for another.
    fn renew_if_over(&mut self, now: Instant) {
        if self.session.is_closed() {
            self.session = Session::new(self.side, self.config.clone(), now);
            self.apps.values_mut().for_each(App::session_over);
            self.name = self.new_name();
        }
    }

    fn new_name(&self) -> SessionId {
        let mut bytes = *self.name.as_bytes();
        bytes[0] = bytes[0].wrapping_add(1);
        SessionId::from_bytes(bytes)
    }
}

/// What an end says first.
pub(crate) fn hello(side: Side) -> Hello {
    let mut rng = StdRng::seed_from_u64(u64::from(side == Side::Edge));
    Hello {
        min_version: tunnel_proto::VERSIONS.0,
        max_version: tunnel_proto::VERSIONS.1,
        features: vec![],
        session: SessionId::random(&mut rng),
        carrier: 1,
        continues: false,
        resume_for: Config::default().resume_for,
        software: match side {
            Side::Edge => "tunnel-edge 0.1.0".to_owned(),
            Side::Gateway => "tunnel-cloud 0.1.0".to_owned(),
        },
        name: "edge1".to_owned(),
        unix_millis: 1_800_000_000_000,
    }
}
