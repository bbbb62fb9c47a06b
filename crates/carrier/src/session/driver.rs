//! The one task that moves a session: the control stream, new streams, time.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use quinn::{RecvStream, SendStream};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tunnel_model::{Offer, Reason, Refusal};
use tunnel_proto::{Event, Negotiated, Prelude, Side};

use super::{
    Answer, Incoming, Rejected,
    flow::read_datagrams,
    shared::Shared,
    stream::{Guard, Stream},
};
use crate::quic;

/// Something the peer said that concerns the session as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The edge says anew what it offers.
    Offer(Offer),
    /// The peer wants no new streams, and ends the session when those that run have ended.
    GoAway {
        /// Why.
        refusal: Refusal,
        /// When to come back at the earliest.
        retry_after: Option<Duration>,
    },
}

/// How long a peer may take over the first frame of a stream that it opened.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Streams that the peer opened and nobody has looked at yet.
const MAX_UNSEEN: usize = 64;
/// Notices that nobody has looked at yet; more of them make the session wait.
const MAX_NOTICES: usize = 16;
/// The session's own messages go before all data.
const CONTROL_PRIORITY: i32 = 1000;

/// Moves a session until it ends.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    control_send: SendStream,
    control_recv: RecvStream,
    /// What the session wants written next on the control stream.
    writing: Option<Bytes>,
    /// When the session is to be looked at; kept, because most steps change nothing about it.
    alarm: Pin<Box<Sleep>>,
    headers: JoinSet<()>,
    /// How many headers are read at once; each that never ends holds what it has sent.
    most_headers: usize,
    /// The one task that hands out datagrams; it goes with the driver.
    datagrams: JoinSet<()>,
    incoming: mpsc::Sender<Incoming>,
    notices: mpsc::Sender<Notice>,
    /// After either side's goaway, no stream is left here.
    drained: bool,
    /// The peer said goaway.
    peer_left: bool,
}

/// What can happen next.
enum Step {
    Control(Option<Bytes>),
    Written(usize),
    Opened(SendStream, RecvStream),
    /// Another task called the session, a header was read, or time has passed.
    Look,
    Lost(Refusal),
}

impl Driver {
    pub(super) async fn start(
        shared: Arc<Shared>,
        side: Side,
    ) -> Result<(Self, mpsc::Receiver<Incoming>, mpsc::Receiver<Notice>), Refusal> {
        shared.with(|state| state.session.handle_carrier_up(now()));
        let opened = match side {
            Side::Edge => shared.connection.open_bi().await,
            Side::Gateway => shared.connection.accept_bi().await,
        };
        let (control_send, control_recv) = opened.map_err(|e| shared.explain(&e))?;
        // The stream is new, so its priority can be set.
        let _ = control_send.set_priority(CONTROL_PRIORITY);
        let (incoming, incoming_receiver) = mpsc::channel(MAX_UNSEEN);
        let (notices, notice_receiver) = mpsc::channel(MAX_NOTICES);
        let driver = Self {
            shared,
            control_send,
            control_recv,
            writing: None,
            alarm: Box::pin(sleep_until(Instant::now())),
            headers: JoinSet::new(),
            most_headers: match side {
                Side::Gateway => 16,
                Side::Edge => 256,
            },
            datagrams: JoinSet::new(),
            incoming,
            notices,
            drained: false,
            peer_left: false,
        };
        Ok((driver, incoming_receiver, notice_receiver))
    }

    /// Runs until the peers have agreed.
    pub(super) async fn greet(mut self) -> Result<(Self, Negotiated), Rejected> {
        loop {
            let step = self.next_step(false).await;
            let outcome = self.handle(step);
            while let Some(event) = self.shared.with_quietly(|state| state.session.poll_event()) {
                match event {
                    Event::Ready(negotiated) => return Ok((self, negotiated)),
                    Event::Failed(refusal) => return Err(self.end(refusal).into()),
                    Event::GoAway { refusal, retry_after } => {
                        return Err(Rejected {
                            refusal: self.end(refusal),
                            retry_after,
                        });
                    }
                    _ => {}
                }
            }
            outcome.map_err(|refusal| self.end(refusal))?;
        }
    }

    /// Runs until the session ends, and says why it did.
    pub async fn run(mut self) -> Refusal {
        self.datagrams.spawn(read_datagrams(Arc::clone(&self.shared)));
        loop {
            let step = self.next_step(true).await;
            let outcome = match self.handle(step) {
                Ok(()) => self.handle_events().await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = outcome {
                return self.end(refusal);
            }
        }
    }

    async fn next_step(&mut self, greeted: bool) -> Step {
        let (writing, deadline) = self.shared.with_quietly(|state| {
            let writing = self.writing.take().or_else(|| state.session.poll_transmit());
            (writing, state.session.poll_timeout())
        });
        self.writing = writing;
        let deadline = deadline.map(Instant::from_std);
        if let Some(due) = deadline
            && due != self.alarm.deadline()
        {
            self.alarm.as_mut().reset(due);
        }
        let has_bytes = self.writing.is_some();
        let chunk = self.writing.as_mut().map(std::slice::from_mut).unwrap_or_default();
        let shared = &self.shared;
        tokio::select! {
            read = self.control_recv.read_chunk(MAX_CONTROL_READ, true) => match read {
                Ok(chunk) => Step::Control(chunk.map(|c| c.bytes)),
                Err(_) => Step::Lost(lost(shared).await),
            },
            written = self.control_send.write_chunks(chunk), if has_bytes => match written {
                Ok(written) => Step::Written(written.chunks),
                Err(_) => Step::Lost(lost(shared).await),
            },
            opened = shared.connection.accept_bi(), if greeted && self.headers.len() < self.most_headers => match opened {
                Ok((send, recv)) => Step::Opened(send, recv),
                Err(error) => Step::Lost(shared.explain(&error)),
            },
            () = shared.changed.notified() => Step::Look,
            () = &mut self.alarm, if deadline.is_some() => Step::Look,
            Some(_) = self.headers.join_next() => Step::Look,
        }
    }

    fn handle(&mut self, step: Step) -> Result<(), Refusal> {
        match step {
            Step::Control(Some(bytes)) => self
                .shared
                .with_quietly(|state| state.session.handle_control(&bytes, now()))
                .map_err(|violation| violation.0),
            Step::Control(None) => Err(Refusal::new(Reason::Protocol, "the peer ended its control stream")),
            Step::Written(chunks) => {
                if chunks > 0 {
                    self.writing = None;
                }
                Ok(())
            }
            Step::Opened(send, recv) => {
                let header = read_header(Arc::clone(&self.shared), send, recv, self.incoming.clone());
                let mut header = Box::pin(header);
                // It comes with the stream, unless a packet was lost.
                if (&mut header).now_or_never().is_none() {
                    self.headers.spawn(header);
                }
                Ok(())
            }
            Step::Look => {
                self.shared.with_quietly(|state| {
                    if state.session.poll_timeout().is_some_and(|due| due <= now()) {
                        state.session.handle_timeout(now());
                    }
                });
                Ok(())
            }
            Step::Lost(refusal) => Err(refusal),
        }
    }

    /// Whoever is told to go answers with a goaway of its own once all that was sent to it has arrived. So whoever left
    /// first can close without losing anything.
    async fn handle_events(&mut self) -> Result<(), Refusal> {
        loop {
            let (drained, peer_left) = (&mut self.drained, &mut self.peer_left);
            let notice = self.shared.with_quietly(|state| {
                while let Some(event) = state.session.poll_event() {
                    match event {
                        Event::Pong { number, rtt } => {
                            if let Some(waiting) = state.pongs.remove(&number) {
                                let _ = waiting.send(rtt);
                            }
                        }
                        Event::Received { id, end } => {
                            if let Some(waiting) = state.ends.remove(&id) {
                                let _ = waiting.send(end);
                            }
                        }
                        Event::Broken { id, refusal } => {
                            // Its carrier stream was reset as well, which wakes whoever reads or writes it.
                            if let Some(waiting) = state.ends.remove(&id) {
                                let _ = waiting.send(Err(refusal));
                            }
                        }
                        Event::Offer(offer) => return Ok(Some(Notice::Offer(offer))),
                        Event::GoAway { refusal, retry_after } => {
                            *peer_left = true;
                            if state.leaving.is_none() {
                                return Ok(Some(Notice::GoAway { refusal, retry_after }));
                            }
                        }
                        Event::Drained => {
                            *drained = true;
                            if state.leaving.is_none() {
                                let refusal = Refusal::new(Reason::Draining, "no stream is left");
                                state.session.drain(refusal, None);
                            }
                        }
                        Event::Failed(refusal) => return Err(refusal),
                        Event::Ready(_) => {}
                    }
                }
                match &state.leaving {
                    Some(refusal) if *drained && *peer_left => Err(refusal.clone()),
                    _ => Ok(None),
                }
            })?;
            match notice {
                // An owner that looks at no notices has let go of the session; the streams go on.
                Some(notice) => drop(self.notices.send(notice).await),
                None => return Ok(()),
            }
        }
    }

    /// Closes the connection and tells every stream.
    fn end(&mut self, refusal: Refusal) -> Refusal {
        quic::close(&self.shared.connection, &refusal);
        self.shared.with(|state| {
            let refusal = state.failure.get_or_insert(refusal).clone();
            state.session.handle_carrier_lost(&refusal);
            state.pongs.clear();
            for (_, waiting) in state.ends.drain() {
                let _ = waiting.send(Err(refusal.clone()));
            }
            refusal
        })
    }
}

/// How much of the control stream is taken at once, in bytes.
const MAX_CONTROL_READ: usize = 16 * 1024;

/// A stream of the connection broke; the connection will say why in a moment.
async fn lost(shared: &Shared) -> Refusal {
    let broken = Refusal::new(Reason::Protocol, "the peer broke its control stream");
    match shared.connection.close_reason() {
        Some(error) => shared.explain(&error),
        None => broken,
    }
}

async fn read_header(shared: Arc<Shared>, send: SendStream, recv: RecvStream, incoming: mpsc::Sender<Incoming>) {
    let mut stream = Stream::unnamed(Arc::clone(&shared), send, recv);
    let Ok(Ok((frame, rest))) = timeout(HEADER_DEADLINE, stream.read_header(Prelude::default())).await else {
        return;
    };
    match shared.with(|state| state.session.handle_open(&frame)) {
        Ok(tunnel_proto::Incoming::Stream { id, open }) => {
            stream.name(Guard::new(shared, id));
            stream.unread(rest);
            let answer = Answer {
                stream: Box::new(stream),
            };
            // Nobody takes streams any more: dropping it refuses it.
            let open = Box::new(open);
            let _ = incoming.send(Incoming { open, answer }).await;
        }
        Ok(tunnel_proto::Incoming::Refused(reply)) => {
            if stream.write_header(reply).await.is_ok() {
                stream.finish_refused();
            }
        }
        Err(violation) => shared.fail(violation.0),
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
