//! What the journal says, line by line. No file and no clock: [`super::file`] keeps the lines.
//!
//! | line | says |
//! |---|---|
//! | `{"lost":{…}}` | a loss began |
//! | `{"back":{…}}` | it is over |
//! | `{"told":N}` | the gateway has all up to this number |
//!
//! A line that cannot be read, because its writer was killed or is of a newer version, is passed over.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use tunnel_model::{LinkLoss, LossCause};

use super::Moved;

/// Losses that are kept; the oldest go.
const KEPT: usize = 400;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Lost {
        number: u64,
        cause: LossCause,
        begun_ms: u64,
        sent: u64,
        received: u64,
        message: String,
    },
    Back {
        number: u64,
        /// As it is known in the end.
        cause: LossCause,
        message: String,
        lasted_ms: u64,
    },
    Told(u64),
}

/// All that the lines say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    over: VecDeque<LinkLoss>,
    lost: Option<LinkLoss>,
    told: u64,
    last: u64,
}

impl Log {
    pub(super) fn read(text: &[u8]) -> Self {
        let mut log = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            if let Ok(line) = serde_json::from_slice(line) {
                log.take(line);
            }
        }
        log
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Lost {
                number,
                cause,
                begun_ms,
                sent,
                received,
                message,
            } => {
                // Whoever wrote that did not know the end of the one before.
                self.lost = Some(LinkLoss {
                    number,
                    cause,
                    begun_millis: begun_ms,
                    lasted: Duration::ZERO,
                    sent,
                    received,
                    message: LinkLoss::clip(&message),
                });
                self.last = self.last.max(number);
            }
            Line::Back {
                number,
                cause,
                message,
                lasted_ms,
            } => {
                if let Some(mut loss) = self.lost.take_if(|loss| loss.number == number) {
                    loss.cause = cause;
                    loss.message = LinkLoss::clip(&message);
                    loss.lasted = Duration::from_millis(lasted_ms);
                    if self.over.len() == KEPT {
                        self.over.pop_front();
                    }
                    self.over.push_back(loss);
                }
            }
            Line::Told(number) => {
                self.told = self.told.max(number);
                // The number is not given again, even if what it stood for cannot be read.
                self.last = self.last.max(number);
            }
        }
    }

    /// The lines that say all this, and nothing else.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        let over = self.over.iter().flat_map(|loss| [lost(loss), back(loss)]);
        over.chain(std::iter::once(Line::Told(self.told)))
            .chain(self.lost.iter().map(lost))
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    pub(super) fn begin(&mut self, cause: LossCause, message: &str, moved: Moved, begun_ms: u64) -> Line {
        let line = Line::Lost {
            number: self.last + 1,
            cause,
            begun_ms,
            sent: moved.sent,
            received: moved.received,
            message: LinkLoss::clip(message),
        };
        self.take(line.clone());
        line
    }

    /// What an attempt to get the link back has shown. A silence says little; that there was no route says why it was.
    pub(super) fn learn(&mut self, cause: LossCause, message: &str) {
        let says_more = |cause| !matches!(cause, LossCause::Timeout | LossCause::Other);
        if let Some(loss) = &mut self.lost
            && !says_more(loss.cause)
            && says_more(cause)
        {
            loss.cause = cause;
            loss.message = LinkLoss::clip(message);
        }
    }

    /// The loss is over, after `lasted` if somebody has measured that.
    pub(super) fn end(&mut self, forgotten: bool, lasted: Option<Duration>, now_ms: u64) -> Option<(LossCause, Line)> {
        let loss = self.lost.as_ref()?;
        let by_clock = Duration::from_millis(now_ms.saturating_sub(loss.begun_millis));
        // It was silent, or the connection broke, because it was gone, and another process answers in its place.
        let restarted = forgotten && matches!(loss.cause, LossCause::Timeout | LossCause::Other);
        let ended = LinkLoss {
            cause: if restarted {
                LossCause::GatewayRestart
            } else {
                loss.cause
            },
            lasted: lasted.unwrap_or(by_clock),
            ..loss.clone()
        };
        let line = back(&ended);
        self.take(line.clone());
        Some((ended.cause, line))
    }

    pub(super) fn over(&self) -> impl Iterator<Item = &LinkLoss> {
        self.over.iter()
    }

    pub(super) fn lost(&self) -> Option<&LinkLoss> {
        self.lost.as_ref()
    }

    pub(super) fn untold(&self) -> Vec<LinkLoss> {
        self.over
            .iter()
            .filter(|loss| loss.number > self.told)
            .cloned()
            .collect()
    }

    pub(super) fn is_told(&self, number: u64) -> bool {
        number <= self.told
    }

    /// Nothing if that is no news, or about what has never been said.
    pub(super) fn told(&mut self, number: u64) -> Option<Line> {
        let said = self.over.back().map_or(0, |loss| loss.number);
        let news = number > self.told && number <= said;
        news.then(|| {
            self.told = number;
            Line::Told(number)
        })
    }
}

fn lost(loss: &LinkLoss) -> Line {
    Line::Lost {
        number: loss.number,
        cause: loss.cause,
        begun_ms: loss.begun_millis,
        sent: loss.sent,
        received: loss.received,
        message: loss.message.clone(),
    }
}

fn back(loss: &LinkLoss) -> Line {
    Line::Back {
        number: loss.number,
        cause: loss.cause,
        message: loss.message.clone(),
        lasted_ms: u64::try_from(loss.lasted.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVED: Moved = Moved { sent: 3, received: 4 };

    #[test]
    fn what_attempts_show_names_the_cause_of_a_silence_and_of_nothing_else() {
        let mut log = Log::default();
        log.begin(LossCause::Timeout, "silence", MOVED, 1000);
        log.learn(LossCause::Timeout, "still silence");
        log.learn(LossCause::NoRoute, "no route");
        log.learn(LossCause::Dns, "no name");
        let (cause, _) = log.end(true, None, 4000).unwrap();
        assert_eq!(cause, LossCause::NoRoute);
        let loss = &log.untold()[0];
        assert_eq!((loss.lasted, loss.sent, loss.received), (Duration::from_secs(3), 3, 4));
        assert_eq!(loss.message, "no route");

        log.begin(LossCause::Superseded, "", MOVED, 5000);
        log.learn(LossCause::NoRoute, "");
        assert_eq!(log.end(true, None, 6000).unwrap().0, LossCause::Superseded);
        log.begin(LossCause::Timeout, "", MOVED, 7000);
        assert_eq!(log.end(true, None, 8000).unwrap().0, LossCause::GatewayRestart);
        assert_eq!(log.end(true, None, 9000), None);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_time_and_a_measured_time_wins() {
        let mut log = Log::default();
        log.begin(LossCause::Timeout, "", MOVED, 5000);
        log.end(false, None, 1000).unwrap();
        log.begin(LossCause::Timeout, "", MOVED, 5000);
        log.end(false, Some(Duration::from_secs(7)), 1000).unwrap();
        let lasted: Vec<_> = log.over().map(|loss| loss.lasted.as_secs()).collect();
        assert_eq!(lasted, [0, 7]);
    }

    #[test]
    fn what_the_gateway_has_is_not_told_again() {
        let mut log = Log::default();
        for at in 0..5 {
            log.begin(LossCause::Dns, "", MOVED, at);
            log.end(false, None, at).unwrap();
        }
        assert_eq!(log.told(9), None, "it was never said");
        assert_eq!(log.told(3), Some(Line::Told(3)));
        assert_eq!(log.told(2), None);
        let untold: Vec<_> = log.untold().iter().map(|loss| loss.number).collect();
        assert_eq!(untold, [4, 5]);
        // One that is not over is not told.
        log.begin(LossCause::Dns, "", MOVED, 9);
        assert_eq!(log.untold().len(), 2);
    }

    #[test]
    fn the_lines_say_all_of_it_and_no_cut_or_damage_costs_more_than_a_line() {
        let mut log = Log::default();
        let mut text = Vec::new();
        let mut write = |line: &Line| {
            serde_json::to_writer(&mut text, line).unwrap();
            text.push(b'\n');
        };
        for at in 0..KEPT as u64 + 7 {
            write(&log.begin(LossCause::Timeout, "why", MOVED, at));
            write(&log.end(false, None, at + 1).unwrap().1);
        }
        write(&log.told(5).unwrap());
        write(&log.begin(LossCause::EdgeStopped, "", MOVED, 9999));
        assert_eq!(Log::read(&text), log);
        assert_eq!(log.over().count(), KEPT);
        let compact: Vec<u8> = log
            .lines()
            .flat_map(|line| [serde_json::to_vec(&line).unwrap(), b"\n".to_vec()].concat())
            .collect();
        assert_eq!(Log::read(&compact), log);

        for end in text.len() - 400..text.len() {
            let read = Log::read(&text[..end]);
            assert!(read.last >= KEPT as u64 + 5, "{end}");
        }
        let damaged = [b"\xff\xfe{}\n{\"future\":1}\n", &text[..]].concat();
        assert_eq!(Log::read(&damaged), log);
    }
}
