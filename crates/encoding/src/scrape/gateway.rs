//! The end beside the caller: its requests are asked of the edge, and what the edge says becomes HTTP again.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};
use tunnel_codec::scrape::{DecodeError, Decoder};
use tunnel_model::{Reason, Refusal};

use super::{
    bases::{Bases, Coder, Key, Room},
    edge::blocking,
    flights::{Flights, Page, Turn, follow},
    head::{self, Head},
    wire::{Answer, Ask, RAW},
};
use crate::{Broken, READ, copy, refusal_of, violation};

/// How much of all messages that are not whole yet is held at once, in KiB. Short ones do not count.
const ARRIVING: usize = 64 << 10;

/// Up to this length a message is short, in bytes.
const SHORT: usize = 64 << 10;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By a message of the edge.
    Scraped {
        /// The length of the body, in bytes.
        body: usize,
        /// And of the message that said it.
        message: usize,
    },
    /// By the answer to somebody else's request, of so many bytes.
    Shared(usize),
    /// As it came.
    Raw,
}

/// What a gateway keeps of all targets of all its nodes.
pub struct Scrapes {
    bases: Bases<Decoder>,
    flights: Arc<Flights>,
    arriving: Semaphore,
    served: Box<dyn Fn(Served) + Send + Sync>,
}

impl fmt::Debug for Scrapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrapes")
            .field("bases", &self.bases)
            .finish_non_exhaustive()
    }
}

impl Scrapes {
    /// Nothing yet, and never more than this; an owner is a node. `served` hears of each answer.
    pub fn new(room: Room, served: impl Fn(Served) + Send + Sync + 'static) -> Self {
        Self {
            bases: Bases::new(room),
            flights: Arc::default(),
            arriving: Semaphore::new(ARRIVING),
            served: Box::new(served),
        }
    }
}

/// A stream of scrapes, and whose they are.
pub(crate) struct Conversation<'a, C, S> {
    pub(crate) scrapes: &'a Scrapes,
    pub(crate) node: &'a str,
    pub(crate) target: &'a str,
    pub(crate) caller: &'a mut C,
    pub(crate) stream: &'a mut S,
    /// The edge knows of the stream already.
    pub(crate) is_known: bool,
    pub(crate) state: State,
}

/// What of a conversation is between two messages.
#[derive(Default)]
pub(crate) struct State {
    /// What came from the caller and was not looked at yet.
    asked: BytesMut,
    /// What came from the edge and was not looked at yet.
    said: BytesMut,
    caller_ended: bool,
    last_ask: Option<Bytes>,
    last_head: Option<Head>,
}

/// What the caller wants next.
enum Wish {
    Scrape(Bytes),
    /// Something else, or the edge wants something else.
    Raw,
    /// Nothing: one of the sides is done.
    Nothing,
}

impl<C: AsyncRead + AsyncWrite + Unpin, S: AsyncRead + AsyncWrite + Unpin> Conversation<'_, C, S> {
    /// Goes on to the end of both sides.
    ///
    /// # Errors
    /// The stream broke, or the edge broke the rules.
    pub(crate) async fn run(mut self) -> Result<(), Refusal> {
        loop {
            let head = match self.next_wish().await? {
                Wish::Scrape(head) => head,
                Wish::Raw => {
                    (self.scrapes.served)(Served::Raw);
                    return self.raw().await;
                }
                Wish::Nothing => return self.end().await,
            };
            let key = Key::new(self.node, self.target, &head);
            let page = loop {
                match self.scrapes.flights.turn(&key) {
                    Turn::Follow(landing) => {
                        if let Some(page) = follow(landing).await {
                            (self.scrapes.served)(Served::Shared(page.body.len()));
                            break page;
                        }
                    }
                    Turn::Lead(lead) => match self.scrape(&key, &head).await? {
                        Some(page) => {
                            lead.land(&page);
                            break page;
                        }
                        None if self.state.said.is_empty() => return self.end().await,
                        None => {
                            drop(lead);
                            (self.scrapes.served)(Served::Raw);
                            return self.raw().await;
                        }
                    },
                }
            };
            // A caller that is gone is noticed by whoever reads from it.
            let written = async {
                self.caller.write_all(&page.head).await?;
                self.caller.write_all(&page.body).await?;
                self.caller.flush().await
            };
            if written.await.is_err() || !self.is_known && head::is_last(&head) {
                return Ok(());
            }
            // A stream that only ever waits for others' answers has to be there for a request of its own, and its edge
            // does not wait for ever to hear of it.
            self.is_known = true;
        }
    }

    async fn next_wish(&mut self) -> Result<Wish, Refusal> {
        let state = &mut self.state;
        loop {
            match state.said.first() {
                None => {}
                Some(&RAW) => return Ok(Wish::Raw),
                Some(_) => return Err(violation("an answer that nobody asked for")),
            }
            match head::request(&state.asked) {
                head::Request::Scrape { len, head } => {
                    let _ = state.asked.split_to(len);
                    return Ok(Wish::Scrape(head));
                }
                head::Request::Other => return Ok(Wish::Raw),
                head::Request::Unclear if state.caller_ended && state.asked.is_empty() && !self.is_known => {
                    return Ok(Wish::Nothing);
                }
                head::Request::Unclear if state.caller_ended => return Ok(Wish::Raw),
                head::Request::Unclear => {}
            }
            if state.asked.is_empty() {
                // A connection may be idle for long.
                state.asked = BytesMut::new();
                state.said = BytesMut::new();
            }
            state.asked.reserve(1024);
            state.said.reserve(1024);
            tokio::select! {
                read = self.caller.read_buf(&mut state.asked) => {
                    // Nothing but the end can be read of a caller: it is a pipe of this process.
                    state.caller_ended = read.unwrap_or(0) == 0;
                }
                read = self.stream.read_buf(&mut state.said), if self.is_known => {
                    if read.map_err(|e| refusal_of(&e))? == 0 {
                        return Ok(Wish::Nothing);
                    }
                }
            }
        }
    }

    /// The answer to a scrape of one's own; nothing if it comes as it is, or with what there is of it in `said`, or not.
    async fn scrape(&mut self, key: &Key, head: &Bytes) -> Result<Option<Arc<Page>>, Refusal> {
        let base = self.scrapes.bases.get(key);
        let id = base.coder().base();
        let ask = Ask::write(head, id, &mut self.state.last_ask);
        self.is_known = true;
        self.stream.write_all(&ask).await.map_err(|e| refusal_of(&e))?;
        self.stream.flush().await.map_err(|e| refusal_of(&e))?;
        let (head, length) = loop {
            if self.state.said.first() == Some(&RAW) {
                return Ok(None);
            }
            let said = Answer::read(&mut self.state.said, &mut self.state.last_head)?;
            if let Some(Answer::Scrape { head, message }) = said {
                break (head, message);
            }
            if !self.read_more().await? {
                return match self.state.said.is_empty() {
                    true => Ok(None),
                    false => Err(violation("an answer that breaks off")),
                };
            }
        };
        let _arriving = if length > SHORT {
            let blocks = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
            let room = self.scrapes.arriving.try_acquire_many(blocks);
            let full = "too many long answers arrive at once; try again later";
            Some(room.map_err(|_| Refusal::new(Reason::Overloaded, full))?)
        } else {
            None
        };
        while self.state.said.len() < length {
            if !self.read_more().await? {
                return Err(violation("an answer that breaks off"));
            }
        }
        let message = self.state.said.split_to(length);
        let body = if head.status == 200 {
            let decoded = blocking(move || {
                let mut coder = base.coder();
                let body = coder.decode(&message);
                (body, coder.memory())
            });
            let (body, memory) = decoded.await?;
            self.scrapes.bases.note(key, memory);
            body
        } else {
            <Decoder as Coder>::fresh().decode(&message)
        };
        let body = body.map_err(|error: DecodeError| {
            // The next is asked for by no base.
            self.scrapes.bases.drop(key);
            violation(error)
        })?;
        (self.scrapes.served)(Served::Scraped {
            body: body.len(),
            message: length,
        });
        let head = head.before(body.len());
        Ok(Some(Arc::new(Page { head, body })))
    }

    async fn read_more(&mut self) -> Result<bool, Refusal> {
        self.state.said.reserve(READ);
        let read = self.stream.read_buf(&mut self.state.said).await;
        Ok(read.map_err(|e| refusal_of(&e))? > 0)
    }

    async fn end(self) -> Result<(), Refusal> {
        if self.is_known {
            self.stream.shutdown().await.map_err(|e| refusal_of(&e))?;
        }
        Ok(())
    }

    /// Passes on whatever comes, as it is, to the ends of both directions.
    async fn raw(self) -> Result<(), Refusal> {
        let mut state = self.state;
        let (mut from_stream, mut to_stream) = tokio::io::split(self.stream);
        let (mut from_caller, mut to_caller) = tokio::io::split(self.caller);
        let gone = |_| Refusal::new(Reason::Cancelled, "the caller went away");
        let up = async {
            let first = [&[RAW], &state.asked[..]].concat();
            to_stream.write_all(&first).await.map_err(|e| refusal_of(&e))?;
            to_stream.flush().await.map_err(|e| refusal_of(&e))?;
            if state.caller_ended {
                return to_stream.shutdown().await.map_err(|e| refusal_of(&e));
            }
            copy(&mut from_caller, &mut to_stream, &mut 0).await.map_err(broken)
        };
        let down = async {
            if state.said.is_empty()
                && from_stream
                    .read_buf(&mut state.said)
                    .await
                    .map_err(|e| refusal_of(&e))?
                    == 0
            {
                return to_caller.shutdown().await.map_err(gone);
            }
            match state.said.split_first() {
                Some((&RAW, rest)) => to_caller.write_all(rest).await.map_err(gone)?,
                _ => return Err(violation("an answer that nobody asked for")),
            }
            copy(&mut from_stream, &mut to_caller, &mut 0).await.map_err(broken)
        };
        tokio::try_join!(up, down).map(|_| ())
    }
}

fn broken(broken: Broken) -> Refusal {
    match broken {
        Broken::From(error) | Broken::To(error) => refusal_of(&error),
    }
}
