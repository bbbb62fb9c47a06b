//! A stream's place on the session's books, and what errors of its carrier stream mean.

use std::{fmt, sync::Arc};

use quinn::{ReadError, VarInt, WriteError};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::StreamId;

use crate::{quic::reason, session::shared::Shared};

/// Makes a stream void unless both its directions have ended. Streams whose header has not been read have no id yet.
#[derive(Debug)]
pub(in crate::session) struct Guard {
    pub(super) shared: Arc<Shared>,
    pub(super) id: Option<StreamId>,
    /// Data of the stream may wait here beside that of all others.
    pub(super) granted: bool,
}

impl Guard {
    pub(in crate::session) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id: Some(id),
            granted: false,
        }
    }

    pub(super) fn reset(&self, refusal: &Refusal) {
        if let Some(id) = self.id {
            self.shared.with(|state| {
                state.ends.remove(&id);
                state.session.reset(id, refusal);
            });
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.granted {
            self.shared.stream_closed();
        }
    }
}

impl Guard {
    pub(super) fn read_failed(&self, error: &ReadError) -> Refusal {
        match error {
            ReadError::Reset(code) => by_peer(*code),
            ReadError::ConnectionLost(error) => self.shared.explain(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => already_ended(),
        }
    }

    pub(super) fn write_failed(&self, error: &WriteError) -> Refusal {
        match error {
            WriteError::Stopped(code) => by_peer(*code),
            WriteError::ConnectionLost(error) => self.shared.explain(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => already_ended(),
        }
    }
}

fn by_peer(code: VarInt) -> Refusal {
    Refusal::new(reason(code), "the other end broke the stream")
}

pub(super) fn malformed(what: impl fmt::Display) -> Refusal {
    Refusal::new(Reason::Protocol, what.to_string())
}

pub(super) fn already_ended() -> Refusal {
    Refusal::new(Reason::Cancelled, "the stream has ended already")
}
