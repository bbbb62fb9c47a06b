//! The side that wants bodies.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::Message;
use super::snapshot::Snapshot;
use super::{BaseId, Corrupt, Limits};

/// A message gives no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its base is not here (any more): ask again, with no base.
    #[error("the body that it refers to is not here")]
    UnknownBase,
    /// It was not made by an encoder, or not arrive as it was sent.
    #[error("the message is corrupt: {0}")]
    Corrupt(#[from] Corrupt),
}

/// Reads what an [`super::Encoder`] says of one target.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Latest last.
    had: VecDeque<Snapshot>,
}

impl Decoder {
    /// Has nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            had: VecDeque::new(),
        }
    }

    /// The body that the next should be said by; goes to the encoder with the request.
    pub fn base(&self) -> Option<BaseId> {
        self.had.back().map(|had| had.id)
    }

    /// The body that a message says.
    ///
    /// # Errors
    ///
    /// Nothing changes then; [`DecodeError`] says what to do.
    pub fn decode(&mut self, message: &[u8]) -> Result<Bytes, DecodeError> {
        let message = Message::read(message)?;
        let base = match message.base {
            None => None,
            Some(short) => {
                let had = self.had.iter().rev().find(|had| had.id.short() == short);
                Some(had.ok_or(DecodeError::UnknownBase)?)
            }
        };
        let snapshot = message.content.apply(base, self.limits.max_body)?;
        if snapshot.id.short() != message.check {
            return Err(Corrupt::Check.into());
        }
        let body = snapshot.body.clone();
        self.had.retain(|had| had.id != snapshot.id);
        while self.had.len() >= self.limits.history.max(1) {
            self.had.pop_front();
        }
        self.had.push_back(snapshot);
        Ok(body)
    }

    /// The bytes that are held between two bodies.
    pub fn memory(&self) -> usize {
        self.had.iter().map(Snapshot::memory).sum()
    }
}
