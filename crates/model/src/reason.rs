//! Why something was refused: one vocabulary for the wire, for people and for programs.

use std::fmt;

/// Who can mend a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller asked for something it cannot have.
    Caller,
    /// The node, its link or what runs on it.
    Node,
    /// The gateway.
    Gateway,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $code:literal, $fault:ident;)*) => {
        /// The stable codes. The number stands on the wire and is never given a second meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name = $wire,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Who can mend it.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// The reason with this wire number; what a newer peer may say that we do not know reads as
            /// [`Reason::Internal`].
            pub const fn from_wire(number: u32) -> Self {
                match number {
                    $($wire => Self::$name,)*
                    _ => Self::Internal,
                }
            }
        }
    };
}

reasons! {
    /// Something broke on our side; the log knows more.
    Internal = 1, "internal", Gateway;
    /// No node has this name.
    UnknownNode = 2, "unknown-node", Caller;
    /// The node is enrolled and not connected.
    NodeOffline = 3, "node-offline", Node;
    /// No rule lets this caller reach this target.
    Denied = 4, "denied", Caller;
    /// The edge's own configuration does not let anybody reach this target.
    NotAllowed = 5, "not-allowed-by-edge", Caller;
    /// The edge declares no service of this name.
    UnknownService = 6, "unknown-service", Caller;
    /// Nothing listens at the target.
    TargetRefused = 7, "target-refused", Node;
    /// The target did not answer in time.
    TargetTimeout = 8, "target-timeout", Node;
    /// There is no way from the edge to the target.
    TargetUnreachable = 9, "target-unreachable", Node;
    /// The target broke the connection.
    TargetReset = 10, "target-reset", Node;
    /// Too many streams, or too little memory.
    Overloaded = 11, "overloaded", Gateway;
    /// The peer is about to stop and takes no new streams.
    Draining = 12, "draining", Gateway;
    /// The link broke under the stream.
    CarrierLost = 13, "carrier-lost", Node;
    /// Whoever opened the stream went away.
    Cancelled = 14, "cancelled", Caller;
    /// The peer broke the protocol.
    Protocol = 15, "protocol-error", Gateway;
    /// A newer connection of the same node took over.
    Superseded = 16, "superseded", Node;
    /// The node was revoked.
    Revoked = 17, "revoked", Node;
    /// The peers share no version of the protocol.
    UnsupportedVersion = 18, "unsupported-version", Gateway;
    /// The credential is missing or wrong.
    Unauthenticated = 19, "unauthenticated", Caller;
    /// The peer sent nothing for too long.
    IdleTimeout = 20, "idle-timeout", Node;
    /// The request could not be understood.
    BadRequest = 21, "bad-request", Caller;
    /// This caller has as much as it may, or asks too often.
    RateLimited = 22, "rate-limited", Caller;
    /// Too many wrong credentials came from the caller's address.
    TooManyFailures = 23, "too-many-failures", Caller;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason, and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{reason}]")]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// What failed, why, and what to do, in one line.
    pub message: String,
}

impl Refusal {
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 512;

    /// A refusal; a message beyond [`Self::MAX_MESSAGE`] is cut and control characters become spaces, so that a peer's
    /// words can stand in a log line or a header.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > Self::MAX_MESSAGE {
            let end = (0..=Self::MAX_MESSAGE).rev().find(|&i| message.is_char_boundary(i));
            message.truncate(end.unwrap_or(0));
            // What was cut off must not stay allocated: refusals may be kept by the thousand.
            message.shrink_to_fit();
        }
        if message.contains(char::is_control) {
            message = message.replace(char::is_control, " ");
        }
        Self { reason, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_code_and_survives_the_wire() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason as u32), reason);
        }
        assert_eq!(Reason::from_wire(u32::MAX), Reason::Internal);
    }

    #[test]
    fn a_peers_message_can_neither_grow_nor_break_a_line() {
        let refusal = Refusal::new(Reason::Internal, "ü".repeat(1000));
        assert!(refusal.message.len() <= Refusal::MAX_MESSAGE);
        assert!(refusal.message.capacity() <= Refusal::MAX_MESSAGE);
        assert_eq!(Refusal::new(Reason::Internal, "a\r\nb").message, "a  b");
    }
}
