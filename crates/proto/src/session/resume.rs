//! From one carrier to the next.
//!
//! On a carrier that continues the session, each end first lists its streams and how far they have come here. Whoever
//! opened a stream opens a stream of the carrier for it, and both ends go on from where the other is. So:
//!
//! | listed by the peer | here | then |
//! |---|---|---|
//! | yes | known | it goes on |
//! | yes | over | the peer is told by a reset why |
//! | yes | never seen | its opener will ask for it again |
//! | no | opened here, not answered | it is asked for again |
//! | no | ended in both directions | it is complete, and only the last acknowledgement was lost |
//! | no | otherwise | it is broken: a reset of the peer's was lost |

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use tunnel_model::{Class, Reason, Refusal};

use super::{Event, Phase, Session, Violation, acks::MAX_POSITIONS, streams::Stream};
use crate::{
    Control, FrameReader, Header, MAX_CONTROL_FRAME, Position, Side, StreamId,
    keepalive::Keepalive,
    message::encode_reply,
    stream::{Receiving, cut},
};

/// Streams that a peer may list; it cannot have more of ours and its own.
const MAX_LISTED: usize = 64 * 1024;
/// Streams that were made void lately, and why: the peer may have missed it.
const MAX_GONE: usize = 64;

/// What the peer has listed so far.
#[derive(Debug, Default)]
pub(super) struct PeerList(HashMap<StreamId, u64>);

/// Why streams were made void.
#[derive(Debug, Default)]
pub(super) struct Gone(VecDeque<(StreamId, Refusal)>);

impl Gone {
    pub(super) fn note(&mut self, id: StreamId, refusal: &Refusal) {
        if self.0.len() == MAX_GONE {
            self.0.pop_front();
        }
        self.0.push_back((id, refusal.clone()));
    }

    /// Why it is void; that it is over at all, where more is not known.
    pub(super) fn why(&self, id: StreamId) -> Refusal {
        let known = self.0.iter().find(|(gone, _)| *gone == id);
        known.map_or_else(cut, |(_, refusal)| refusal.clone())
    }
}

/// What goes to the carrier's stream of a stream that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The stream.
    pub id: StreamId,
    /// Its rank.
    pub class: Class,
    /// First this: a header, a reply, or nothing while the reply is still to come.
    pub head: Bytes,
    /// Then this data, which the peer does not have.
    pub data: Vec<Bytes>,
}

impl Session {
    /// A carrier is there, its peer is who it should be, and both have greeted each other. Until now nothing was heard of
    /// its control stream but the hello. An earlier carrier is lost by it.
    ///
    /// `number` is that of the edge's hello, `resume_for` what the hellos agreed on.
    ///
    /// # Errors
    /// There was a later carrier already, or the session is over.
    pub fn handle_carrier_up(
        &mut self,
        number: u64,
        resume_for: std::time::Duration,
        now: Instant,
    ) -> Result<(), Refusal> {
        if self.is_closed() {
            return Err(Refusal::new(Reason::CarrierLost, "the session is over"));
        }
        if number <= self.carrier {
            let message = format!("carrier {number} comes after carrier {}", self.carrier);
            return Err(Refusal::new(Reason::Superseded, message));
        }
        let continues = !matches!(self.phase, Phase::New);
        if self.is_up() {
            self.detach(now);
        }
        self.phase = Phase::Up {
            resuming: continues.then(PeerList::default),
        };
        self.carrier = number;
        self.resume_for = resume_for;
        self.reader = FrameReader::new(MAX_CONTROL_FRAME);
        self.keepalive = self
            .config
            .keepalive
            .map(|interval| Keepalive::new(interval, self.config.patience, now));
        self.leaving = false;
        self.drained = false;
        if continues {
            self.list_streams();
        }
        self.pace_anew(now);
        Ok(())
    }

    /// Which end of the session this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The number of the carrier that is there, or was there last.
    pub fn carrier(&self) -> u64 {
        self.carrier
    }

    /// The carrier is gone. Streams wait for another, or break with this refusal where nothing was agreed.
    pub fn handle_carrier_lost(&mut self, refusal: &Refusal, now: Instant) {
        if self.is_closed() {
            return;
        }
        if self.resume_for.is_zero() {
            return self.close(refusal);
        }
        self.detach(now);
        let until = now + self.resume_for;
        self.phase = Phase::Down { until };
    }

    /// Forgets what belongs to the carrier.
    pub(super) fn leave_carrier(&mut self) {
        self.keepalive = None;
        self.held = None;
        self.expected = None;
        self.transmit.clear();
        self.pings.clear();
        self.early.clear();
        self.graces.clear();
        self.acks.forgive();
    }

    fn detach(&mut self, now: Instant) {
        self.leave_carrier();
        // Nobody waits for a turn on a carrier that is gone.
        self.begin_turns(now);
        for stream in self.streams.values_mut() {
            stream.grace = None;
            stream.listed = false;
            // The carrier's stream ended with the carrier; that says nothing.
            if let Receiving::Ended(_) = stream.receiving {
                stream.receiving = Receiving::Open;
            }
        }
    }

    fn list_streams(&mut self) {
        // Before the list, or the peer would find a stream missing and not know why.
        for (id, refusal) in self.gone.0.clone() {
            self.queue(&Control::Reset { id, refusal });
        }
        let mut streams: Vec<_> = self
            .streams
            .iter()
            .map(|(&id, stream)| Position {
                id,
                received: stream.position(),
            })
            .collect();
        streams.sort_unstable_by_key(|position| position.id);
        let mut rest = streams.as_slice();
        loop {
            let (some, more) = rest.split_at(rest.len().min(MAX_POSITIONS));
            self.queue(&Control::Resume {
                streams: some.to_vec(),
                last: more.is_empty(),
            });
            if more.is_empty() {
                break;
            }
            rest = more;
        }
        // What was said of ends may have been lost; whoever knows it already is not disturbed.
        for position in streams {
            let ended = self
                .streams
                .get(&position.id)
                .filter(|stream| stream.ended && !stream.acknowledged);
            if let Some(stream) = ended {
                let (id, offset) = (position.id, stream.replay.end());
                self.queue(&Control::End { id, offset });
            }
        }
    }

    pub(super) fn handle_resume(&mut self, streams: Vec<Position>, last: bool) -> Result<(), Violation> {
        let Phase::Up { resuming } = &mut self.phase else {
            return Ok(());
        };
        let Some(list) = resuming else {
            return Err(Violation::protocol("nothing is there to resume"));
        };
        if list.0.len() + streams.len() > MAX_LISTED {
            return Err(Violation::protocol("more streams to resume than there can be"));
        }
        for position in streams {
            if list.0.insert(position.id, position.received).is_some() {
                return Err(Violation::protocol(format!("stream {} is listed twice", position.id)));
            }
        }
        if last {
            let list = std::mem::take(list);
            *resuming = None;
            self.reconcile(&list)?;
        }
        Ok(())
    }

    fn reconcile(&mut self, list: &PeerList) -> Result<(), Violation> {
        let mut listed: Vec<_> = list
            .0
            .iter()
            .map(|(&id, &received)| Position { id, received })
            .collect();
        listed.sort_unstable_by_key(|position| position.id);
        for position in listed {
            self.go_on(position)?;
        }
        // The list may come after the first streams of this carrier.
        let missing = |(id, stream): (&StreamId, &Stream)| {
            (stream.carrier < self.carrier && !list.0.contains_key(id)).then_some(*id)
        };
        let mut missing: Vec<_> = self.streams.iter().filter_map(missing).collect();
        missing.sort_unstable();
        for id in missing {
            self.missed(id);
        }
        self.make_room();
        Ok(())
    }

    /// The peer has the stream.
    fn go_on(&mut self, position: Position) -> Result<(), Violation> {
        let id = position.id;
        if !self.streams.contains_key(&id) {
            if id.opener() == self.side || self.seen.contains(id) {
                let refusal = self.gone.why(id);
                self.queue(&Control::Reset { id, refusal });
            }
            return Ok(());
        }
        self.acknowledged(position)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.carrier == self.carrier {
            return Ok(());
        }
        stream.listed = true;
        if id.opener() == self.side {
            self.events.push_back(Event::Reattach(id));
        }
        Ok(())
    }

    /// The peer does not have the stream.
    fn missed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.open.is_some() {
            self.events.push_back(Event::Reattach(id));
        } else if stream.over {
            self.forget(id);
        } else {
            let refusal = cut();
            self.forget(id);
            self.events.push_back(Event::Broken { id, refusal });
        }
    }

    /// What goes first to the new carrier stream of a stream that we opened. `None` if it is over meanwhile.
    pub fn reattach(&mut self, id: StreamId) -> Option<Attach> {
        let stream = self.streams.get_mut(&id)?;
        stream.carrier = self.carrier;
        let received = stream.received;
        let head = match &stream.open {
            Some(open) if !stream.listed => Header::Open {
                id,
                open: (**open).clone(),
                again: true,
            },
            _ => Header::Resume(Position { id, received }),
        };
        Some(Attach {
            id,
            class: stream.class,
            head: head.encode(),
            data: stream.replay.chunks(),
        })
    }

    /// The peer goes on with a stream that it opened.
    pub(super) fn handle_reattached(&mut self, position: Position) -> Result<super::Incoming, Violation> {
        let id = position.id;
        if id.opener() == self.side {
            return Err(Violation::protocol(format!("stream {id} is not the peer's to resume")));
        }
        if self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.carrier == self.carrier)
        {
            return Err(Violation::protocol(format!("stream {id} is on this carrier already")));
        }
        self.acknowledged(position)?;
        self.make_room();
        let Some(stream) = self.streams.get_mut(&id) else {
            let refusal = self.gone.why(id);
            return Ok(super::Incoming::Refused(encode_reply(&Err(refusal))));
        };
        stream.carrier = self.carrier;
        let head = if stream.accepted {
            encode_reply(&Ok(()))
        } else {
            Bytes::new()
        };
        Ok(super::Incoming::Resumed(Attach {
            id,
            class: stream.class,
            head,
            data: stream.replay.chunks(),
        }))
    }
}
