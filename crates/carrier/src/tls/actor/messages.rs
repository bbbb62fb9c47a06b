//! What waits to be said beside the streams.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, BytesMut};
use futures_util::io::AsyncWrite as _;

use crate::tls::message::{Message, Reader};

/// Messages between the two ends.
pub(super) struct Messages {
    pub(super) outgoing: yamux::Stream,
    pub(super) incoming: Option<yamux::Stream>,
    /// To be sent.
    pub(super) waiting: BytesMut,
    /// Some were handed over; they must be on their way before anything else is.
    pub(super) fence: bool,
    pub(super) reader: Reader,
}

impl Messages {
    pub(super) fn say(&mut self, message: &Message) {
        message.encode(&mut self.waiting);
    }

    /// Hands as much to yamux as it takes in one frame; says whether that was anything.
    pub(super) fn send(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        // Room for more arrives in this task, which looks whenever something has arrived.
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.outgoing).poll_write(&mut cx, &self.waiting) {
            Poll::Ready(Ok(written)) => {
                self.waiting.advance(written);
                true
            }
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }
}
