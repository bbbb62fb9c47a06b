//! The one task that moves a session over a carrier: the control stream, new streams, time.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tunnel_model::{LinkLoss, Offer, Reason, Refusal};
use tunnel_proto::{Attach, Event, Prelude, Side, StreamId};

use super::{
    Answer, Incoming,
    flow::read_datagrams,
    greeting::{Carrier, MAX_CONTROL_READ, broken, why_lost},
    priority,
    shared::{NewRecv, NewSend, Shared, State, now, superseded},
    stream::{Guard, Stream},
};
use crate::link::{Connection, RecvStream, SendStream, StreamError};

/// Something the peer said that concerns the session as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The edge says anew what it offers.
    Offer(Offer),
    /// The edge tells losses of its link; [`super::Tunnel::journaled`] is the answer, once they are kept.
    Journal(Vec<LinkLoss>),
    /// The gateway keeps what the journal says up to this number.
    Journaled(u64),
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
pub(super) const MAX_UNSEEN: usize = 64;
/// Notices that nobody has looked at yet; more of them make the session wait.
pub(super) const MAX_NOTICES: usize = 16;

/// Moves a session over one carrier, until that is gone.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    /// The session may have something for us.
    bell: Arc<Notify>,
    connection: Connection,
    number: u64,
    control_send: SendStream,
    control_recv: RecvStream,
    /// What the session wants written next on the control stream.
    writing: Option<Bytes>,
    /// When the session is to be looked at; kept, because most steps change nothing about it.
    alarm: Pin<Box<Sleep>>,
    /// Streams that go on over this carrier; they end with the driver.
    streams: JoinSet<()>,
    /// Headers that are read; they end with it too.
    headers: JoinSet<Option<Resumed>>,
    /// How many headers are read at once; each that never ends holds what it has sent.
    most_headers: usize,
    /// The one task that hands out datagrams; it goes with the driver.
    datagrams: JoinSet<()>,
    incoming: mpsc::Sender<Incoming>,
    notices: mpsc::Sender<Box<Notice>>,
    /// After either side's goaway, no stream is left here.
    drained: bool,
    /// The peer said goaway.
    peer_left: bool,
}

/// Counts the bytes of one carrier.
#[derive(Debug, Clone)]
pub struct Meter(Connection);

impl Meter {
    /// Bytes of payload sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.0.stats().sent_bytes
    }

    /// Bytes of payload received so far.
    pub fn received_bytes(&self) -> u64 {
        self.0.stats().received_bytes
    }
}

/// What can happen next.
enum Step {
    Control(Option<Bytes>),
    Written,
    Opened(SendStream, RecvStream),
    /// A header was read.
    Read(Option<Resumed>),
    /// Another task called the session, or time has passed.
    Look,
    Lost(Refusal),
}

impl Driver {
    /// Has the session go on over this carrier; its streams wake up as soon as this runs.
    pub(super) fn new(
        shared: Arc<Shared>,
        carrier: Carrier,
        incoming: mpsc::Sender<Incoming>,
        notices: mpsc::Sender<Box<Notice>>,
    ) -> Result<Self, Refusal> {
        let Carrier {
            connection,
            control_send,
            control_recv,
            number,
            rest,
            negotiated,
        } = carrier;
        let bell = Arc::default();
        let plugged = shared.plug_in(&connection, number, negotiated.resume_for, &bell);
        let before = plugged.inspect_err(|refusal| connection.close(refusal))?;
        if let Some(before) = before {
            before.close(&superseded());
        }
        let most_headers = shared.with_quietly(|state| match state.session.side() {
            Side::Gateway => 16,
            Side::Edge => 256,
        });
        let driver = Self {
            shared,
            bell,
            connection,
            number,
            control_send,
            control_recv,
            writing: None,
            alarm: Box::pin(sleep_until(Instant::now())),
            streams: JoinSet::new(),
            headers: JoinSet::new(),
            most_headers,
            datagrams: JoinSet::new(),
            incoming,
            notices,
            drained: false,
            peer_left: false,
        };
        match driver.hear(&rest) {
            Ok(()) => Ok(driver),
            Err(refusal) => {
                driver.end(&refusal);
                Err(refusal)
            }
        }
    }

    /// What counts the carrier's bytes, also when it is gone.
    pub fn meter(&self) -> Meter {
        Meter(self.connection.clone())
    }

    /// Runs until the carrier is gone, and says why it is. Streams then wait for another, unless the session is over.
    pub async fn run(mut self) -> Refusal {
        let datagrams = read_datagrams(Arc::clone(&self.shared), self.connection.clone(), self.number);
        self.datagrams.spawn(datagrams);
        loop {
            if let Err(refusal) = self.step().await {
                return self.end(&refusal);
            }
        }
    }

    async fn step(&mut self) -> Result<(), Refusal> {
        let step = self.next_step().await?;
        self.handle(step)?;
        self.handle_news().await
    }

    async fn next_step(&mut self) -> Result<Step, Refusal> {
        let (writing, deadline) = self.shared.drive(self.number, |state| {
            let writing = self.writing.take().or_else(|| state.session.poll_transmit());
            (writing, state.session.poll_timeout())
        })?;
        self.writing = writing;
        let deadline = deadline.map(Instant::from_std);
        if let Some(due) = deadline
            && due != self.alarm.deadline()
        {
            self.alarm.as_mut().reset(due);
        }
        let has_bytes = self.writing.is_some();
        let chunk = self.writing.as_mut().map(std::slice::from_mut).unwrap_or_default();
        let Self {
            connection,
            control_send,
            control_recv,
            bell,
            streams,
            headers,
            alarm,
            ..
        } = self;
        let reads_more = headers.len() < self.most_headers;
        let step = tokio::select! {
            read = control_recv.read_chunk(MAX_CONTROL_READ) => match read {
                Ok(bytes) => Step::Control(bytes),
                Err(error) => Step::Lost(control_lost(connection, error)),
            },
            written = std::future::poll_fn(|cx| control_send.poll_write_chunks(cx, chunk)), if has_bytes => match written {
                Ok(_) => Step::Written,
                Err(error) => Step::Lost(control_lost(connection, error)),
            },
            opened = connection.accept_bi(), if reads_more => match opened {
                Ok((send, recv)) => Step::Opened(send, recv),
                Err(refusal) => Step::Lost(refusal),
            },
            () = bell.notified() => Step::Look,
            () = alarm, if deadline.is_some() => Step::Look,
            Some(_) = streams.join_next() => Step::Look,
            Some(read) = headers.join_next() => Step::Read(read.ok().flatten()),
        };
        Ok(step)
    }

    fn hear(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let heard = |state: &mut State| state.session.handle_control(bytes, now());
        self.shared.drive(self.number, heard)?.map_err(|violation| violation.0)
    }

    fn handle(&mut self, step: Step) -> Result<(), Refusal> {
        match step {
            Step::Control(Some(bytes)) => self.hear(&bytes),
            Step::Control(None) => Err(Refusal::new(Reason::Protocol, "the peer ended its control stream")),
            Step::Written => {
                self.writing = self.writing.take().filter(|rest| !rest.is_empty());
                Ok(())
            }
            Step::Opened(send, recv) => {
                let header = read_header(Arc::clone(&self.shared), self.number, send, recv, self.incoming.clone());
                let mut header = Box::pin(header);
                // It comes with the stream, unless a packet was lost.
                match (&mut header).now_or_never() {
                    Some(read) => self.go_on(read),
                    None => drop(self.headers.spawn(header)),
                }
                Ok(())
            }
            Step::Read(read) => {
                self.go_on(read);
                Ok(())
            }
            Step::Look => self.shared.drive(self.number, |state| {
                state.follow_link();
                if state.session.poll_timeout().is_some_and(|due| due <= now()) {
                    state.session.handle_timeout(now());
                }
            }),
            Step::Lost(refusal) => Err(refusal),
        }
    }

    /// Lets a stream go on that the peer has brought over. That takes as long as its reader needs for what is replayed.
    fn go_on(&mut self, resumed: Option<Resumed>) {
        if let Some(resumed) = resumed {
            self.streams
                .spawn(go_on(Arc::clone(&self.shared), self.number, resumed));
        }
    }

    /// Whoever is told to go answers with a goaway of its own once all that was sent to it has arrived. So whoever left
    /// first can close without losing anything.
    async fn handle_news(&mut self) -> Result<(), Refusal> {
        while let Some(event) = self.shared.next_news(self.number)? {
            match event {
                Event::Offer(offer) => self.tell(Notice::Offer(offer)).await,
                Event::Journal(losses) => self.tell(Notice::Journal(losses)).await,
                Event::Journaled(number) => self.tell(Notice::Journaled(number)).await,
                Event::GoAway { refusal, retry_after } => {
                    self.peer_left = true;
                    if self.leaving().is_none() {
                        self.tell(Notice::GoAway { refusal, retry_after }).await;
                    }
                }
                Event::Drained => {
                    self.drained = true;
                    if self.leaving().is_none() {
                        let refusal = Refusal::new(Reason::Draining, "no stream is left");
                        self.shared
                            .drive(self.number, |state| state.session.drain(refusal, None))?;
                    }
                }
                Event::Reattach(id) => {
                    let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
                    self.streams.spawn(reattach(shared, connection, self.number, id));
                }
                Event::Failed(refusal) => return Err(refusal),
                // Streams were told already.
                Event::Pong { .. } | Event::Received { .. } | Event::Broken { .. } | Event::Room(_) => {}
            }
        }
        match self.leaving() {
            Some(refusal) if self.drained && self.peer_left => Err(refusal),
            _ => Ok(()),
        }
    }

    fn leaving(&self) -> Option<Refusal> {
        self.shared.with_quietly(|state| state.leaving.clone())
    }

    async fn tell(&self, notice: Notice) {
        // An owner that looks at no notices has let go of the session; the streams go on.
        let _ = self.notices.send(Box::new(notice)).await;
    }

    /// Closes the connection; the session loses its carrier by it, or is over.
    fn end(&self, refusal: &Refusal) -> Refusal {
        self.connection.close(refusal);
        self.shared.carrier_lost(self.number, refusal)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A driver that is dropped instead of run to its end takes its connection with it.
        let refusal = Refusal::new(Reason::CarrierLost, "the session's task ended");
        self.end(&refusal);
    }
}

fn control_lost(connection: &Connection, error: StreamError) -> Refusal {
    match error {
        StreamError::Broken(_) => broken(),
        StreamError::Lost => why_lost(connection),
    }
}

/// A stream of before, on this carrier.
struct Resumed {
    attach: Attach,
    send: SendStream,
    recv: NewRecv,
}

/// Reads the head of a stream, and hands a new one on.
async fn read_header(
    shared: Arc<Shared>,
    carrier: u64,
    send: SendStream,
    mut recv: RecvStream,
    incoming: mpsc::Sender<Incoming>,
) -> Option<Resumed> {
    let Ok(Some((frame, rest))) = timeout(HEADER_DEADLINE, read_frame(&mut recv)).await else {
        drop_halves(send, recv, Reason::Protocol);
        return None;
    };
    match shared.with(|state| state.session.handle_open(&frame, carrier)) {
        Ok(tunnel_proto::Incoming::Stream { id, open }) => {
            send.set_priority(priority(open.class));
            let guard = Guard::new(shared, id, false);
            let stream = Stream::accepted(guard, carrier, send, recv, rest);
            let answer = Answer {
                stream: Box::new(stream),
            };
            // Nobody takes streams any more: dropping it refuses it.
            let open = Box::new(open);
            let _ = incoming.send(Incoming { open, answer }).await;
        }
        Ok(tunnel_proto::Incoming::Resumed(attach)) => {
            let recv = NewRecv {
                carrier,
                stream: recv,
                first: rest,
            };
            return Some(Resumed { attach, send, recv });
        }
        Ok(tunnel_proto::Incoming::Refused(reply)) => refuse(send, recv, reply).await,
        Err(violation) => {
            drop_halves(send, recv, Reason::Protocol);
            shared.fail(&violation.0);
        }
    }
    None
}

/// The frame at the head of a stream, and what came behind it. `None` if it has none.
async fn read_frame(recv: &mut RecvStream) -> Option<(Bytes, Bytes)> {
    let mut prelude = Prelude::default();
    loop {
        prelude.push(&recv.read_chunk(tunnel_proto::MAX_HEADER_FRAME).await.ok()??);
        match prelude.split().ok()? {
            Ok(split) => return Some(split),
            Err(more) => prelude = more,
        }
    }
}

async fn refuse(mut send: SendStream, mut recv: RecvStream, reply: Bytes) {
    recv.stop(Reason::Cancelled);
    // A peer that is gone needs no answer.
    if send.write_all_chunks(&mut [reply]).await.is_ok() {
        send.finish();
    }
}

fn drop_halves(mut send: SendStream, mut recv: RecvStream, why: Reason) {
    send.reset(why);
    recv.stop(why);
}

/// Opens a stream of the carrier for one that was opened here on an earlier carrier.
async fn reattach(shared: Arc<Shared>, connection: Connection, carrier: u64, id: StreamId) {
    let Ok((send, recv)) = connection.open_bi().await else {
        return;
    };
    let attach = shared.with(|state| {
        let current = state.session.carrier() == carrier;
        current.then(|| state.session.reattach(id)).flatten()
    });
    let Some(attach) = attach else {
        return drop_halves(send, recv, Reason::Cancelled);
    };
    let recv = NewRecv {
        carrier,
        stream: recv,
        first: Bytes::new(),
    };
    go_on(shared, carrier, Resumed { attach, send, recv }).await;
}

/// Sends what the peer does not have, and gives the stream back to its handle. Where there is none any more, both
/// directions have ended here, and only the peer has something to learn.
async fn go_on(shared: Arc<Shared>, carrier: u64, resumed: Resumed) {
    let Resumed { attach, mut send, recv } = resumed;
    let id = attach.id;
    send.set_priority(priority(attach.class));
    shared.with_quietly(|state| {
        // One from an earlier carrier is of the past already.
        if state.session.carrier() == carrier
            && let Some(port) = state.ports.get_mut(&id)
        {
            port.recv = Some(recv);
            port.wake_reader();
        }
    });
    let headed = !attach.head.is_empty();
    let mut chunks: Vec<_> = std::iter::once(attach.head).chain(attach.data).collect();
    if send.write_all_chunks(&mut chunks).await.is_err() {
        // The carrier is gone, which is nothing to this stream, or the peer has broken it, which it says.
        return;
    }
    shared.with_quietly(|state| {
        if state.session.carrier() != carrier {
            return;
        }
        match state.ports.get_mut(&id) {
            Some(port) if !state.session.is_finished(id) => {
                port.send = Some(NewSend {
                    carrier,
                    stream: send,
                    headed,
                });
                port.wake_writer();
            }
            _ => send.finish(),
        }
    });
}
