//! Streams of one session that wait for their turns, while whoever owns it looks only when it is told to: whatever happens in
//! between, each that waits is woken, and nobody waits for a time that nobody has set.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tunnel_model::{Class, Protocol, Reason, Refusal, TraceId};
use tunnel_proto::{Config, Control, Event, Open, Packets, Position, Rate, Session, Side, StreamId};

const SEEDS: u64 = 200;
const STEPS: u32 = 400;
const RESUME_FOR: Duration = Duration::from_secs(600);

#[test]
fn each_stream_that_waits_for_its_turn_has_it() {
    for seed in 0..SEEDS {
        let mut owner = Owner::new(seed);
        for _ in 0..STEPS {
            owner.step();
        }
        owner.end();
    }
}

/// Somebody who wants to send.
#[derive(Debug, Default)]
struct Writer {
    wants: usize,
    waits: bool,
    sent: u64,
}

/// A session's owner, who has set a timer for what it knew when it was last told to look.
struct Owner {
    seed: u64,
    dice: StdRng,
    now: Instant,
    session: Session,
    timer: Option<Instant>,
    writers: BTreeMap<StreamId, Writer>,
}

impl Owner {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut session = Session::new(Side::Edge, Config::default(), now);
        session.handle_carrier_up(1, RESUME_FOR, now).unwrap();
        session.set_rates(Rate::from_bits_per_second(1_000_000), None, now);
        Self {
            seed,
            dice: StdRng::seed_from_u64(seed),
            now,
            session,
            timer: None,
            writers: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let now = self.now;
        match self.dice.random_range(0..40) {
            0..4 => self.open(),
            4..20 => self.want(),
            20..22 => self.acknowledge(),
            22 => self.finish(),
            23 => self.rate(),
            24..26 => {
                let (beside, unused) = (self.dice.random_range(0..4_000), self.dice.random_range(0..4_000));
                self.session.set_link(Packets::of_quic(1452), beside, unused, now);
            }
            26 if self.session.is_up() => {
                let lost = Refusal::new(Reason::CarrierLost, "");
                self.session.handle_carrier_lost(&lost, now);
            }
            26 | 27 if !self.session.is_up() => self.next_carrier(),
            _ => {
                let time = Duration::from_micros(self.dice.random_range(0..20_000));
                self.pass(time);
            }
        }
        self.look();
    }

    fn open(&mut self) {
        let class = Class::ALL[self.dice.random_range(0..Class::ALL.len())];
        let open = Open {
            target: "service:web".parse().unwrap(),
            protocol: Protocol::Tcp,
            encoding: tunnel_model::Encoding::Raw,
            class,
            trace: TraceId::from_bytes([7; 16]),
            principal: "alice".to_owned(),
            node: None,
        };
        if let Ok((id, _)) = self.session.open(&open) {
            self.writers.insert(id, Writer::default());
        }
    }

    fn any(&mut self) -> Option<StreamId> {
        let at = self.dice.random_range(0..self.writers.len().max(1));
        self.writers.keys().nth(at).copied()
    }

    fn want(&mut self) {
        let Some(id) = self.any() else { return };
        let more = self.dice.random_range(1..5_000);
        self.writers.get_mut(&id).unwrap().wants += more;
        self.write(id);
    }

    /// As a task does that was woken: until it has nothing more to send, or has to wait.
    fn write(&mut self, id: StreamId) {
        let carrier = self.session.carrier();
        let writer = self.writers.get_mut(&id).unwrap();
        writer.waits = false;
        while writer.wants > 0 {
            let Ok(room) = self.session.room(id, carrier, writer.wants, self.now) else {
                return;
            };
            if room == 0 {
                writer.waits = true;
                return;
            }
            assert!(room <= writer.wants, "seed {}", self.seed);
            // The carrier takes what it takes.
            let bytes = self.dice.random_range(0..=room);
            let data = Bytes::from(vec![0; bytes]);
            self.session.sent(id, carrier, data, self.now).unwrap();
            writer.wants -= bytes;
            writer.sent += bytes as u64;
        }
    }

    fn acknowledge(&mut self) {
        let position = |(id, writer): (&StreamId, &Writer)| Position {
            id: *id,
            received: writer.sent,
        };
        let acks = Control::Acks(self.writers.iter().map(position).collect());
        self.session.handle_control(&acks.encode(), self.now).unwrap();
    }

    fn finish(&mut self) {
        let Some(id) = self.any() else { return };
        self.writers.remove(&id);
        if self.dice.random() {
            self.session.finish(id);
        } else {
            self.session.reset(id, &Refusal::new(Reason::Cancelled, ""));
        }
    }

    fn rate(&mut self) {
        let bits = [0, 64_000, 1_000_000, 20_000_000, 200_000_000];
        let rate = Rate::from_bits_per_second(bits[self.dice.random_range(0..bits.len())]);
        self.session.set_rates(rate, None, self.now);
    }

    fn next_carrier(&mut self) {
        let next = self.session.carrier() + 1;
        self.session.handle_carrier_up(next, RESUME_FOR, self.now).unwrap();
        // All try again there.
        for id in self.writers.keys().copied().collect::<Vec<_>>() {
            self.write(id);
        }
    }

    /// Lets time pass, and does what is due when the timer says so, not sooner.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.timer.filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            self.attend();
        }
        self.now = until;
    }

    /// Looks if it is told that something is new.
    fn look(&mut self) {
        if self.session.has_news() {
            self.attend();
        }
    }

    /// Wakes whoever is to be woken, and sets the timer anew.
    fn attend(&mut self) {
        while self.session.poll_transmit().is_some() {}
        while let Some(event) = self.session.poll_event() {
            if let Event::Room(id) = event
                && self.writers.get(&id).is_some_and(|writer| writer.waits)
            {
                self.write(id);
            }
        }
        self.session.has_news();
        self.timer = self.session.poll_timeout();
    }

    /// Nobody wants more than it wanted, and time passes: all of it is sent.
    fn end(&mut self) {
        if !self.session.is_up() {
            self.next_carrier();
        }
        self.session
            .set_rates(Rate::from_bits_per_second(1_000_000), None, self.now);
        self.look();
        for _ in 0..1000 {
            for id in self.writers.keys().copied().collect::<Vec<_>>() {
                if !self.writers[&id].waits {
                    self.write(id);
                }
            }
            self.acknowledge();
            self.look();
            if self.writers.values().all(|writer| writer.wants == 0) {
                return;
            }
            self.pass(Duration::from_millis(100));
        }
        let waiting: Vec<_> = self.writers.iter().filter(|(_, writer)| writer.wants > 0).collect();
        panic!("seed {}: {waiting:?}, timer {:?}", self.seed, self.timer);
    }
}
