//! What the driver, the handles and the streams of a session share.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Event, Session, StreamId};

use super::{flow::Routes, pace::Pace};
use crate::{
    link::{Connection, RecvStream, SendStream},
    quic::Grant,
};

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The connection of now, for whoever must not wait for the state.
    pub(super) connection: ArcSwapOption<Connection>,
    /// Where datagrams go.
    pub(super) routes: Routes,
    /// The session may be over, or wait for something else, which concerns whoever waits while there is no carrier.
    pub(super) changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    /// What streams wait for, by id; of each that has a handle.
    pub(super) ports: HashMap<StreamId, Port>,
    /// Who waits for a pong.
    pub(super) pongs: HashMap<u64, oneshot::Sender<Duration>>,
    /// What the driver is to know.
    pub(super) news: VecDeque<Event>,
    /// Wakes the driver of now: the session may have something to send, to say or to wait for.
    bell: Arc<Notify>,
    /// Why the session ended, by whoever knew first.
    pub(super) failure: Option<Refusal>,
    /// Why there is no carrier.
    pub(super) down: Option<Refusal>,
    /// Why we gave the carrier up, which its own end does not know.
    pub(super) given_up: Option<Refusal>,
    /// Why we asked the peer to go.
    pub(super) leaving: Option<Refusal>,
    /// How many streams may have data waiting here.
    granted: usize,
    /// What they may have of the connection's window.
    grant: Option<Grant>,
    /// What is known of the link.
    pace: Option<Pace>,
}

/// Where a stream's handle waits for what happens to it elsewhere.
#[derive(Debug, Default)]
pub(super) struct Port {
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// What the next carrier has for it.
    pub(super) send: Option<NewSend>,
    pub(super) recv: Option<NewRecv>,
    /// How the direction that is read has ended, once that is known.
    pub(super) received: Option<Result<(), Refusal>>,
    pub(super) broken: Option<Refusal>,
}

/// A stream of a carrier, for one direction of a stream that goes on.
#[derive(Debug)]
pub(super) struct NewSend {
    pub(super) carrier: u64,
    pub(super) stream: SendStream,
    /// Header or reply stand on it already.
    pub(super) headed: bool,
}

/// Likewise for the direction that is read.
#[derive(Debug)]
pub(super) struct NewRecv {
    pub(super) carrier: u64,
    pub(super) stream: RecvStream,
    /// Data that came with the header.
    pub(super) first: Bytes,
}

impl Port {
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl State {
    /// Tells streams what happened to them, and keeps the rest for the driver.
    fn settle(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Pong { number, rtt } => {
                    if let Some(waiting) = self.pongs.remove(&number) {
                        let _ = waiting.send(rtt);
                    }
                }
                Event::Room(id) => {
                    if let Some(port) = self.ports.get_mut(&id) {
                        port.wake_writer();
                    }
                }
                Event::Received { id, end } => {
                    if let Some(port) = self.ports.get_mut(&id) {
                        port.received = Some(end);
                        port.wake_reader();
                    }
                }
                Event::Broken { id, refusal } => {
                    if let Some(port) = self.ports.get_mut(&id) {
                        port.broken = Some(refusal);
                        port.wake_reader();
                        port.wake_writer();
                    }
                }
                other => self.news.push_back(other),
            }
        }
    }

    /// The carrier is gone: what it had for streams is of no use.
    fn unplug(&mut self) {
        (self.grant, self.pace) = (None, None);
        self.pongs.clear();
        for port in self.ports.values_mut() {
            (port.send, port.recv) = (None, None);
        }
    }

    /// Keeps the session in step with the link.
    pub(super) fn follow_link(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.follow(&mut self.session, now());
        }
    }

    /// So many bytes were given to the carrier.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.wrote(bytes, now());
        }
    }

    /// Takes a datagram that is about the link.
    pub(super) fn handle_timing(&mut self, packet: &[u8], at: std::time::Instant) {
        if let Some(pace) = &mut self.pace {
            pace.handle_timing(packet, at);
        }
    }

    fn regrant(&mut self, connection: &Connection) {
        if let (Connection::Quic(connection), Some(grant)) = (connection, &mut self.grant) {
            grant.set_open(self.granted, connection);
        }
    }
}

impl Shared {
    pub(super) fn new(session: Session) -> Self {
        Self {
            state: Mutex::new(State {
                session,
                ports: HashMap::new(),
                pongs: HashMap::new(),
                news: VecDeque::new(),
                bell: Arc::default(),
                failure: None,
                down: None,
                given_up: None,
                leaving: None,
                granted: 0,
                grant: None,
                pace: None,
            }),
            connection: ArcSwapOption::empty(),
            routes: Routes::default(),
            changed: Notify::new(),
        }
    }

    /// Calls the machine, and has the driver look if something came of it. Most calls bring nothing: streams are opened
    /// and accepted without a word on the control stream.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        let (result, news) = self.with_quietly(|state| {
            let result = call(state);
            let news = state.session.has_news();
            state.settle();
            if news {
                state.bell.notify_one();
            }
            (result, news)
        });
        if news {
            self.changed.notify_one();
        }
        result
    }

    /// Calls the machine for the driver of this carrier. One that was superseded may still run for a moment; it must neither take
    /// what is meant for its successor nor bring what belongs to another carrier's control stream.
    pub(super) fn drive<T>(&self, number: u64, call: impl FnOnce(&mut State) -> T) -> Result<T, Refusal> {
        self.with_quietly(|state| {
            let current = state.session.carrier() == number;
            current.then(|| call(state)).ok_or_else(superseded)
        })
    }

    /// Calls the machine without a word to the driver. Short and without waiting, so that a plain mutex does. Data is given to
    /// carriers and taken from them in here, so that no change of carriers comes between that and noting it.
    pub(super) fn with_quietly<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        call(&mut state)
    }

    /// Calls the machine for a stream that wants to send. Where streams wait for their turns, one's turn may move those of
    /// others; where not, this is as quiet as it was.
    pub(super) fn in_turn<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        self.with_quietly(|state| {
            let waited = state.session.pace().is_some();
            state.follow_link();
            if !waited && state.session.pace().is_none() {
                return call(state);
            }
            let result = call(state);
            let news = state.session.has_news();
            state.settle();
            if news {
                state.bell.notify_one();
            }
            result
        })
    }

    /// The next thing that the driver is to know.
    pub(super) fn next_news(&self, number: u64) -> Result<Option<Event>, Refusal> {
        self.drive(number, |state| {
            state.settle();
            state.news.pop_front()
        })
    }

    /// The session goes on over this connection, whose driver listens to this bell; says over which it went until now.
    pub(super) fn plug_in(
        &self,
        connection: &Connection,
        number: u64,
        resume_for: Duration,
        bell: &Arc<Notify>,
    ) -> Result<Option<Arc<Connection>>, Refusal> {
        self.with(|state| {
            state.session.handle_carrier_up(number, resume_for, now())?;
            state.unplug();
            state.news.clear();
            // Whoever drove until now is to stop.
            std::mem::replace(&mut state.bell, Arc::clone(bell)).notify_one();
            (state.down, state.given_up, state.leaving) = (None, None, None);
            state.grant = match connection {
                Connection::Quic(quic) => Some(Grant::new(quic)),
                Connection::Tls(_) => None,
            };
            state.regrant(connection);
            state.pace = Some(Pace::of(connection.clone(), now()));
            Ok(self.connection.swap(Some(Arc::new(connection.clone()))))
        })
    }

    /// The carrier of this number is gone. The session outlives it, or not.
    pub(super) fn carrier_lost(&self, number: u64, refusal: &Refusal) -> Refusal {
        self.with(|state| {
            if let Some(failure) = &state.failure {
                return failure.clone();
            }
            // Another may have taken its place already.
            if state.session.carrier() != number {
                return refusal.clone();
            }
            let refusal = &state.given_up.take().unwrap_or_else(|| refusal.clone());
            if !state.session.is_waiting() {
                self.connection.store(None);
                if tunnel_proto::outlives(refusal.reason) {
                    state.session.handle_carrier_lost(refusal, now());
                } else {
                    state.session.close(refusal);
                }
                if state.session.is_closed() {
                    state.failure = Some(refusal.clone());
                }
                state.down = Some(refusal.clone());
                state.unplug();
            }
            refusal.clone()
        })
    }

    /// A stream is there that may have data waiting.
    pub(super) fn stream_opened(&self) {
        self.with_quietly(|state| {
            state.granted += 1;
            if let Some(connection) = &*self.connection.load() {
                state.regrant(connection);
            }
        });
    }

    /// It is no more.
    pub(super) fn stream_closed(&self) {
        self.with_quietly(|state| {
            state.granted -= 1;
            if let Some(connection) = &*self.connection.load() {
                state.regrant(connection);
            }
        });
    }

    /// Ends the session.
    pub(super) fn fail(&self, refusal: &Refusal) {
        // The peer hears it as long as there is a connection.
        if let Some(connection) = self.connection.swap(None) {
            connection.close(refusal);
        }
        self.with(|state| {
            state.failure.get_or_insert_with(|| refusal.clone());
            state.session.close(refusal);
            state.unplug();
            state.bell.notify_one();
        });
        self.changed.notify_one();
    }

    /// Ends a session that has waited for another carrier long enough; else says until when it waits, if it does.
    pub(super) fn expire(&self) -> Option<std::time::Instant> {
        self.with(|state| {
            let due = state.session.poll_timeout().filter(|_| state.session.is_waiting());
            if due.is_some_and(|due| due <= now()) {
                state.session.handle_timeout(now());
            }
            due
        })
    }

    /// Why the session is over, if it is.
    pub(super) fn over(&self) -> Option<Refusal> {
        self.with_quietly(|state| {
            let closed = state.session.is_closed();
            let known = || state.failure.clone().or_else(|| state.down.clone());
            closed.then(|| known().unwrap_or_else(|| Refusal::new(Reason::CarrierLost, "the session is over")))
        })
    }

    /// Why nothing can be had of the session now.
    pub(super) fn why_down(&self) -> Refusal {
        let known = self.with_quietly(|state| state.failure.clone().or_else(|| state.down.clone()));
        known
            .or_else(|| {
                self.connection
                    .load()
                    .as_ref()
                    .and_then(|connection| connection.close_reason())
            })
            .unwrap_or_else(|| Refusal::new(Reason::CarrierLost, "the session is not connected"))
    }
}

/// What a driver ends with that has a successor, and its connection.
pub(super) fn superseded() -> Refusal {
    Refusal::new(Reason::CarrierLost, "another connection takes over")
}

pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
