//! Ordered shutdown: stop accepting, drain, flush; each phase has an end.
//!
//! ```text
//!            signal, request,          drained, deadline,         flushed, deadline,
//!            critical task ended       another signal             another signal
//! running ─────────────────────▶ drain ───────────────────▶ flush ──────────────────▶ end
//!          stopping() cancelled         cutting() cancelled        whatever is left
//!                                       flushing() cancelled       is named
//! ```
//!
//! Every task of a process is spawned through [`Tasks`], in one of three roles:
//!
//! * **work** ([`Tasks::spawn`]): one connection or stream. Drain waits for it; at the deadline it sees
//!   [`Tasks::cutting`] and ends with a reset.
//! * **critical** ([`Tasks::spawn_critical`]): an accept loop, the store's writer. It may end only once the process is
//!   stopping; if it ends by itself, that is an error that stops the process. A loop that takes new work ends at
//!   [`Tasks::stopping`]; one that work depends on, or that has something to write, ends at [`Tasks::flushing`].
//! * **aside** ([`Tasks::spawn_aside`]): what nobody misses, such as the watchdog; dropped when the flush begins.

mod signals;
mod tasks;

use std::time::Duration;

use crate::error::{CliError, Exit};
use crate::sdnotify;

pub use signals::{SignalSource, Signals};
pub use tasks::{TaskEnded, Tasks};

/// How long each phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the wish to stop until connections that are still open are cut.
    pub drain: Duration,
    /// From then until the process ends, whatever is not yet written.
    pub flush: Duration,
}

impl Default for Deadlines {
    /// 30 s and 5 s: together well below the 90 s that systemd allows by default.
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(30),
            flush: Duration::from_secs(5),
        }
    }
}

/// How an orderly shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Pieces of work that were still running when drain ended, and were cut.
    pub cut: usize,
}

/// A shutdown that the process must not report as success.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// A task that the process cannot do without ended by itself; the process then stopped in order.
    #[error(transparent)]
    TaskEnded(#[from] TaskEnded),
    /// Tasks did not end in time, so what they had to write may be lost.
    #[error("{} did not end in time and may not have written everything", names.join(", "))]
    Unflushed {
        /// The critical tasks that were still running.
        names: Vec<&'static str>,
    },
}

impl From<ShutdownError> for CliError {
    fn from(error: ShutdownError) -> Self {
        let (code, hint) = match error {
            ShutdownError::TaskEnded(_) => ("task-ended", "the log says what led to it"),
            ShutdownError::Unflushed { .. } => ("shutdown-unflushed", "is the disk full or slow?"),
        };
        Self::new(Exit::Failure, code, error.to_string()).with_hint(hint)
    }
}

/// Waits for the wish to stop, then shuts down in order. Returns when the process may exit.
pub async fn run(tasks: &Tasks, mut signals: impl SignalSource, deadlines: Deadlines) -> Result<Ended, ShutdownError> {
    let cause = tokio::select! {
        signal = signals.recv() => Ok(signal),
        () = tasks.stopping().cancelled_owned() => Ok("request"),
        ended = tasks.critical_ended() => Err(ended),
    };
    match &cause {
        Ok(cause) => tracing::info!(%cause, open = tasks.open(), "stopping"),
        Err(ended) => tracing::error!(task = ended.name, reason = %ended.reason, "critical task ended, stopping"),
    }
    sdnotify::stopping("draining");
    tasks.stop();

    within(deadlines.drain, &mut signals, tasks.work_ended()).await;
    let cut = tasks.open();
    if cut > 0 {
        tracing::warn!(cut, "drain ended with work open");
    }
    sdnotify::status("flushing");
    tasks.cut_and_flush();

    let flushed = within(deadlines.flush, &mut signals, tasks.all_ended()).await;
    let left = tasks.critical_left();
    match cause {
        Err(ended) => Err(ended.into()),
        Ok(_) if !left.is_empty() => Err(ShutdownError::Unflushed { names: left }),
        Ok(_) => {
            tracing::info!(cut, in_time = flushed, "stopped");
            Ok(Ended { cut })
        }
    }
}

/// Waits for a phase to complete; false if its deadline or another signal ended it.
async fn within(deadline: Duration, signals: &mut impl SignalSource, phase: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = phase => true,
        signal = signals.recv() => {
            tracing::warn!(signal, "told again to stop");
            false
        }
        () = tokio::time::sleep(deadline) => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// All of these run on paused time: durations are exact.
    const DEADLINES: Deadlines = Deadlines {
        drain: Duration::from_secs(30),
        flush: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_streams_and_then_everything_flushes() {
        let (tasks, signals, start) = started(&["SIGTERM"]);
        tasks.spawn(tokio::time::sleep(Duration::from_secs(20)));
        let (flushing, stopping) = (tasks.flushing(), tasks.stopping());
        tasks.spawn_critical("store", async move {
            flushing.cancelled().await;
            assert_eq!(start.elapsed().as_secs(), 20);
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, String>(())
        });
        tasks.spawn_critical("proxy", async move {
            stopping.cancelled().await;
            assert_eq!(start.elapsed().as_secs(), 0);
            Ok::<_, String>(())
        });
        assert_eq!(run(&tasks, signals, DEADLINES).await.unwrap(), Ended { cut: 0 });
        assert_eq!(start.elapsed().as_secs(), 22);
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_deadline_cuts_what_is_still_open() {
        let (tasks, signals, start) = started(&["SIGTERM"]);
        let cutting = tasks.cutting();
        tasks.spawn(async move {
            cutting.cancelled().await;
            assert_eq!(start.elapsed(), DEADLINES.drain);
        });
        assert_eq!(run(&tasks, signals, DEADLINES).await.unwrap(), Ended { cut: 1 });
        assert_eq!(start.elapsed(), DEADLINES.drain);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_drain_and_a_third_the_flush() {
        let (tasks, signals, start) = started(&["SIGTERM", "SIGINT", "SIGINT"]);
        tasks.spawn(std::future::pending::<()>());
        assert_eq!(run(&tasks, signals, DEADLINES).await.unwrap(), Ended { cut: 1 });
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_ignores_the_cut_cannot_hold_the_process() {
        let (tasks, signals, start) = started(&["SIGTERM"]);
        tasks.spawn(std::future::pending::<()>());
        run(&tasks, signals, DEADLINES).await.unwrap();
        assert_eq!(start.elapsed(), DEADLINES.drain + DEADLINES.flush);
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_ends_stops_the_process_in_order_and_is_named() {
        let (tasks, signals, start) = started(&[]);
        tasks.spawn(tokio::time::sleep(Duration::from_secs(3)));
        tasks.spawn_critical("store", async { Err::<(), _>("disk full") });
        let error = CliError::from(run(&tasks, signals, DEADLINES).await.unwrap_err());
        assert_eq!(
            error.to_string(),
            "error[task-ended]: store stopped: disk full (the log says what led to it)"
        );
        assert_eq!(start.elapsed().as_secs(), 3, "open streams were drained");
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_returns_or_panics_has_ended_too() {
        let (tasks, signals, _) = started(&[]);
        tasks.spawn_critical("proxy", async { Ok::<_, String>(()) });
        let error = run(&tasks, signals, DEADLINES).await.unwrap_err();
        assert_eq!(error.to_string(), "proxy stopped: it returned");

        let (tasks, signals, _) = started(&[]);
        tasks.spawn_critical("proxy", async { panic!("index out of bounds") as Result<(), String> });
        let error = run(&tasks, signals, DEADLINES).await.unwrap_err();
        assert_eq!(error.to_string(), "proxy stopped: it panicked: index out of bounds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_is_taken_back_stops_nothing_and_is_not_waited_for() {
        let (tasks, signals, start) = started(&[]);
        let taken_back = tokio_util::sync::CancellationToken::new();
        let never = std::future::pending::<Result<(), String>>();
        tasks.spawn_critical_until("forward", taken_back.clone(), never);
        taken_back.cancel();
        let mut running = std::pin::pin!(run(&tasks, signals, DEADLINES));
        let second = Duration::from_secs(1);
        tokio::time::timeout(second, &mut running).await.unwrap_err();
        tasks.stop();
        running.await.unwrap();
        assert_eq!(start.elapsed(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_will_not_flush_is_named() {
        let (tasks, signals, start) = started(&["SIGTERM"]);
        tasks.spawn_critical("audit log", std::future::pending::<Result<(), String>>());
        let error = run(&tasks, signals, DEADLINES).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "audit log did not end in time and may not have written everything"
        );
        assert_eq!(start.elapsed(), DEADLINES.flush);
    }

    #[tokio::test(start_paused = true)]
    async fn the_process_can_ask_itself_to_stop_and_side_tasks_do_not_hold_it() {
        let (tasks, signals, start) = started(&[]);
        tasks.spawn_aside(std::future::pending::<()>());
        tasks.stop();
        run(&tasks, signals, DEADLINES).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    /// Signals that are all pending from the start, and none after them.
    fn started(signals: &[&'static str]) -> (Tasks, Scripted, Instant) {
        let (sender, receiver) = mpsc::channel(8);
        signals.iter().for_each(|signal| sender.try_send(*signal).unwrap());
        (
            Tasks::new(),
            Scripted {
                receiver,
                _sender: sender,
            },
            Instant::now(),
        )
    }

    struct Scripted {
        receiver: mpsc::Receiver<&'static str>,
        _sender: mpsc::Sender<&'static str>,
    }

    impl SignalSource for Scripted {
        async fn recv(&mut self) -> &'static str {
            self.receiver.recv().await.unwrap()
        }
    }
}
