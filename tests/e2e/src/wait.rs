//! Waiting for something to become true.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two looks. Short beside what tests wait for, long beside what a look costs.
const EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until `condition` holds.
///
/// # Errors
/// Naming `what` where it does not hold `within` the time. A look that hangs is cut off then too.
pub async fn wait_until<F>(what: &str, within: Duration, mut condition: F) -> anyhow::Result<()>
where
    F: AsyncFnMut() -> bool,
{
    let deadline = Instant::now() + within;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async {
        loop {
            ticks.tick().await;
            if condition().await {
                return;
            }
        }
    };
    if tokio::time::timeout_at(deadline, looking).await.is_err() {
        bail!("waited {within:?} in vain until {what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_the_condition_holds() {
        let mut looks = 0;
        wait_until("the third look", Duration::from_secs(10), async || {
            looks += 1;
            looks == 3
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn waiting_in_vain_says_for_what() {
        let hanging = wait_until("pigs fly", Duration::from_millis(50), std::future::pending::<bool>);
        let error = hanging.await.unwrap_err().to_string();
        assert!(error.contains("until pigs fly"), "{error}");
    }
}
