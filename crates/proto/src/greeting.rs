//! The first words on a carrier, before it is any session's: who is there, and which session goes on.
//!
//! The edge speaks first. The gateway answers once it has heard, because its answer says whether it still has the session
//! that the edge would like to continue.

use bytes::Bytes;
use tunnel_model::Refusal;

use crate::{Control, FrameReader, Hello, MAX_CONTROL_FRAME, Violation};

/// Reads the peer's hello from the control stream of a new carrier.
#[derive(Debug)]
pub struct Greeting(FrameReader);

/// What the peer said first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeted {
    /// Its hello, and what came behind it on the control stream.
    Hello {
        /// The hello.
        hello: Hello,
        /// For the session.
        rest: Bytes,
    },
    /// It turns us away.
    GoAway {
        /// Why.
        refusal: Refusal,
        /// When to come back at the earliest.
        retry_after: Option<std::time::Duration>,
    },
}

impl Default for Greeting {
    fn default() -> Self {
        Self(FrameReader::new(MAX_CONTROL_FRAME))
    }
}

impl Greeting {
    /// Takes what arrived next on the control stream. Nothing more is to be pushed once the peer has spoken: that is the
    /// session's.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    /// What the peer said, once that is whole. Kinds that only a newer peer knows are passed over.
    ///
    /// # Errors
    /// It said something else first.
    pub fn poll(&mut self) -> Result<Option<Greeted>, Violation> {
        let malformed = |e: &dyn std::fmt::Display| Violation::protocol(format!("control stream: {e}"));
        while let Some(frame) = self.0.next_frame().map_err(|e| malformed(&e))? {
            match Control::decode(&frame).map_err(|e| malformed(&e))? {
                Some(Control::Hello(hello)) => {
                    let rest = std::mem::replace(&mut self.0, FrameReader::new(MAX_CONTROL_FRAME)).into_rest();
                    return Ok(Some(Greeted::Hello { hello, rest }));
                }
                Some(Control::GoAway { refusal, retry_after }) => {
                    return Ok(Some(Greeted::GoAway { refusal, retry_after }));
                }
                Some(_) => return Err(Violation::protocol("no hello came first")),
                None => {}
            }
        }
        Ok(None)
    }
}
