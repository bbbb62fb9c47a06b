//! What runs on a stream at one end, acting from a script and using the session as a driver does.

use std::{
    collections::VecDeque,
    sync::LazyLock,
    time::{Duration, Instant},
};

use tunnel_model::{Class, Reason, Refusal, Target, TraceId};
use tunnel_proto::{Attach, Fate, Incoming, Open, OpenReply, Prelude, Session, Side, StreamId, Violation};

use crate::network::{Channel, Network, Piece, other};

/// One act of a script.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The acceptor's good answer.
    Accept,
    /// The acceptor's bad answer.
    Refuse(Reason),
    /// So many bytes.
    Write(usize),
    /// Let time pass.
    Pause(Duration),
    /// Wait until the peer's direction has ended.
    AwaitEnd,
    /// End our direction.
    Finish,
    /// Make both directions void.
    Reset(Reason),
    /// Leave our direction: the carrier stream is finished by whoever cleans up, and nothing is said on the control
    /// stream.
    Vanish,
}

/// A stream of a scenario: who opens it and when, and what both ends do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) opener: Side,
    pub(crate) at: Duration,
    pub(crate) target: Target,
    pub(crate) ask: Vec<Step>,
    pub(crate) answer: Vec<Step>,
}

impl Plan {
    pub(crate) fn open(&self) -> Open {
        Open {
            target: self.target.clone(),
            protocol: tunnel_model::Protocol::Tcp,
            encoding: tunnel_model::Encoding::Raw,
            class: Class::Api,
            trace: TraceId::from_bytes([7; 16]),
            principal: "alice".to_owned(),
            node: None,
        }
    }
}

/// How a direction ended.
pub(crate) type Ending = Result<(), Refusal>;

pub(crate) struct App {
    side: Side,
    /// The plan's index, which is also the carrier stream's number.
    plan: usize,
    script: VecDeque<Step>,
    /// The next step is due then.
    wake: Option<Instant>,
    /// The carrier on which it has a stream, and until its first frame has come, what has come of that.
    carrier: Option<u64>,
    prelude: Option<Prelude>,
    id: Option<StreamId>,
    vanished: bool,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    /// What the opener was told.
    pub(crate) reply: Option<OpenReply>,
    pub(crate) send_ending: Option<Ending>,
    pub(crate) receive_ending: Option<Ending>,
}

/// What an app acts upon, beside itself.
pub(crate) struct World<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) network: &'a mut Network,
    pub(crate) now: Instant,
}

impl App {
    /// The end that opened the stream. The header is on its way, data may follow it at once.
    pub(crate) fn opener(side: Side, plan: usize, script: &[Step], id: StreamId, carrier: u64, now: Instant) -> Self {
        let mut app = Self::acceptor(side, plan);
        app.begin(script, id, carrier, now);
        app
    }

    /// The end that sees a new carrier stream.
    pub(crate) fn acceptor(side: Side, plan: usize) -> Self {
        Self {
            side,
            plan,
            script: VecDeque::new(),
            wake: None,
            carrier: None,
            prelude: Some(Prelude::default()),
            id: None,
            vanished: false,
            sent: 0,
            received: 0,
            reply: None,
            send_ending: None,
            receive_ending: None,
        }
    }

    fn begin(&mut self, script: &[Step], id: StreamId, carrier: u64, now: Instant) {
        self.id = Some(id);
        self.carrier = Some(carrier);
        self.script = script.iter().cloned().collect();
        self.wake = Some(now);
    }

    pub(crate) fn id(&self) -> Option<StreamId> {
        self.id
    }

    pub(crate) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.send_ending.is_some() && self.receive_ending.is_some()
    }

    /// Takes what the carrier stream brought. `answer` is what to do if this is a stream that the peer opened.
    pub(crate) fn hear(&mut self, piece: Piece, answer: &[Step], world: &mut World) -> Result<(), Violation> {
        // Who accepts hears of a stream anew on each carrier, whatever has become of it.
        let awaits_header = self.prelude.is_some() && !self.is_opener();
        if self.receive_ending.is_some() && !awaits_header {
            return Ok(());
        }
        match piece {
            Piece::Bytes(bytes) => match self.prelude.take() {
                None => self.take_data(&bytes, world),
                Some(mut prelude) => {
                    prelude.push(&bytes);
                    match prelude.split().map_err(|e| violation(e.to_string()))? {
                        Err(again) => self.prelude = Some(again),
                        Ok((frame, rest)) => {
                            if self.is_opener() {
                                self.take_reply(&frame, world)?;
                            } else {
                                self.take_open(&frame, answer, world)?;
                            }
                            self.take_data(&rest, world);
                        }
                    }
                }
            },
            Piece::Fin => match self.id.zip(self.carrier) {
                Some((id, carrier)) if self.prelude.is_none() => {
                    match world.session.carrier_stream_ended(id, carrier, world.now) {
                        Ok(Fate::Finished) => self.received_all(Ok(()), world),
                        Ok(Fate::Broken(refusal)) => self.received_all(Err(refusal), world),
                        Ok(Fate::Pending) | Err(_) => {}
                    }
                }
                // The peer died in the middle of its first frame.
                _ => self.give_up(&cut(Reason::CarrierLost), world),
            },
            Piece::Reset(reason) => self.give_up(&cut(reason), world),
        }
        Ok(())
    }

    fn is_opener(&self) -> bool {
        self.id.is_some_and(|id| id.opener() == self.side)
    }

    fn take_open(&mut self, frame: &[u8], answer: &[Step], world: &mut World) -> Result<(), Violation> {
        let carrier = world.session.carrier();
        match world.session.handle_open(frame, carrier)? {
            Incoming::Stream { id, .. } => self.begin(answer, id, carrier, world.now),
            Incoming::Resumed(attach) => {
                assert_eq!(self.id, Some(attach.id), "another stream goes on");
                self.attach(&attach, world);
            }
            Incoming::Refused(bytes) => {
                world.network.send(self.side, self.channel(), &bytes, world.now);
                world.network.finish(self.side, self.channel(), world.now);
                self.void(&cut(Reason::Cancelled));
            }
        }
        Ok(())
    }

    fn take_reply(&mut self, frame: &[u8], world: &mut World) -> Result<(), Violation> {
        let Some(id) = self.id else { return Ok(()) };
        let reply = world.session.handle_reply(id, frame)?;
        if let Err(refusal) = &reply {
            world
                .network
                .reset(self.side, self.channel(), refusal.reason, world.now);
            self.void(refusal);
        }
        self.reply = Some(reply);
        Ok(())
    }

    fn take_data(&mut self, bytes: &[u8], world: &mut World) {
        let Some((id, carrier)) = self.id.zip(self.carrier) else {
            return;
        };
        if self.receive_ending.is_some() || world.session.received(id, carrier, bytes.len(), world.now).is_err() {
            return;
        }
        let expected = pattern(other(self.side), self.plan, self.received, bytes.len());
        if bytes != expected {
            let same = bytes.iter().zip(&expected).take_while(|(got, meant)| got == meant);
            panic!("byte {} is another", self.received + same.count());
        }
        self.received += bytes.len();
    }

    /// The session wants the stream to go on, on the carrier of now.
    pub(crate) fn reattach(&mut self, world: &mut World) {
        let attach = self.id.and_then(|id| world.session.reattach(id));
        if let Some(attach) = attach {
            self.attach(&attach, world);
            self.prelude = Some(Prelude::default());
        }
    }

    fn attach(&mut self, attach: &Attach, world: &mut World) {
        let (side, channel, now) = (self.side, self.channel(), world.now);
        world.network.send(side, channel, &attach.head, now);
        for chunk in &attach.data {
            world.network.send(side, channel, chunk, now);
        }
        if world.session.is_finished(attach.id) || self.vanished {
            world.network.finish(side, channel, now);
        }
        self.carrier = Some(world.session.carrier());
        self.wake = Some(now);
    }

    /// There may be room for more.
    pub(crate) fn room(&mut self, now: Instant) {
        self.wake = Some(now);
    }

    /// The session said how the direction that we read ended.
    pub(crate) fn received_all(&mut self, end: Ending, world: &mut World) {
        match end {
            Err(refusal) => self.give_up(&refusal, world),
            Ok(()) => {
                assert!(self.prelude.is_none(), "a clean end before the first frame was whole");
                self.receive_ending = Some(Ok(()));
                if matches!(self.script.front(), Some(Step::AwaitEnd)) {
                    self.wake = Some(world.now);
                }
            }
        }
    }

    /// Makes both directions void, as far as they have not ended.
    pub(crate) fn give_up(&mut self, refusal: &Refusal, world: &mut World) {
        if let Some(id) = self.id {
            world.session.reset(id, refusal);
        }
        if !self.is_decided() && self.carrier.is_some() {
            world
                .network
                .reset(self.side, self.channel(), refusal.reason, world.now);
        }
        self.void(refusal);
    }

    /// The carrier is gone, and its stream with it. Says whether anything is left: what the session does not know yet
    /// begins anew on the next carrier, if it comes.
    pub(crate) fn carrier_lost(&mut self) -> bool {
        self.carrier = None;
        self.prelude = Some(Prelude::default());
        self.id.is_some() || self.is_decided()
    }

    /// The session is over, and its numbers mean other streams from now on.
    pub(crate) fn session_over(&mut self) {
        self.id = None;
    }

    fn void(&mut self, refusal: &Refusal) {
        self.send_ending.get_or_insert_with(|| Err(refusal.clone()));
        self.receive_ending.get_or_insert_with(|| Err(refusal.clone()));
        self.script.clear();
        self.wake = None;
    }

    /// Acts until the script says to wait.
    pub(crate) fn act(&mut self, world: &mut World) {
        while self.wake.is_some_and(|at| at <= world.now) {
            let Some(step) = self.script.pop_front() else {
                self.wake = None;
                return;
            };
            self.act_once(step, world);
        }
    }

    fn act_once(&mut self, step: Step, world: &mut World) {
        let Some(id) = self.id else { return };
        let (side, channel, now) = (self.side, self.channel(), world.now);
        match step {
            Step::Accept => {
                let accepted = world.session.accept(id);
                if let (Some(bytes), Some(_)) = (accepted, self.carrier) {
                    world.network.send(side, channel, &bytes, now);
                }
            }
            Step::Refuse(reason) => {
                let refusal = Refusal::new(reason, "as the script says");
                let bytes = world.session.refuse(id, &refusal);
                if self.carrier.is_some() {
                    world.network.send(side, channel, &bytes, now);
                    world.network.finish(side, channel, now);
                }
                self.void(&refusal);
            }
            Step::Write(length) => self.write(length, id, world),
            Step::Pause(time) => self.wake = Some(now + time),
            Step::AwaitEnd => {
                if self.receive_ending.is_none() {
                    self.script.push_front(Step::AwaitEnd);
                    self.wake = None;
                }
            }
            Step::Finish => {
                if self.send_ending.is_none() {
                    world.session.finish(id);
                    if self.carrier.is_some() {
                        world.network.finish(side, channel, now);
                    }
                    self.send_ending = Some(Ok(()));
                }
            }
            Step::Vanish => {
                if self.send_ending.is_none() {
                    if self.carrier.is_some() {
                        world.network.finish(side, channel, now);
                    }
                    self.vanished = true;
                    self.send_ending = Some(Err(cut(Reason::Internal)));
                }
            }
            Step::Reset(reason) => self.give_up(&Refusal::new(reason, "as the script says"), world),
        }
    }

    /// Writes what there is room for; the rest waits for more, or for a carrier.
    fn write(&mut self, length: usize, id: StreamId, world: &mut World) {
        if self.send_ending.is_some() || length == 0 {
            return;
        }
        let room = self
            .carrier
            .map(|carrier| (carrier, world.session.room(id, carrier, length, world.now)));
        let Some((carrier, Ok(room @ 1..))) = room else {
            self.script.push_front(Step::Write(length));
            self.wake = None;
            return;
        };
        let bytes = pattern(self.side, self.plan, self.sent, length.min(room));
        world.network.send(self.side, self.channel(), &bytes, world.now);
        self.sent += bytes.len();
        if length > bytes.len() {
            self.script.push_front(Step::Write(length - bytes.len()));
        }
        let noted = world.session.sent(id, carrier, bytes.into(), world.now);
        assert!(noted.is_ok(), "there was room a moment ago");
    }

    fn channel(&self) -> Channel {
        Channel::Stream(self.plan)
    }
}

fn cut(reason: Reason) -> Refusal {
    Refusal::new(reason, "the stream was cut")
}

fn violation(message: String) -> Violation {
    Violation(Refusal::new(Reason::Protocol, message))
}

/// Where the bytes begin anew. A prime, so that what is lost or doubled in pieces of any size shows at once.
const PERIOD: usize = 65_521;

/// Each direction of each stream has bytes of its own, so that none can pass for another.
fn pattern(sender: Side, plan: usize, at: usize, length: usize) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let noise = |at: usize| (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[2];
        (0..PERIOD).map(noise).collect()
    });
    let stream = plan * 2 + usize::from(sender == Side::Edge);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let from = (at + bytes.len() + stream * 8191) % PERIOD;
        let to = PERIOD.min(from + length - bytes.len());
        bytes.extend_from_slice(&NOISE[from..to]);
    }
    bytes
}
