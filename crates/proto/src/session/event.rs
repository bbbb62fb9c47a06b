//! What comes of calls to a session.

use std::time::Duration;

use tunnel_model::{LinkLoss, Offer, Refusal};

use crate::StreamId;

/// What the owner of the session has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The edge says anew what it offers.
    Offer(Offer),
    /// The edge tells losses of its link. Once they are kept, [`Session::journaled`](crate::Session::journaled) says so.
    Journal(Vec<LinkLoss>),
    /// The gateway keeps what the journal says up to this number.
    Journaled(u64),
    /// The ping of this number was answered.
    Pong {
        /// What [`Session::ping`](crate::Session::ping) returned.
        number: u64,
        /// From ping to pong.
        rtt: Duration,
    },
    /// The answer to [`crate::Fate::Pending`]: the direction ended cleanly, or is void and with it the stream.
    Received {
        /// The stream.
        id: StreamId,
        /// How the direction ended.
        end: Result<(), Refusal>,
    },
    /// Both directions of the stream are void.
    Broken {
        /// The stream.
        id: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// [`Session::room`](crate::Session::room) was 0 and may be more now.
    Room(StreamId),
    /// The stream goes on: open a stream of the carrier for it, and write there what [`Session::reattach`](crate::Session::reattach) gives.
    Reattach(StreamId),
    /// The peer wants no new streams and will leave.
    GoAway {
        /// Why.
        refusal: Refusal,
        /// When to come back at the earliest.
        retry_after: Option<Duration>,
    },
    /// After [`Session::drain`](crate::Session::drain) or a goaway of the peer: no stream is left.
    Drained,
    /// The carrier is of no use: the peer is gone, or cannot be talked to. If there is none, the session is over: no other
    /// came in time.
    Failed(Refusal),
}
