//! Is the peer still there? One ping per interval of silence, and a verdict if it stays unanswered.

use std::time::{Duration, Instant};

/// What the silence asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Quiet,
    /// Send a ping.
    Ping,
    /// The peer is gone.
    Dead,
}

#[derive(Debug)]
pub(crate) struct Keepalive {
    interval: Duration,
    patience: Duration,
    last_heard: Instant,
    pinged: Option<Instant>,
}

impl Keepalive {
    /// Pings after `interval` of silence and gives up `patience` after an unanswered ping.
    pub(crate) fn new(interval: Duration, patience: Duration, now: Instant) -> Self {
        Self {
            interval,
            patience,
            last_heard: now,
            pinged: None,
        }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.pinged = None;
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self.pinged {
            Some(at) => at + self.patience,
            None => self.last_heard + self.interval,
        }
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Verdict {
        if now < self.deadline() {
            return Verdict::Quiet;
        }
        match self.pinged {
            Some(_) => Verdict::Dead,
            None => {
                self.pinged = Some(now);
                Verdict::Ping
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_brings_one_ping_and_then_the_verdict() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut keepalive = Keepalive::new(Duration::from_secs(25), Duration::from_secs(10), start);
        assert_eq!(keepalive.poll(at(24)), Verdict::Quiet);
        assert_eq!(keepalive.poll(at(25)), Verdict::Ping);
        assert_eq!(keepalive.poll(at(34)), Verdict::Quiet);
        keepalive.heard(at(34));
        assert_eq!(keepalive.deadline(), at(59));
        assert_eq!(keepalive.poll(at(59)), Verdict::Ping);
        assert_eq!(keepalive.poll(at(69)), Verdict::Dead);
    }
}
