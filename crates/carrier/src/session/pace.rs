//! Keeps a session and its carrier's connection in step about the link: what was said of it, what was measured of it, and what
//! has gone over it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel_proto::{Session, Timing, Transit};

use crate::{link::Connection, quic::LinkRate};

/// Figures of the connection are not looked at more often than this.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After a change of path the connection knows the link under another name.
const ASK_ANEW: Duration = Duration::from_secs(1);
/// What a connection over a link without a rate holds, in bytes.
const FAST_BUFFER: u64 = 2 * 1024 * 1024;
/// What streams were given turns for may be on its way to the link for so long, and is at least so many bytes; more never will
/// be there, because it shared packets with something else. Whatever is counted wrongly here stands in the link's queue one day.
const AHEAD: Duration = Duration::from_millis(4);
const LEAST_AHEAD: u64 = 4 * 1024;

/// What is known of a carrier's link.
#[derive(Debug)]
pub(super) struct Pace {
    connection: Connection,
    looked: Option<Instant>,
    /// What was on the link when that was last counted.
    counted: Option<u64>,
    /// What was on the link beyond what streams were given turns for; less than none if that is still to come.
    beside: i64,
    /// The connection's own idea of the link, and when it was asked for that.
    link: Option<LinkRate>,
    asked: Option<Instant>,
    /// What it was told to hold, in bytes.
    held: Option<u64>,
    transit: Transit,
}

impl Pace {
    pub(super) fn of(connection: Connection, now: Instant) -> Self {
        let mut pace = Self {
            link: connection.link_rate(),
            connection,
            looked: None,
            counted: None,
            beside: 0,
            asked: None,
            held: None,
            transit: Transit::new(now),
        };
        let stamp = pace.transit.stamp(now);
        pace.send(stamp);
        pace
    }

    /// So many bytes were given to the connection. They are on the link soon, where packets are timed now and then if it may be
    /// thin.
    pub(super) fn wrote(&mut self, bytes: usize, now: Instant) {
        if self.link.as_ref().is_some_and(|link| !link.is_fast()) {
            let stamp = self.transit.wrote(bytes, now);
            self.send(stamp);
        }
    }

    /// Nothing is said where it cannot be sent: then nothing is known of queues but by the round trip.
    fn send(&self, datagram: Option<Bytes>) {
        if let Some(datagram) = datagram {
            let _ = self.connection.send_datagram(datagram);
        }
    }

    /// Takes a datagram that says how long packets take.
    pub(super) fn handle_timing(&mut self, packet: &[u8], at: Instant) {
        match self.transit.handle(packet, at) {
            Some(Timing::Answer(answer)) => self.send(Some(answer)),
            Some(Timing::Took { there, back }) => {
                if let Some(link) = self.link.as_ref().filter(|link| !link.is_fast()) {
                    link.saw(there, back);
                    let stamp = self.transit.sent(self.connection.sent_on_link(), at);
                    self.send(stamp);
                }
            }
            None => {}
        }
    }

    /// Has the session hold to what the link carries, and accounts for what has gone over it: acknowledgements, what was sent
    /// again, and whatever else took room there and had no turn. To be called whenever somebody wants to send.
    pub(super) fn follow(&mut self, session: &mut Session, now: Instant) {
        if self
            .looked
            .is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY)
        {
            return;
        }
        self.looked = Some(now);
        self.ask(session, now);
        self.hold();
        let Some(rate) = session.pace() else {
            self.counted = None;
            return;
        };
        let sent = self.connection.sent_on_link();
        let turned = session.take_turned();
        self.beside = match self.counted.replace(sent) {
            // A path that is another one is counted anew.
            Some(before) => self.beside + signed(sent.saturating_sub(before)) - signed(turned),
            None => 0,
        };
        let beside = u64::try_from(self.beside).unwrap_or(0);
        let ahead = signed(rate.bytes_in(AHEAD).max(LEAST_AHEAD));
        let unused = u64::try_from(-ahead - self.beside).unwrap_or(0);
        self.beside = self.beside.clamp(-ahead, 0);
        session.set_link(self.connection.packets(), beside, unused, now);
    }

    /// Tells the connection what was said of its link, and the session what the connection has measured.
    fn ask(&mut self, session: &mut Session, now: Instant) {
        if self
            .asked
            .is_none_or(|at| now.saturating_duration_since(at) >= ASK_ANEW)
        {
            self.asked = Some(now);
            self.link = self.connection.link_rate();
        }
        let Some(link) = &self.link else { return };
        let told = session.told_rate();
        link.give(told);
        session.set_measured(link.measured().filter(|_| told.is_none()), now);
    }

    /// Has the connection hold little beyond what is in flight: what waits there is no longer sorted.
    fn hold(&mut self) {
        if let Some(link) = &self.link {
            let bytes = link.send_buffer();
            if self.held.replace(bytes) != Some(bytes) {
                self.connection.set_send_buffer(bytes.min(FAST_BUFFER));
            }
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
