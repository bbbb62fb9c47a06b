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

pub mod chain;
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
use time::OffsetDateTime;
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
    flood::Bucket,
    keeper::Keeper,
    log::{Log, Size},
    metrics::AuditMetrics,
    outputs::Copies,
    record::{Event, Suppressed},
};

/// How long a record may wait until it is on the disk, and how often a log that cannot be written is tried again.
const SYNC_EVERY: Duration = Duration::from_secs(1);

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
    /// One sync at a time: whoever waits for one knows that everything before it is on the disk.
    syncing: Mutex<()>,
    metrics: AuditMetrics,
}

#[derive(Debug)]
struct Shared {
    keeper: Keeper,
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
            if keeper.write(&now(), &event).is_ok() {
                piece.recorded()?;
            }
        }
        Ok(Self {
            shared: Mutex::new(Shared {
                keeper,
                dials: Bucket::new(),
                nodes: Bucket::new(),
                authentications: Bucket::new(),
                suppressed: Suppressed::default(),
            }),
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
        self.lock().keeper.head()
    }

    /// Records what is about to be granted.
    ///
    /// # Errors
    /// It could not be written, and must not happen.
    pub fn grant(&self, event: &Event) -> Result<(), Refusal> {
        self.lock().keeper.write(&now(), event).map_err(refusal)
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
        self.lock().keeper.note(now(), event);
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
        let mut shared = self.lock();
        let Shared {
            keeper,
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
            keeper.refusal(&now(), event);
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
            let mut shared = self.lock();
            shared.keeper.retry(&now());
            if shared.suppressed.total() > 0 {
                let event = Event::Suppressed(shared.suppressed);
                if shared.keeper.write(&now(), &event).is_ok() {
                    shared.suppressed = Suppressed::default();
                }
            }
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

/// RFC 3339 in UTC, with milliseconds.
fn now() -> String {
    let time = OffsetDateTime::from(SystemTime::now());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
mod tests;
