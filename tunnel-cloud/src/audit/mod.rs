//! The audit log: who reached what, who became a node, and what administrators did, as lines of JSON in a chain.
//!
//! | module | what |
//! |---|---|
//! | [`chain`] | records linked by hashes, and how a chain is checked; pure |
//! | [`record`] | what is recorded |
//! | `log`, `recover`, [`files`] | the files: appending, rotation, and going on after a crash |
//! | `keeper` | a log that cannot be written: what waits, what is refused, how it comes back |
//! | [`outputs`] | copies for syslog and the journal |
//! | [`verify`], [`tail`] | reading it, without the gateway |
//!
//! # Order
//! A grant is on file before what it grants happens; if it cannot be written, nothing is granted. An end, a revocation or
//! an administrator's act is recorded once it has happened, and waits in memory if it cannot be written yet. So a full
//! disk stops new streams and new nodes, and leaves those that there are alone.
//!
//! Ends of streams go with the next record that has to be written, or within a second: one `write` then has many of them.

pub mod chain;
mod clock;
pub mod files;
mod flood;
mod keeper;
mod log;
mod metrics;
pub mod outputs;
pub mod record;
mod recover;
pub mod tail;
pub mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tunnel_daemon::{
    error::{CliError, Exit},
    metrics::Metrics,
    readiness::Check,
};
use tunnel_model::{Reason, Refusal};

pub use outputs::AuditOutput;

use self::{
    chain::Head,
    clock::Clock,
    flood::Bucket,
    keeper::Keeper,
    log::{Log, Size},
    metrics::AuditMetrics,
    outputs::Copies,
    record::{Event, Suppressed},
};

/// How long a record may wait until it is on the disk, and how often a log that cannot be written is tried again.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How many ends of streams wait for the next record at most.
const MOST_SOON: usize = 128;

/// Where the log is and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditConfig {
    /// Its directory.
    pub path: PathBuf,
    /// The size of a file at which the next is begun, in MiB.
    pub max_mib: u32,
    /// How many files are kept.
    pub keep: u32,
    /// Where records go.
    pub outputs: Vec<AuditOutput>,
}

/// The audit log cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the audit log in {dir:?} cannot be opened: {source}")]
pub struct OpenError {
    dir: PathBuf,
    source: io::Error,
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        Self::new(Exit::Failure, "audit-open", error.to_string())
            .with_hint("is there room on the disk, and may this user write there? key \"audit.path\"")
    }
}

/// What kind of refusal is recorded: each has an allowance of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A dial.
    Dial,
    /// A join, a renewal or a session.
    Node,
    /// A credential.
    Authentication,
}

/// The audit log, written by one process.
#[derive(Debug)]
pub struct Audit {
    shared: Mutex<Shared>,
    /// What goes with the next record. Apart, so that nobody who has only this to say waits for a write. May be taken
    /// while `shared` is held, never the other way round.
    soon: Mutex<Vec<(SystemTime, Event)>>,
    /// One sync at a time: whoever waits for one knows that everything before it is on the disk.
    syncing: Mutex<()>,
    metrics: AuditMetrics,
}

#[derive(Debug)]
struct Shared {
    keeper: Keeper,
    clock: Clock,
    dials: Bucket,
    nodes: Bucket,
    authentications: Bucket,
    suppressed: Suppressed,
}

impl Audit {
    /// Opens the log, and goes on where it ended.
    ///
    /// # Errors
    /// Where the directory cannot be written to. A log that is full later on is not an error, but a state.
    pub fn open(config: &AuditConfig) -> Result<Self, OpenError> {
        let size = Size {
            file: u64::from(config.max_mib) * 1024 * 1024,
            files: usize::try_from(config.keep).unwrap_or(usize::MAX),
        };
        let failed = |source| OpenError {
            dir: config.path.clone(),
            source,
        };
        let copies = Copies::open(&config.outputs).map_err(failed)?;
        Self::with(&config.path, size, copies).map_err(failed)
    }

    fn with(dir: &Path, size: Size, copies: Vec<Copies>) -> io::Result<Self> {
        let (log, torn) = Log::open(dir, size)?;
        let metrics = AuditMetrics::default();
        let mut keeper = Keeper::new(log, copies, metrics.clone());
        let mut clock = Clock::new();
        for piece in torn {
            let event = Event::Recovered {
                moved_to: piece.name(),
                bytes: piece.bytes,
                sha256: piece.hash,
            };
            tracing::warn!(
                moved_to = piece.name(),
                bytes = piece.bytes,
                "the audit log ended in a broken line, which was put aside"
            );
            // What cannot be recorded now is found again at the next start.
            if keeper.write(clock.now(), &event).is_ok() {
                piece.recorded()?;
            }
        }
        Ok(Self {
            shared: Mutex::new(Shared {
                keeper,
                clock,
                dials: Bucket::new(),
                nodes: Bucket::new(),
                authentications: Bucket::new(),
                suppressed: Suppressed::default(),
            }),
            soon: Mutex::default(),
            syncing: Mutex::new(()),
            metrics,
        })
    }

    /// Shows the log's counters, and reports to a check of readiness whether it can be written; once per process.
    pub fn attach(&self, metrics: &Metrics, check: Check) {
        self.metrics.register(metrics);
        self.lock().keeper.attach(check);
    }

    /// The last record.
    pub fn head(&self) -> Head {
        let mut shared = self.up_to_date();
        shared.keeper.flush();
        shared.keeper.head()
    }

    /// Records what is about to be granted.
    ///
    /// # Errors
    /// It could not be written, and must not happen.
    pub fn grant(&self, event: &Event) -> Result<(), Refusal> {
        let mut shared = self.up_to_date();
        let now = shared.clock.now();
        shared.keeper.write(now, event).map_err(refusal)
    }

    /// As [`Self::grant`], and waits until the disk has it.
    ///
    /// # Errors
    /// As there.
    pub async fn grant_durably(self: &Arc<Self>, event: Event) -> Result<(), Refusal> {
        let audit = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            audit.grant(&event)?;
            audit.sync().map_err(|error| refusal(error.to_string()))
        });
        written.await.unwrap_or_else(|error| Err(refusal(error.to_string())))
    }

    /// Whether something could be granted now.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn available(&self) -> Result<(), Refusal> {
        match self.lock().keeper.failure() {
            None => Ok(()),
            Some(why) => Err(refusal(why.to_owned())),
        }
    }

    /// Records what has happened. If it cannot be written now, it waits.
    pub fn note(&self, event: Event) {
        let mut shared = self.up_to_date();
        let now = shared.clock.now();
        shared.keeper.note(now, event);
    }

    /// As [`Self::note`], but written with the next record, or within a second where none comes. A process that is killed
    /// before loses it.
    pub fn note_soon(&self, event: Event) {
        let mut soon = self.soon.lock().unwrap_or_else(PoisonError::into_inner);
        soon.push((SystemTime::now(), event));
        if soon.len() >= MOST_SOON {
            drop(soon);
            self.up_to_date().keeper.flush();
        }
    }

    /// As [`Self::note`], and waits until the disk has it, as far as it can be written at all.
    pub async fn note_durably(self: &Arc<Self>, event: Event) {
        let audit = Arc::clone(self);
        let noted = tokio::task::spawn_blocking(move || {
            audit.note(event);
            // A failure has become the log's state, which is reported.
            let _ = audit.sync();
        });
        // Only a runtime that ends does not run it.
        let _ = noted.await;
    }

    /// Records a refusal, if there are not too many of its kind; the others are counted. Where the log cannot be written,
    /// refusals are lost, and counted too.
    pub fn refusal(&self, kind: Refused, event: &Event) {
        let mut shared = self.up_to_date();
        let Shared {
            keeper,
            clock,
            dials,
            nodes,
            authentications,
            suppressed,
        } = &mut *shared;
        let (bucket, counter) = match kind {
            Refused::Dial => (dials, &mut suppressed.dials),
            Refused::Node => (nodes, &mut suppressed.nodes),
            Refused::Authentication => (authentications, &mut suppressed.authentications),
        };
        if bucket.take(Instant::now()) {
            keeper.refusal(clock.now(), event);
        } else {
            *counter += 1;
            self.metrics.suppressed.inc();
        }
    }

    /// Brings everything that was written to the disk, and tries a log that could not be written again.
    ///
    /// # Errors
    /// As the system says; it is then the state of the log.
    pub fn sync(&self) -> io::Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let unsynced = {
            let mut shared = self.up_to_date();
            let now = shared.clock.now();
            shared.keeper.retry(now);
            if shared.suppressed.total() > 0 {
                let event = Event::Suppressed(shared.suppressed);
                if shared.keeper.write(now, &event).is_ok() {
                    shared.suppressed = Suppressed::default();
                }
            }
            shared.keeper.flush();
            shared.keeper.take_unsynced()
        };
        // Without the lock: others go on writing meanwhile.
        let synced = unsynced.sync();
        if let Err(error) = &synced {
            self.lock().keeper.not_synced(unsynced, error);
        }
        synced
    }

    /// Keeps the log until `stop`: syncs it, and tries it again when it could not be written.
    ///
    /// # Errors
    /// None: a log that cannot be written is a state, not an end.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) -> io::Result<()> {
        let mut ticks = interval(SYNC_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let audit = Arc::clone(&self);
            // A failure has become the log's state, which is reported.
            let _ = tokio::task::spawn_blocking(move || audit.sync()).await;
        }
        Ok(())
    }

    /// The keeper, which has been told of all that was noted before.
    fn up_to_date(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.lock();
        let Shared { keeper, clock, .. } = &mut *shared;
        let mut soon = self.soon.lock().unwrap_or_else(PoisonError::into_inner);
        for (time, event) in soon.drain(..) {
            keeper.note_soon(clock.stamp(time), event);
        }
        drop(soon);
        shared
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every field is whole between two statements; a record is written or it is not.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = self.sync();
    }
}

fn refusal(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Reason::Overloaded,
        format!("the audit log cannot be written: {why}; mend that at the gateway, or try again later"),
    )
}

#[cfg(test)]
mod tests;
