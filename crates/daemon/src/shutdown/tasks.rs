//! Every task of a process, by the role it has in a shutdown.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A critical task ended while the process was not stopping.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name} stopped: {reason}")]
pub struct TaskEnded {
    /// The name it was spawned with.
    pub name: &'static str,
    /// Its error, its panic, or that it simply returned.
    pub reason: String,
}

/// The tasks of a process; clones share them. [`super`] tells the roles.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: CancellationToken,
    cutting: CancellationToken,
    flushing: CancellationToken,
    failed: CancellationToken,
    work: TaskTracker,
    critical: TaskTracker,
    register: Mutex<Register>,
}

#[derive(Debug, Default)]
struct Register {
    /// Critical tasks that run, by the order in which they were spawned.
    running: BTreeMap<u64, &'static str>,
    spawned: u64,
    /// The first critical task that ended by itself.
    ended: Option<TaskEnded>,
}

impl Tasks {
    /// No tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns work: one connection or one stream, which a shutdown lets finish.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        // Futures of connections are large, and each layer of spawning would move them once more.
        self.shared.work.spawn(Box::pin(work))
    }

    /// Spawns work that is dropped in the middle of anything once drain is over, which cuts what it serves.
    pub fn spawn_cut(&self, work: impl Future<Output: Send> + Send + 'static) {
        let cutting = self.cutting();
        let work = Box::pin(work);
        self.shared
            .work
            .spawn(async move { cutting.run_until_cancelled_owned(work).await });
    }

    /// Spawns a task that the process cannot do without. If it ends before [`Tasks::stopping`], well or not, the
    /// process stops and names it.
    pub fn spawn_critical<E: Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.spawn_critical_until(name, CancellationToken::new(), task);
    }

    /// As [`Self::spawn_critical`], for a task that the process may do without once it is taken back; it is dropped then.
    pub fn spawn_critical_until<E: Display>(
        &self,
        name: &'static str,
        taken_back: CancellationToken,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let id = self.register().add(name);
        let shared = Arc::clone(&self.shared);
        // A task of its own catches the panic that a future within this one would take along.
        let until = taken_back.clone();
        let running = self.shared.critical.spawn(async move {
            let ended = until.run_until_cancelled_owned(task).await;
            ended.unwrap_or(Ok(())).map_err(|error| error.to_string())
        });
        self.shared.critical.spawn(async move {
            let reason = match running.await {
                Ok(Ok(())) if taken_back.is_cancelled() => {
                    shared.register().running.remove(&id);
                    return;
                }
                Ok(Ok(())) => "it returned".to_owned(),
                Ok(Err(reason)) => reason,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
                    Err(_) => "it was aborted".to_owned(),
                },
            };
            shared.critical_ended(id, TaskEnded { name, reason });
        });
    }

    /// Spawns what may be dropped in the middle of anything, once drain is over.
    pub fn spawn_aside(&self, task: impl Future<Output: Send> + Send + 'static) {
        let flushing = self.flushing();
        self.shared
            .critical
            .spawn(async move { flushing.run_until_cancelled_owned(task).await });
    }

    /// Cancelled when the process stops: take no new work, tell peers to go elsewhere.
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stopping.clone()
    }

    /// Cancelled when drain is over: end what is still open, with a reset where there is one.
    pub fn cutting(&self) -> CancellationToken {
        self.shared.cutting.clone()
    }

    /// Cancelled together with [`Tasks::cutting`]: write out what is held in memory, and end.
    pub fn flushing(&self) -> CancellationToken {
        self.shared.flushing.clone()
    }

    /// Asks the process to stop, as a signal would.
    pub fn stop(&self) {
        self.shared.stopping.cancel();
    }

    /// How much work is running.
    pub fn open(&self) -> usize {
        self.shared.work.len()
    }

    pub(super) fn cut_and_flush(&self) {
        self.shared.cutting.cancel();
        self.shared.flushing.cancel();
    }

    pub(super) async fn work_ended(&self) {
        self.shared.work.close();
        self.shared.work.wait().await;
    }

    pub(super) async fn all_ended(&self) {
        self.shared.critical.close();
        self.work_ended().await;
        self.shared.critical.wait().await;
    }

    pub(super) async fn critical_ended(&self) -> TaskEnded {
        self.shared.failed.cancelled().await;
        match &self.register().ended {
            Some(ended) => ended.clone(),
            None => TaskEnded {
                name: "a task",
                reason: "it ended".to_owned(),
            },
        }
    }

    pub(super) fn critical_left(&self) -> Vec<&'static str> {
        self.register().running.values().copied().collect()
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.shared.register()
    }
}

impl Shared {
    fn critical_ended(&self, id: u64, ended: TaskEnded) {
        let mut register = self.register();
        register.running.remove(&id);
        if self.stopping.is_cancelled() {
            tracing::debug!(task = ended.name, reason = %ended.reason, "critical task ended");
            return;
        }
        register.ended.get_or_insert(ended);
        drop(register);
        self.failed.cancel();
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        // Entries are added and removed whole: a panic elsewhere leaves nothing half done.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Register {
    fn add(&mut self, name: &'static str) -> u64 {
        self.spawned += 1;
        self.running.insert(self.spawned, name);
        self.spawned
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
