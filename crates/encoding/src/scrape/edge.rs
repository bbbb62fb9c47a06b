//! The end beside the target: requests go to it as they were asked, its answers are held until they are whole, and said
//! by their difference.

use std::{future::pending, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::spawn_blocking,
    time::sleep,
};
use tunnel_codec::scrape::{BaseId, Encoder};
use tunnel_model::{Reason, Refusal};

use super::{
    MAX_BODY,
    bases::{Encoders, Key},
    body::Body,
    head::{self, Head},
    wire::{Answer, Ask, RAW},
};
use crate::{Broken, Moved, READ, copy, refusal_of, target_broke, violation};

/// How long a body may pause before what there is of it goes on as it is: a page comes at once, and whoever sends what
/// never ends must not be held.
const PAUSE: Duration = Duration::from_secs(2);

/// The most that is read ahead of the other end's, in bytes.
const AHEAD: usize = 64 << 10;

/// Serves a stream of scrapes to its end; `name` is what callers call the target.
///
/// # Errors
/// One of the sides broke: both are to be reset.
pub async fn serve(
    target: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    encoders: &Encoders,
    name: &str,
    moved: &mut Moved,
) -> Result<(), Refusal> {
    let end = End {
        target,
        stream,
        asked: BytesMut::new(),
        said: BytesMut::new(),
        stream_ended: false,
        last_ask: None,
        last_head: None,
        moved,
    };
    end.run(encoders, name).await
}

struct End<'a, T, S> {
    target: &'a mut T,
    stream: &'a mut S,
    /// What came from the stream and was not looked at yet.
    asked: BytesMut,
    /// What came from the target and was not passed on yet.
    said: BytesMut,
    stream_ended: bool,
    last_ask: Option<Bytes>,
    last_head: Option<Head>,
    moved: &'a mut Moved,
}

/// A whole answer.
struct Page {
    head: Head,
    body: Vec<u8>,
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: AsyncRead + AsyncWrite + Unpin> End<'_, T, S> {
    async fn run(mut self, encoders: &Encoders, name: &str) -> Result<(), Refusal> {
        loop {
            let Some((head, base)) = self.next_ask().await? else {
                return self.raw().await;
            };
            let key = Key::new("", name, &head);
            let known = encoders.0.get(&key);
            // What cannot be held should at least come as small as the target makes it.
            let request = if known.is_large() {
                head
            } else {
                head::without_encodings(&head)
            };
            self.target.write_all(&request).await.map_err(|e| target_broke(&e))?;
            self.target.flush().await.map_err(|e| target_broke(&e))?;
            self.moved.to_target += request.len() as u64;
            let Some(page) = self.answer(|| known.set_large()).await? else {
                return self.raw().await;
            };
            let Page { head, body } = page;
            let message = if head.status == 200 {
                let coder = std::sync::Arc::clone(&known);
                let said = blocking(move || {
                    let mut coder = coder.coder();
                    let message = coder.encode(&body, base);
                    (message, coder.memory())
                });
                let (message, memory) = said.await?;
                encoders.0.note(&key, memory);
                message
            } else {
                // An answer that says what is wrong is no base for the next.
                by_itself(&body)
            };
            let message = message.map_err(|error| Refusal::new(Reason::Internal, error.to_string()))?;
            let answer = Answer::write(&head, &message, &mut self.last_head);
            self.stream.write_all(&answer).await.map_err(|e| refusal_of(&e))?;
            self.stream.flush().await.map_err(|e| refusal_of(&e))?;
        }
    }

    /// The next request; nothing if there is none, or the target says something unasked.
    async fn next_ask(&mut self) -> Result<Option<(Bytes, Option<BaseId>)>, Refusal> {
        loop {
            if !self.said.is_empty() {
                return Ok(None);
            }
            // What is raw is left for whoever copies it.
            if self.asked.first() == Some(&RAW) {
                return Ok(None);
            }
            if let Some(Ask::Scrape { head, base }) = Ask::read(&mut self.asked, &mut self.last_ask)? {
                return Ok(Some((head, base)));
            }
            if self.stream_ended {
                return Ok(None);
            }
            if self.asked.is_empty() {
                // A connection may be idle for long.
                self.asked = BytesMut::new();
                self.said = BytesMut::new();
            }
            self.asked.reserve(1024);
            self.said.reserve(1024);
            tokio::select! {
                read = self.stream.read_buf(&mut self.asked) => {
                    self.stream_ended = read.map_err(|e| refusal_of(&e))? == 0;
                }
                read = self.target.read_buf(&mut self.said) => {
                    if read.map_err(|e| target_broke(&e))? == 0 {
                        return Ok(None);
                    }
                    self.moved.from_target += self.said.len() as u64;
                }
            }
        }
    }

    /// The answer that the target gives; nothing if it is none that can be held, or has ended, with what there is of it in
    /// `said`.
    async fn answer(&mut self, is_large: impl Fn()) -> Result<Option<Page>, Refusal> {
        let mut found: Option<(Head, usize, Body)> = None;
        loop {
            if found.is_none() {
                found = match Head::answer(&self.said) {
                    Ok(head) => head.map(|(head, len, framing)| (head, len, Body::new(framing, MAX_BODY))),
                    Err(_) => return Ok(None),
                };
            }
            if let Some((head, len, body)) = &mut found {
                let rest = self.said.get(*len..).unwrap_or_default();
                match body.end(rest) {
                    Err(_) => {
                        is_large();
                        return Ok(None);
                    }
                    Ok(Some(end)) => {
                        let whole = self.said.split_to(*len + end);
                        let body = body.content(whole.get(*len..).unwrap_or_default());
                        return Ok(Some(Page {
                            head: head.clone(),
                            body,
                        }));
                    }
                    Ok(None) => {}
                }
            }
            self.said.reserve(READ);
            let paused = async {
                match found {
                    Some(_) => sleep(PAUSE).await,
                    None => pending().await,
                }
            };
            let listening = !self.stream_ended && self.asked.len() < AHEAD;
            tokio::select! {
                read = self.target.read_buf(&mut self.said) => {
                    let read = read.map_err(|e| target_broke(&e))?;
                    if read == 0 {
                        return Ok(None);
                    }
                    self.moved.from_target += read as u64;
                }
                read = self.stream.read_buf(&mut self.asked), if listening => {
                    self.stream_ended = read.map_err(|e| refusal_of(&e))? == 0;
                }
                () = paused => return Ok(None),
            }
        }
    }

    /// Passes on whatever comes, as it is, to the ends of both directions.
    async fn raw(mut self) -> Result<(), Refusal> {
        let (mut from_stream, mut to_stream) = tokio::io::split(self.stream);
        let (mut from_target, mut to_target) = tokio::io::split(self.target);
        let Moved {
            from_target: got,
            to_target: put,
        } = self.moved;
        let down = async {
            let mut first = vec![RAW];
            first.extend_from_slice(&self.said);
            to_stream.write_all(&first).await.map_err(|e| refusal_of(&e))?;
            to_stream.flush().await.map_err(|e| refusal_of(&e))?;
            drop(first);
            copy(&mut from_target, &mut to_stream, got)
                .await
                .map_err(|broken| match broken {
                    Broken::From(error) => target_broke(&error),
                    Broken::To(error) => refusal_of(&error),
                })
        };
        let up = async {
            loop {
                match Ask::read(&mut self.asked, &mut self.last_ask)? {
                    // It was sent before it was known that there is nothing to ask any more.
                    Some(Ask::Scrape { head, .. }) => {
                        to_target.write_all(&head).await.map_err(|e| target_broke(&e))?;
                        *put += head.len() as u64;
                    }
                    Some(Ask::Raw) => break,
                    None if self.stream_ended && self.asked.is_empty() => break,
                    None if self.stream_ended => return Err(violation("an ask that breaks off")),
                    None => {
                        self.asked.reserve(1024);
                        let read = from_stream.read_buf(&mut self.asked).await;
                        self.stream_ended = read.map_err(|e| refusal_of(&e))? == 0;
                    }
                }
            }
            to_target.write_all(&self.asked).await.map_err(|e| target_broke(&e))?;
            *put += self.asked.len() as u64;
            if self.stream_ended {
                return to_target.shutdown().await.map_err(|e| target_broke(&e));
            }
            copy(&mut from_stream, &mut to_target, put)
                .await
                .map_err(|broken| match broken {
                    Broken::From(error) => refusal_of(&error),
                    Broken::To(error) => target_broke(&error),
                })
        };
        tokio::try_join!(up, down).map(|_| ())
    }
}

fn by_itself(body: &[u8]) -> Result<Vec<u8>, tunnel_codec::scrape::EncodeError> {
    <Encoder as super::bases::Coder>::fresh().encode(body, None)
}

/// What takes so long that no stream may wait for another's.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work)
        .await
        .map_err(|error| Refusal::new(Reason::Internal, format!("a scrape was not worked out: {error}")))
}
