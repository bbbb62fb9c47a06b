//! The direction that is written.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tunnel_model::{Reason, Refusal};

use super::guard::{Guard, already_ended};
use crate::{
    link::{SendStream, StreamError},
    session::shared::{State, now},
};

/// How much data goes out together with a stream's header, in bytes; a request's head is seldom longer.
const FIRST_DATA: usize = 8 * 1024;
/// How much is taken of a slice at once, in bytes: it is copied, and copied again if there is no room for it.
const MAX_COPY: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Sending {
    /// The carrier's number, and its stream; nothing while there is none.
    link: Option<(u64, SendStream)>,
    /// What goes before all data, and waits for the first of it: one packet carries both.
    header: Bytes,
    pub(super) ended: bool,
}

impl Sending {
    pub(super) fn new(carrier: u64, stream: SendStream, header: Bytes) -> Self {
        Self {
            link: Some((carrier, stream)),
            header,
            ended: false,
        }
    }

    /// Has this go before all data.
    pub(super) fn head_with(&mut self, header: Bytes) {
        self.header = header;
    }

    /// Writes the header, if it is still here.
    pub(super) fn poll_header(&mut self, guard: &Guard, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        while !self.header.is_empty() {
            std::task::ready!(self.poll_give(guard, cx, &mut Bytes::new()))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes some of the data, after the header, and says how much.
    pub(super) fn poll_write(
        &mut self,
        guard: &Guard,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Refusal>> {
        let mut data = Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_COPY)]);
        loop {
            let given = std::task::ready!(self.poll_give(guard, cx, &mut data))?;
            if given > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(given));
            }
        }
    }

    /// Gives the carrier some of the data, after what is left of the header, takes that off its front and says how much it
    /// was.
    fn poll_give(&mut self, guard: &Guard, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, Refusal>> {
        if self.ended {
            return Poll::Ready(Err(already_ended()));
        }
        guard.shared.in_turn(|state| {
            loop {
                let Some((carrier, stream)) = &mut self.link else {
                    std::task::ready!(self.poll_link(guard, state, cx))?;
                    continue;
                };
                let want = match self.header.len() {
                    0 => data.len(),
                    _ => data.len().min(FIRST_DATA),
                };
                let Ok(room) = state.session.room(guard.id, *carrier, want, now()) else {
                    self.link = None;
                    continue;
                };
                if room == 0 && self.header.is_empty() {
                    if want == 0 {
                        return Poll::Ready(Ok(0));
                    }
                    if let Some(port) = guard.port(state) {
                        port.writer = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                let mut chunks = [self.header.clone(), data.slice(..room)];
                let polled = stream.poll_write_chunks(cx, &mut chunks);
                let written = match &polled {
                    Poll::Ready(Ok(written)) => *written,
                    _ => 0,
                };
                let of_header = written.min(self.header.len());
                self.header.advance(of_header);
                let given = data.split_to(written - of_header);
                let count = given.len();
                state.wrote(written);
                if room > 0 {
                    // The carrier is the one that was asked for room a moment ago.
                    let _ = state.session.sent(guard.id, *carrier, given, now());
                }
                match std::task::ready!(polled) {
                    Ok(_) => return Poll::Ready(Ok(count)),
                    Err(StreamError::Broken(refusal)) => return Poll::Ready(Err(refusal)),
                    // Another carrier may have a stream for it, or it is broken and the port knows why.
                    Err(StreamError::Lost) => self.link = None,
                }
            }
        })
    }

    /// Waits for the next carrier's stream.
    fn poll_link(&mut self, guard: &Guard, state: &mut State, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let Some(port) = guard.port(state) else {
            return Poll::Ready(Err(already_ended()));
        };
        if let Some(refusal) = &port.broken {
            return Poll::Ready(Err(refusal.clone()));
        }
        match port.send.take() {
            Some(new) => {
                if new.headed {
                    self.header = Bytes::new();
                }
                self.link = Some((new.carrier, new.stream));
                Poll::Ready(Ok(()))
            }
            None => {
                port.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ends the direction. Where there is no carrier, the next one's stream ends behind what it has to repeat.
    pub(super) fn finish(&mut self, guard: &Guard) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        guard.shared.with(|state| {
            let fresh = guard.port(state).and_then(|port| port.send.take());
            let stream = match fresh {
                Some(new) => Some(new.stream),
                None => self.link.take().map(|(_, stream)| stream),
            };
            // In this order, the task that writes the announcement runs before the one that sends packets, and one packet
            // carries both.
            if let Some(mut stream) = stream {
                stream.finish();
            }
            state.session.finish(guard.id);
        });
    }

    /// Says this and no more, as far as there is a carrier.
    pub(super) async fn write_last(&mut self, bytes: Bytes) {
        self.ended = true;
        if let Some((_, stream)) = &mut self.link
            && stream.write_all_chunks(&mut [bytes]).await.is_ok()
        {
            stream.finish();
        }
    }

    pub(super) fn abort(&mut self, why: Reason) {
        self.ended = true;
        if let Some((_, mut stream)) = self.link.take() {
            stream.reset(why);
        }
    }
}

/// The sending direction of a stream.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(super) sending: &'a mut Sending,
    pub(super) guard: &'a Guard,
}

impl Sender<'_> {
    pub(crate) async fn write_chunk(&mut self, mut chunk: Bytes) -> Result<(), Refusal> {
        while !chunk.is_empty() {
            poll_fn(|cx| self.sending.poll_give(self.guard, cx, &mut chunk)).await?;
        }
        Ok(())
    }

    pub(crate) async fn finish(&mut self) -> Result<(), Refusal> {
        poll_fn(|cx| self.sending.poll_header(self.guard, cx)).await?;
        self.sending.finish(self.guard);
        Ok(())
    }
}
