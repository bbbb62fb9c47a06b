//! Keeps a session that holds to a rate told of the link under its carrier.

use std::time::{Duration, Instant};

use tunnel_proto::{Rate, Session};

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

/// What is known of a carrier's link, as far as the session was told.
#[derive(Debug)]
pub(super) struct Pace {
    connection: Connection,
    looked: Option<Instant>,
    /// What was on the link by then.
    sent: u64,
    /// What was on the link beyond what streams were given turns for; less than none if that is still to come.
    beside: i64,
    /// The connection's own idea of the link, and when it was asked for that.
    link: Option<LinkRate>,
    asked: Option<Instant>,
}

impl Pace {
    pub(super) fn of(connection: Connection) -> Self {
        Self {
            connection,
            looked: None,
            sent: 0,
            beside: 0,
            link: None,
            asked: None,
        }
    }

    /// Accounts for what has gone over the link: acknowledgements, what was sent again, and whatever else took room there and
    /// had no turn. To be called whenever somebody wants to send.
    pub(super) fn follow(&mut self, session: &mut Session, now: Instant) {
        let Some(rate) = session.rate() else {
            return self.rest();
        };
        if self
            .looked
            .is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY)
        {
            return;
        }
        let sent = self.connection.sent_on_link();
        let turned = session.take_turned();
        if self.looked.is_some() {
            // A path that is another one is counted anew.
            let passed = sent.saturating_sub(self.sent);
            self.beside += signed(passed) - signed(turned);
        }
        self.looked = Some(now);
        self.sent = sent;
        let beside = u64::try_from(self.beside).unwrap_or(0);
        let ahead = signed(rate.bytes_in(AHEAD).max(LEAST_AHEAD));
        let unused = u64::try_from(-ahead - self.beside).unwrap_or(0);
        self.beside = self.beside.clamp(-ahead, 0);
        session.set_link(self.connection.packets(), beside, unused, now);
        self.hold(rate, now);
    }

    /// Has the connection hold little beyond what is in flight, and its window follow the rate: losses on a radio link then do
    /// not close it.
    fn hold(&mut self, rate: Rate, now: Instant) {
        if self
            .asked
            .is_none_or(|at| now.saturating_duration_since(at) >= ASK_ANEW)
        {
            self.asked = Some(now);
            self.link = self.connection.link_rate();
        }
        if let Some(link) = &self.link {
            link.give(rate);
            self.connection.set_send_buffer(link.send_buffer().min(FAST_BUFFER));
        }
    }

    /// Nobody holds to a rate.
    fn rest(&mut self) {
        if self.looked.take().is_some() {
            self.beside = 0;
            self.asked = None;
            if let Some(link) = self.link.take() {
                link.let_go();
                self.connection.set_send_buffer(FAST_BUFFER);
            }
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
