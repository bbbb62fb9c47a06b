//! How a connection takes leave of its peer.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::timeout;
use tunnel_model::Refusal;

use super::Actor;
use crate::tls::message::Message;

/// How long a farewell may take; a peer that does not read is left without.
const FAREWELL: Duration = Duration::from_secs(5);

impl Actor {
    /// Says goodbye, and waits until the peer has gone too. One that does not listen any more is not waited for.
    pub(super) async fn take_leave(&mut self, refusal: &Refusal) {
        let _ = timeout(FAREWELL, self.say_goodbye(refusal)).await;
    }

    async fn say_goodbye(&mut self, refusal: &Refusal) {
        self.messages.say(&Message::Goodbye(refusal.clone()));
        let limit = self.limits.max_streams as usize;
        let said = poll_fn(|cx| {
            loop {
                self.wire.lock().begin_round();
                while let Poll::Ready(next) = self.yamux.poll_next_inbound(cx) {
                    match next {
                        Some(Ok(stream)) if self.refused.len() < limit => self.refused.push(stream),
                        _ => return Poll::Ready(false),
                    }
                }
                if self.in_flight() == 0 {
                    if self.messages.waiting.is_empty() {
                        return Poll::Ready(true);
                    }
                    if self.messages.send() {
                        self.frames += 1;
                        continue;
                    }
                }
                let held_back = self.wire.lock().room() == 0;
                if ready!(self.wire.lock().poll_flush(cx)).is_err() {
                    return Poll::Ready(false);
                }
                if !held_back {
                    // The peer gives no room for messages, or yamux wakes the task when it can go on.
                    return Poll::Pending;
                }
            }
        });
        if !said.await {
            return;
        }
        self.wire.lock().end();
        let flushed = poll_fn(|cx| self.wire.lock().poll_flush(cx)).await;
        if flushed.is_ok() {
            self.wire.lock().shut_down();
            poll_fn(|cx| self.wire.lock().poll_ignore(cx)).await;
        }
    }
}
