//! The one task that owns a connection.
//!
//! yamux has neither priorities nor a bound on what it takes over for sending, so it is given no more than the socket takes
//! in a moment, stream by stream in the order of [`Ready`](super::ready::Ready). What the peers tell each other beside the streams goes
//! before everything else, and nothing else goes together with it: so a message that was written before the end of a
//! stream is read before that end, although they are on different streams of yamux.

mod farewell;
mod messages;

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use futures_util::Stream as _;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};
use tunnel_model::{Reason, Refusal};
use yamux::Mode;

use self::messages::Messages;
use super::{
    Limits,
    connection::Connection,
    error::{cut, io_refusal, silent},
    lane::Lane,
    limits::MAX_OPENED,
    message::{Message, Reader},
    meter::Meter,
    shared::{Opening, Peer, Shared, Unclaimed},
    wire::{SharedWire, Verdict, Wire},
};

/// Streams that somebody asked for and that are not opened yet.
const MAX_OPENINGS: usize = 64;
/// Messages that wait because the peer does not read them, in bytes.
const MAX_MESSAGES: usize = 64 * 1024;

pub(super) struct Actor {
    shared: Arc<Shared>,
    limits: Limits,
    wire: SharedWire,
    yamux: yamux::Connection<SharedWire>,
    mode: Mode,
    lanes: HashMap<u32, Served>,
    openings: mpsc::Receiver<Opening>,
    /// Who waits for the peer to take streams that were opened before.
    opening: Option<Opening>,
    messages: Messages,
    /// Streams of the peer that count against what it may have.
    theirs: u32,
    /// Streams of the peer that have ended since it heard how many more it may have.
    owed: u32,
    /// Streams of the peer that were not taken; if they were dropped, yamux would send frames that nobody counts.
    refused: Vec<yamux::Stream>,
    /// Frames that yamux was given.
    frames: u64,
    idle: Pin<Box<Sleep>>,
}

/// A stream, and what wakes it.
struct Served {
    lane: Arc<Lane>,
    waker: Waker,
}

/// Makes a connection of a socket whose handshake is through. The future moves it and is to be run until it ends.
pub(super) fn start(
    tcp: TcpStream,
    tls: rustls::Connection,
    peer: Peer,
    limits: &Limits,
) -> Result<(Connection, impl Future<Output = ()> + use<>), Refusal> {
    let mode = match &tls {
        rustls::Connection::Client(_) => Mode::Client,
        rustls::Connection::Server(_) => Mode::Server,
    };
    let tcp = Arc::new(tcp);
    let (sender, openings) = mpsc::channel(MAX_OPENINGS);
    let shared = Arc::new(Shared::new(&tcp, peer, Limits::FIRST_STREAMS as usize, sender));
    let wire = Wire::new(
        tcp,
        tls,
        Arc::clone(&shared.traffic),
        Meter::new(first_stream(other(mode))),
    );
    let wire = SharedWire::new(wire);
    let mut yamux = yamux::Connection::new(wire.clone(), limits.yamux(), mode);
    let outgoing = match yamux.poll_new_outbound(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(stream)) => stream,
        _ => return Err(Refusal::new(Reason::Internal, "yamux opens no stream")),
    };
    let mut messages = Messages {
        outgoing,
        incoming: None,
        waiting: BytesMut::new(),
        fence: false,
        reader: Reader::default(),
    };
    messages.say(&Message::Credit(
        limits.max_streams.saturating_sub(Limits::FIRST_STREAMS),
    ));
    let actor = Actor {
        limits: limits.clone(),
        wire,
        yamux,
        mode,
        lanes: HashMap::new(),
        openings,
        opening: None,
        messages,
        theirs: 0,
        owed: 0,
        refused: Vec::new(),
        frames: 0,
        idle: Box::pin(sleep(limits.idle_timeout)),
        shared: Arc::clone(&shared),
    };
    Ok((Connection::new(shared), actor.run()))
}

/// The stream that the messages of a side are on.
fn first_stream(side: Mode) -> u32 {
    match side {
        Mode::Client => 1,
        Mode::Server => 2,
    }
}

fn other(side: Mode) -> Mode {
    match side {
        Mode::Client => Mode::Server,
        Mode::Server => Mode::Client,
    }
}

/// What came of an attempt to send.
enum Fed {
    Something,
    /// Nothing wants to be sent, or there is no room.
    Nothing,
    /// What was handed over before must be on its way first, or the peer has no room for messages.
    NotYet,
}

/// How a connection comes to its end.
enum End {
    /// There is nobody to tell.
    Lost(Refusal),
    /// The peer is told.
    Farewell(Refusal),
}

fn violation(what: &str) -> End {
    End::Farewell(Refusal::new(Reason::Protocol, what))
}

impl Actor {
    async fn run(mut self) {
        let end = match poll_fn(|cx| self.poll_run(cx)).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let (refusal, farewell) = match end {
            End::Lost(refusal) => (refusal, false),
            End::Farewell(refusal) => (refusal, true),
        };
        self.shared.end(refusal.clone());
        self.shared.forget_offers();
        self.openings.close();
        for served in self.lanes.values() {
            served.lane.wake_all();
        }
        if farewell {
            self.take_leave(&refusal).await;
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, End>> {
        self.shared.ready.task.register(cx.waker());
        loop {
            self.wire.lock().begin_round();
            self.receive(cx)?;
            self.hear()?;
            if let Some(reason) = self.shared.reason() {
                return Poll::Ready(Err(End::Farewell(reason.clone())));
            }
            self.open(cx)?;
            let fed = self.feed();
            if self.messages.waiting.len() > MAX_MESSAGES {
                return Poll::Ready(Err(violation("the peer does not read its messages")));
            }
            let held_back = self.wire.lock().room() == 0;
            let flushed = self.wire.lock().poll_flush(cx);
            if let Poll::Ready(Err(error)) = flushed {
                return Poll::Ready(Err(self.lost(io_refusal(&error))));
            }
            let more = match fed {
                Fed::Something => true,
                // While the socket is full, it says when there is room.
                Fed::Nothing | Fed::NotYet if held_back => flushed.is_ready(),
                Fed::Nothing => !self.shared.ready.is_empty(),
                // yamux wakes the task when it can go on.
                Fed::NotYet => false,
            };
            if !more {
                break;
            }
            // One connection must not keep a thread to itself.
            ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
        }
        self.poll_idle(cx)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, End>> {
        loop {
            ready!(self.idle.as_mut().poll(cx));
            let due = self.wire.lock().last_heard + self.limits.idle_timeout;
            if due <= Instant::now() {
                return Poll::Ready(Err(End::Lost(silent())));
            }
            self.idle.as_mut().reset(due);
        }
    }

    /// Has yamux send what it was given and take what has arrived, and wakes those who read it.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.take_in(cx)?;
        for stream in self.shared.ready.take_arrived() {
            if let Some(served) = self.lanes.get(&stream) {
                served.lane.wake_reader();
            }
        }
        Ok(())
    }

    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let next = self.yamux.poll_next_inbound(cx);
            let acknowledged = self.wire.lock().meter.acknowledged();
            for stream in acknowledged {
                if let Some(served) = self.lanes.get(&stream) {
                    served.lane.peer_took();
                }
            }
            if let Some(Verdict::Violation(refusal)) = &self.wire.lock().verdict {
                return Err(End::Farewell(refusal.clone()));
            }
            match next {
                Poll::Ready(Some(Ok(stream))) => self.take(stream)?,
                Poll::Ready(Some(Err(error))) => {
                    return Err(self.lost(Refusal::new(Reason::CarrierLost, error.to_string())));
                }
                Poll::Ready(None) => return Err(self.lost(cut())),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// The connection is no more; a farewell may have come before its end.
    fn lost(&mut self, otherwise: Refusal) -> End {
        match self.hear() {
            Err(End::Lost(farewell)) => End::Lost(farewell),
            _ => End::Lost(self.why(otherwise)),
        }
    }

    /// Why the connection broke, as the wire knows it, or else this.
    fn why(&self, otherwise: Refusal) -> Refusal {
        match &self.wire.lock().verdict {
            Some(Verdict::Lost(refusal) | Verdict::Violation(refusal)) => refusal.clone(),
            None => otherwise,
        }
    }

    /// A stream that the peer opened.
    fn take(&mut self, stream: yamux::Stream) -> Result<(), End> {
        if self.messages.incoming.is_none() {
            if stream.id().val() != first_stream(other(self.mode)) {
                self.refused.push(stream);
                return Err(violation("the peer's first stream is not that of its messages"));
            }
            self.messages.incoming = Some(stream);
            return Ok(());
        }
        if self.theirs >= self.limits.max_streams {
            self.refused.push(stream);
            return Err(violation("the peer opened more streams than it may"));
        }
        self.theirs += 1;
        let lane = self.add(stream, true);
        self.shared.offer(lane);
        Ok(())
    }

    fn add(&mut self, stream: yamux::Stream, inbound: bool) -> Arc<Lane> {
        let id = stream.id().val();
        let place = self.shared.ready.place(id);
        let waker = Waker::from(Arc::clone(&place));
        let arrival = Waker::from(self.shared.ready.arrival(id));
        let lane = Arc::new(Lane::new(stream, place, arrival, inbound));
        let served = Served {
            lane: Arc::clone(&lane),
            waker,
        };
        self.lanes.insert(id, served);
        lane
    }

    /// Reads the peer's messages.
    fn hear(&mut self) -> Result<(), End> {
        // They arrive in this task, which looks whenever something has arrived.
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(incoming) = &mut self.messages.incoming {
            match Pin::new(incoming).poll_next(&mut cx) {
                Poll::Ready(Some(Ok(packet))) => self.messages.reader.push(packet.as_ref()),
                Poll::Ready(None | Some(Err(_))) => return Err(violation("the peer ended the stream of its messages")),
                Poll::Pending => return Ok(()),
            }
            loop {
                match self.messages.reader.next_message() {
                    Ok(Some(message)) => self.heard(message)?,
                    Ok(None) => break,
                    Err(error) => return Err(violation(&error.to_string())),
                }
            }
        }
        Ok(())
    }

    fn heard(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Credit(streams) => {
                // Beyond what yamux has room for, more would be of no use.
                let ours = self.lanes.len() + self.shared.permits.available_permits();
                let room = MAX_OPENED.saturating_sub(ours);
                let more = usize::try_from(streams).unwrap_or(usize::MAX).min(room);
                if !self.shared.permits.is_closed() {
                    self.shared.permits.add_permits(more);
                }
            }
            // A stream that is not there came to its end here before the peer knew.
            Message::Reset(stream, reason) => {
                if let Some(served) = self.lanes.get(&stream) {
                    served.lane.peer_reset(reason);
                }
            }
            Message::Stop(stream, reason) => {
                if let Some(served) = self.lanes.get(&stream) {
                    served.lane.peer_stopped(reason);
                }
            }
            Message::Goodbye(refusal) => return Err(End::Lost(refusal)),
        }
        Ok(())
    }

    /// Opens the streams that somebody asked for.
    fn open(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.opening.is_none() {
                match self.openings.poll_recv(cx) {
                    Poll::Ready(Some(opening)) => self.opening = Some(opening),
                    Poll::Ready(None) | Poll::Pending => return Ok(()),
                }
            }
            // Pending while the peer has not taken the 256 that were opened last; it wakes us.
            let stream = match self.yamux.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => stream,
                Poll::Ready(Err(error)) => {
                    return Err(self.lost(Refusal::new(Reason::Internal, error.to_string())));
                }
                Poll::Pending => return Ok(()),
            };
            let lane = self.add(stream, false);
            if let Some(opening) = self.opening.take() {
                // Whoever has gone meanwhile gives it up.
                let _ = opening.send(Unclaimed::new(lane));
            }
        }
    }

    /// Frames that yamux has not handed to the wire yet.
    fn in_flight(&self) -> u64 {
        self.frames.saturating_sub(self.wire.lock().data_frames())
    }

    /// Gives yamux what it can send now.
    fn feed(&mut self) -> Fed {
        if !self.messages.waiting.is_empty() || self.messages.fence || self.owed > 0 {
            if self.in_flight() > 0 {
                return Fed::NotYet;
            }
            if self.owed > 0 {
                let credit = Message::Credit(std::mem::take(&mut self.owed));
                self.messages.say(&credit);
            }
            self.messages.fence = self.messages.send();
            if self.messages.fence {
                self.frames += 1;
                return Fed::Something;
            }
            if !self.messages.waiting.is_empty() {
                // The peer has given no room for more.
                return Fed::NotYet;
            }
        }
        let room = self.wire.lock().room();
        let mut bytes = 0;
        let mut fed = Fed::Nothing;
        while bytes < room && self.messages.waiting.is_empty() && self.owed == 0 {
            let Some(stream) = self.shared.ready.next() else { break };
            bytes += self.serve(stream, room - bytes);
            fed = Fed::Something;
        }
        fed
    }

    fn serve(&mut self, stream: u32, room: usize) -> usize {
        let Some(Served { lane, waker }) = self.lanes.get(&stream) else {
            return 0;
        };
        let served = lane.serve(&mut Context::from_waker(waker), room);
        let inbound = lane.inbound;
        if served.again {
            lane.place.queue();
        }
        self.frames += served.frames;
        if served.taken {
            self.wire.lock().meter.asked(stream);
        }
        if let Some(reason) = served.stop {
            self.messages.say(&Message::Stop(stream, reason));
        }
        if let Some(reason) = served.reset {
            self.messages.say(&Message::Reset(stream, reason));
        }
        if served.done {
            self.lanes.remove(&stream);
            if inbound {
                self.wire.lock().meter.asked(stream);
                self.theirs -= 1;
                self.owed += 1;
            } else if served.unheard {
                self.shared.permits.add_permits(1);
            }
        }
        served.bytes
    }
}
