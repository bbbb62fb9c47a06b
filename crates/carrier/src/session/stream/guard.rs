//! A stream's place on the session's books.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tunnel_model::{Reason, Refusal};
use tunnel_proto::StreamId;

use crate::session::shared::{Port, Shared, State};

/// A stream that somebody has a handle of, until it is dropped.
#[derive(Debug)]
pub(in crate::session) struct Guard {
    pub(super) shared: Arc<Shared>,
    pub(super) id: StreamId,
    opener: bool,
    /// Data of the stream may wait here beside that of all others.
    granted: bool,
}

impl Guard {
    pub(in crate::session) fn new(shared: Arc<Shared>, id: StreamId, opener: bool) -> Self {
        shared.with_quietly(|state| {
            state.ports.insert(id, Port::default());
        });
        Self {
            shared,
            id,
            opener,
            granted: false,
        }
    }

    pub(super) fn grant(&mut self) {
        if !self.granted {
            self.granted = true;
            self.shared.stream_opened();
        }
    }

    pub(super) fn reset(&self, refusal: &Refusal) {
        self.shared.with(|state| state.session.reset(self.id, refusal));
    }

    /// Whether the stream was opened here.
    pub(super) fn is_opener(&self) -> bool {
        self.opener
    }

    /// What waits at the stream's port. `None` once it is closed.
    pub(super) fn port<'a>(&self, state: &'a mut State) -> Option<&'a mut Port> {
        state.ports.get_mut(&self.id)
    }

    /// Why the stream is void, once it is.
    pub(super) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<Refusal> {
        self.shared.with_quietly(|state| match self.port(state) {
            Some(Port {
                broken: Some(refusal), ..
            }) => Poll::Ready(refusal.clone()),
            Some(port) => {
                port.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(already_ended()),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.with_quietly(|state| state.ports.remove(&self.id));
        if self.granted {
            self.shared.stream_closed();
        }
    }
}

pub(super) fn malformed(what: impl fmt::Display) -> Refusal {
    Refusal::new(Reason::Protocol, what.to_string())
}

pub(super) fn already_ended() -> Refusal {
    Refusal::new(Reason::Cancelled, "the stream has ended already")
}
