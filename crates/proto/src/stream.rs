//! One stream: its id, its two halves, and the life of each direction.
//!
//! A direction that is read has two sources of truth that arrive in any order: the carrier stream ends after some number
//! of bytes, and the peer announces on the control stream where the direction ends. Only both together make a clean end.
//!
//! | state \ input | announced at `f` | carrier ended at `n` | grace over |
//! |---|---|---|---|
//! | `Open` | `Announced(f)` | `Ended(n)` | - |
//! | `Announced(f)` | the same: ignored, another: violation | `n = f` clean, `n < f` cut, `n > f` violation | - |
//! | `Ended(n)` | likewise | violation | cut |
//! | `Done` | ignored | violation | - |
//!
//! When the carrier is lost, `Ended(n)` is `Open` again, for its end said nothing, and what was announced stays. The peer
//! announces anew on the next carrier: the same end twice is no violation.

use std::fmt;

use tunnel_model::{Reason, Refusal};

use crate::session::Side;

/// A stream's number in its session: even if the gateway opened it, odd if the edge did, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The highest number: what QUIC's integers hold (RFC 9000 section 16).
    pub const MAX: Self = Self((1 << 62) - 1);

    /// Who opened it.
    pub fn opener(self) -> Side {
        if self.0.is_multiple_of(2) {
            Side::Gateway
        } else {
            Side::Edge
        }
    }

    pub(crate) fn first_of(side: Side) -> Self {
        match side {
            Side::Edge => Self(1),
            Side::Gateway => Self(2),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the end of a carrier stream means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The peer sent everything it meant to send.
    Finished,
    /// Not known yet: [`crate::Event::Received`] will tell.
    Pending,
    /// The direction was cut; the stream is void.
    Broken(Refusal),
}

/// The life of the direction that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiving {
    Open,
    Announced(u64),
    Ended(u64),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Announced(u64),
    CarrierEnded(u64),
    GraceOver,
}

/// What follows from an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Wait,
    Clean,
    Cut,
    Violation,
}

impl Receiving {
    pub(crate) fn on(&mut self, input: Input) -> Outcome {
        let (next, outcome) = match (*self, input) {
            (Self::Announced(end), Input::Announced(again)) if end == again => (*self, Outcome::Wait),
            (Self::Open, Input::Announced(end)) => (Self::Announced(end), Outcome::Wait),
            (Self::Open, Input::CarrierEnded(got)) => (Self::Ended(got), Outcome::Wait),
            (Self::Announced(end), Input::CarrierEnded(got)) | (Self::Ended(got), Input::Announced(end)) => {
                let outcome = match got.cmp(&end) {
                    std::cmp::Ordering::Equal => Outcome::Clean,
                    std::cmp::Ordering::Less => Outcome::Cut,
                    std::cmp::Ordering::Greater => Outcome::Violation,
                };
                (Self::Done, outcome)
            }
            (Self::Ended(_), Input::GraceOver) => (Self::Done, Outcome::Cut),
            (state, Input::GraceOver) => (state, Outcome::Wait),
            // Its acknowledgement was lost with a carrier, or is still on its way.
            (Self::Done, Input::Announced(_)) => (Self::Done, Outcome::Wait),
            (_, Input::Announced(_) | Input::CarrierEnded(_)) => (Self::Done, Outcome::Violation),
        };
        *self = next;
        outcome
    }
}

pub(crate) fn cut() -> Refusal {
    Refusal::new(Reason::CarrierLost, "the link broke before the stream had ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_received_direction_is_as_documented() {
        use Input::{Announced, CarrierEnded, GraceOver};
        let states = [
            Receiving::Open,
            Receiving::Announced(5),
            Receiving::Ended(5),
            Receiving::Done,
        ];
        let inputs = [
            Announced(4),
            Announced(5),
            Announced(6),
            CarrierEnded(4),
            CarrierEnded(5),
            CarrierEnded(6),
            GraceOver,
        ];
        let mut table = String::new();
        for state in states {
            for input in inputs {
                let mut next = state;
                let outcome = next.on(input);
                table += &format!("{state:?} + {input:?} = {outcome:?}, {next:?}\n");
            }
        }
        assert_eq!(table, TABLE);
    }

    const TABLE: &str = "\
Open + Announced(4) = Wait, Announced(4)
Open + Announced(5) = Wait, Announced(5)
Open + Announced(6) = Wait, Announced(6)
Open + CarrierEnded(4) = Wait, Ended(4)
Open + CarrierEnded(5) = Wait, Ended(5)
Open + CarrierEnded(6) = Wait, Ended(6)
Open + GraceOver = Wait, Open
Announced(5) + Announced(4) = Violation, Done
Announced(5) + Announced(5) = Wait, Announced(5)
Announced(5) + Announced(6) = Violation, Done
Announced(5) + CarrierEnded(4) = Cut, Done
Announced(5) + CarrierEnded(5) = Clean, Done
Announced(5) + CarrierEnded(6) = Violation, Done
Announced(5) + GraceOver = Wait, Announced(5)
Ended(5) + Announced(4) = Violation, Done
Ended(5) + Announced(5) = Clean, Done
Ended(5) + Announced(6) = Cut, Done
Ended(5) + CarrierEnded(4) = Violation, Done
Ended(5) + CarrierEnded(5) = Violation, Done
Ended(5) + CarrierEnded(6) = Violation, Done
Ended(5) + GraceOver = Cut, Done
Done + Announced(4) = Wait, Done
Done + Announced(5) = Wait, Done
Done + Announced(6) = Wait, Done
Done + CarrierEnded(4) = Violation, Done
Done + CarrierEnded(5) = Violation, Done
Done + CarrierEnded(6) = Violation, Done
Done + GraceOver = Wait, Done
";
}
