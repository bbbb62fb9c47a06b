//! The link journal: when there was no link to the gateway, why, and for how long.
//!
//! It is kept over restarts, so that an outage that ends with a reboot is in it too, and the gateway is told what it does
//! not know yet. Written is one line when a loss begins and one when it is over; what that means is in the module `log`.

mod cause;
mod file;
mod log;

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tracing::warn;
use tunnel_identity::UnixTime;
use tunnel_model::{LinkLoss, LossCause};

pub(crate) use self::cause::{of_dial, of_end, of_greeting};
use self::{
    file::JournalFile,
    log::{Line, Log},
};

/// What the agent writes in while it runs.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<State>);

#[derive(Debug)]
struct State {
    log: Log,
    /// `None` where none can be read; what happens is told to the gateway all the same.
    file: Option<JournalFile>,
    /// When the loss that is not over began, if this process has seen that.
    begun: Option<Instant>,
    /// The last write failed, which was said.
    failing: bool,
}

/// Bytes that a carrier moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Journal {
    /// Reads what there is in a state directory.
    pub(crate) fn open(state: &Path) -> Self {
        let (log, file) = match JournalFile::open(state) {
            Ok((file, log)) => (log, Some(file)),
            Err(error) => {
                warn!(%error, "the link journal cannot be read, and is kept in memory only");
                (Log::default(), None)
            }
        };
        Self(Mutex::new(State {
            log,
            file,
            begun: None,
            failing: false,
        }))
    }

    /// There is no link any more, or an attempt to get one has failed. Within a loss that is known this only says more about
    /// its cause.
    pub(crate) fn lost(&self, cause: LossCause, message: &str, moved: Moved, now: UnixTime) {
        let mut state = self.lock();
        if state.log.is_lost() {
            return state.log.learn(cause, message);
        }
        state.begun = Some(Instant::now());
        let line = state.log.begin(cause, message, moved, millis(now));
        state.write(line);
    }

    /// A gateway was greeted: whatever was lost is over. Says why it was.
    ///
    /// `forgotten` is that this gateway does not know the session of before.
    pub(crate) fn back(&self, forgotten: bool, now: UnixTime) -> Option<LossCause> {
        let mut state = self.lock();
        let lasted = state.begun.take().map(|begun| begun.elapsed());
        let (cause, line) = state.log.end(forgotten, lasted, millis(now))?;
        state.write(line);
        Some(cause)
    }

    /// What the gateway does not know yet, oldest first; as much as it takes at once.
    pub(crate) fn untold(&self) -> Vec<LinkLoss> {
        let mut untold = self.lock().log.untold();
        untold.truncate(tunnel_proto::MAX_LOSSES);
        untold
    }

    /// The gateway keeps what the journal says up to this number; whether that is news.
    pub(crate) fn told(&self, number: u64) -> bool {
        let mut state = self.lock();
        match state.log.told(number) {
            Some(line) => {
                state.write(line);
                true
            }
            None => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A disk that is full must not stop the tunnel.
    fn write(&mut self, line: Line) {
        let Some(file) = &mut self.file else { return };
        match file.append(&line, &self.log) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, "the link journal cannot be written");
                }
            }
        }
    }
}

/// What `tunnel-edge history` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    pub losses: Vec<Loss>,
}

/// A time without a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Its place in the journal.
    pub number: u64,
    /// Why.
    pub cause: LossCause,
    /// When it began (RFC 3339, UTC).
    pub begun_at: String,
    /// Until a gateway was greeted again, in seconds; nothing if it is not over.
    pub lasted_seconds: Option<f64>,
    /// Bytes that were sent on the connection that was lost.
    pub sent_bytes: u64,
    /// Bytes that were received there.
    pub received_bytes: u64,
    /// Whether the gateway has it too.
    pub uploaded: bool,
    /// What was said at the time.
    pub message: String,
}

impl History {
    /// What the journal in this state directory says, whether an agent runs or not.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(state: &Path) -> std::io::Result<Self> {
        let log = JournalFile::read(state)?;
        let show = |loss: &LinkLoss, over: bool| Loss {
            number: loss.number,
            cause: loss.cause,
            begun_at: UnixTime::from_secs(loss.begun_millis / 1000).to_string(),
            lasted_seconds: over.then_some(loss.lasted.as_secs_f64()),
            sent_bytes: loss.sent,
            received_bytes: loss.received,
            uploaded: log.is_told(loss.number),
            message: loss.message.clone(),
        };
        let over = log.over().map(|loss| show(loss, true));
        Ok(Self {
            losses: over.chain(log.lost().map(|loss| show(loss, false))).collect(),
        })
    }
}

fn millis(time: UnixTime) -> u64 {
    u64::try_from(Duration::from_secs(time.secs()).as_millis()).unwrap_or(u64::MAX)
}
