//! What the process tells its service manager, see sd_notify(3). Without one, all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// Start-up is complete: `READY=1`, with a status line.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Shutdown has begun: `STOPPING=1`, with a status line.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line on how things are, shown by `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Feeds the watchdog at half its interval for as long as `live` says so, where the service manager set one.
///
/// Because this runs on the runtime whose health it vouches for, a runtime that no longer runs tasks stops it too.
/// Never returns: give it to [`crate::shutdown::Tasks::spawn_aside`].
pub async fn watchdog(live: impl Fn() -> bool + Send) {
    match sd_notify::watchdog_enabled() {
        Some(interval) => feed(interval, live, || notify(&[NotifyState::Watchdog])).await,
        None => std::future::pending().await,
    }
}

async fn feed(interval: Duration, live: impl Fn() -> bool, food: impl Fn()) {
    // An interval of zero, which interval() refuses, is a mistake of the service manager's.
    let mut ticks = tokio::time::interval((interval / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if live() {
            food();
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not notified");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_at_half_its_interval_only_while_the_process_is_live() {
        let start = Instant::now();
        let fed = RefCell::new(Vec::new());
        let asked = Cell::new(0);
        let live = || {
            asked.set(asked.get() + 1);
            asked.get() <= 3
        };
        let feeding = feed(Duration::from_secs(30), live, || {
            fed.borrow_mut().push(start.elapsed().as_secs())
        });
        tokio::time::timeout(Duration::from_secs(100), feeding)
            .await
            .unwrap_err();
        assert_eq!(*fed.borrow(), [0, 15, 30]);
        assert_eq!(asked.get(), 7);
    }
}
