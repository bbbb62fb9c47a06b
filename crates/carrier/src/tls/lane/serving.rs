//! What the task that owns the connection does for a stream: it hands to yamux what waits, frame by frame.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Buf as _;
use futures_util::io::AsyncWrite as _;
use tunnel_model::Reason;

use super::{QUEUE, Receiving, Sending, State};
use crate::tls::limits::MAX_BODY;

/// What is left of a stream's queue when its writer is woken, in bytes: not for each frame that goes.
const ENOUGH: usize = QUEUE / 2;
/// Pieces below this size are gathered into one frame, in bytes.
const SMALL: usize = 2048;

/// What came of serving a lane.
#[derive(Debug, Default)]
pub(in crate::tls) struct Served {
    /// Frames that were handed to yamux.
    pub(in crate::tls) frames: u64,
    /// Bytes in them.
    pub(in crate::tls) bytes: usize,
    /// To be told to the peer.
    pub(in crate::tls) reset: Option<Reason>,
    /// Likewise.
    pub(in crate::tls) stop: Option<Reason>,
    /// The peer knows now that the stream is taken.
    pub(in crate::tls) taken: bool,
    /// There is more to do.
    pub(in crate::tls) again: bool,
    /// Both directions have come to their ends.
    pub(in crate::tls) done: bool,
    /// The peer never heard of it.
    pub(in crate::tls) unheard: bool,
}

impl State {
    pub(super) fn serve(&mut self, cx: &mut Context<'_>, room: usize) -> Served {
        let mut served = Served::default();
        if std::mem::take(&mut self.unclear) && self.receiving == Receiving::Open {
            self.receiving = Receiving::Ended;
            self.wake(false);
        }
        if self.begun {
            served.stop = self.stop.take();
        }
        if self.want && !self.taken {
            // An empty frame carries the flag that says so.
            self.write(cx, &[], &mut served);
        }
        match self.sending {
            Sending::Open | Sending::Finishing => while served.bytes < room && self.send(cx, &mut served) {},
            Sending::Resetting(reason) => {
                self.clear();
                served.reset = Some(reason).filter(|_| self.begun);
                self.sending = Sending::Told;
                // The end must come after what was told.
                served.again = true;
            }
            Sending::Told => self.close(cx, Sending::Reset, &mut served),
            // Nobody reads, so that nobody can take the end for a good one.
            Sending::Stopped(_) if !self.yamux.is_write_closed() => self.close(cx, self.sending, &mut served),
            Sending::Stopped(_) | Sending::Finished | Sending::Reset => {}
        }
        let sent = match self.sending {
            Sending::Finished | Sending::Reset => true,
            Sending::Stopped(_) => self.yamux.is_write_closed() || self.yamux.is_closed(),
            _ => false,
        };
        served.done = sent && self.receiving != Receiving::Open;
        served.unheard = !self.begun;
        served.again |= self.begun && self.stop.is_some();
        served
    }

    /// Hands one frame on, or the end; says whether there is more to do.
    fn send(&mut self, cx: &mut Context<'_>, served: &mut Served) -> bool {
        served.again = false;
        if self.queue.is_empty() && !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        let mut written = 0;
        match self.queue.front() {
            None => {
                if self.sending == Sending::Finishing {
                    self.close(cx, Sending::Finished, served);
                }
                return false;
            }
            Some(first) if first.len() < SMALL && self.queue.len() > 1 => {
                let gathered = self.gather();
                written += self.write(cx, &gathered, served);
            }
            Some(first) => {
                let first = first.clone();
                written += self.write(cx, &first, served);
            }
        }
        if written == 0 {
            return false;
        }
        self.queued -= written;
        served.bytes += written;
        while let Some(first) = self.queue.front_mut()
            && first.len() <= written
        {
            written -= first.len();
            self.queue.pop_front();
        }
        if let Some(first) = self.queue.front_mut() {
            first.advance(written);
        }
        if self.queued <= ENOUGH
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
        served.again = self.queued > 0 || self.sending == Sending::Finishing;
        served.again
    }

    fn gather(&self) -> Vec<u8> {
        let mut gathered = Vec::with_capacity(MAX_BODY);
        for chunk in &self.queue {
            let part = chunk.len().min(MAX_BODY - gathered.len());
            gathered.extend_from_slice(&chunk[..part]);
        }
        gathered
    }

    /// Writes one frame; says how much of the bytes it took, none if there is no room.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8], served: &mut Served) -> usize {
        let limit = self.before_taken.map_or(MAX_BODY, |left| left as usize);
        let bytes = &bytes[..bytes.len().min(limit)];
        if bytes.is_empty() && limit == 0 {
            return 0;
        }
        match Pin::new(&mut self.yamux).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => {
                if let Some(left) = &mut self.before_taken {
                    *left -= u32::try_from(written).unwrap_or(0);
                }
                self.begun = true;
                self.framed(served);
                written
            }
            // The peer broke both directions without a word.
            Poll::Ready(Err(_)) => {
                self.sending = Sending::Stopped(Reason::Cancelled);
                self.clear();
                self.wake(false);
                0
            }
            Poll::Pending => 0,
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, then: Sending, served: &mut Served) {
        if !self.begun && then == Sending::Finished {
            // The end alone would not open the stream.
            self.write(cx, &[], served);
            if !self.begun {
                return;
            }
        }
        // One that the peer broke is closed without a frame.
        let framed = !self.yamux.is_closed();
        if Pin::new(&mut self.yamux).poll_close(cx).is_pending() {
            return;
        }
        if framed {
            self.framed(served);
        }
        self.sending = then;
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// yamux has a frame of the stream to send, which says that it is open, or taken.
    fn framed(&mut self, served: &mut Served) {
        served.frames += 1;
        served.taken |= !std::mem::replace(&mut self.taken, true);
    }
}
