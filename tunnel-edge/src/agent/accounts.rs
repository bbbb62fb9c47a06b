//! What the link carries is counted, and what has spent its budget is not let through.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info};
use tunnel_carrier::{Meter, Tunnel};
use tunnel_identity::UnixTime;
use tunnel_model::{Class, Refusal};

use crate::{
    budget::{Account, Book, Carried},
    config::LinkBudget,
};

/// Between two counts: a link may carry so much more than its budget.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Between two times that the account is written down, where much was carried.
const KEPT_EVERY: Duration = Duration::from_secs(60);
/// Likewise where there was little, such as the signs of life of an idle link: each write wears a flash card.
const KEPT_IDLE_EVERY: Duration = Duration::from_secs(15 * 60);

/// The account of the day.
#[derive(Debug)]
pub(crate) struct Accounts {
    book: Book,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    account: Account,
    kept: Account,
    kept_at: Instant,
    /// Classes whose streams were cut because their budget is spent.
    spent: Vec<Class>,
}

impl Accounts {
    /// Goes on with what was kept in the state directory.
    pub(super) fn open(state: &Path, now: UnixTime) -> Self {
        let book = Book::new(state);
        let account = book.open(now);
        Self {
            book,
            inner: Mutex::new(Inner {
                kept: account.clone(),
                account,
                kept_at: Instant::now(),
                spent: Vec::new(),
            }),
        }
    }

    /// Takes in what a carrier has carried since the last time, and cuts the streams of classes that have spent their budget
    /// by that.
    pub(super) fn count(&self, carrier: &mut Counted, tunnel: &Tunnel, budget: &LinkBudget, now: UnixTime) {
        let carried = carrier.since(tunnel);
        let mut inner = self.inner();
        inner.account.take_in(&carried, now);
        for class in Class::ALL {
            match inner.account.spent(class, budget) {
                Some(why) if !inner.spent.contains(&class) => {
                    info!(%class, "{}", why.message);
                    inner.spent.push(class);
                    tunnel.cut_class(class, &why);
                }
                Some(_) => {}
                None => inner.spent.retain(|spent| *spent != class),
            }
        }
        self.keep_if_due(&mut inner, budget);
    }

    fn keep_if_due(&self, inner: &mut Inner, budget: &LinkBudget) {
        let since = inner.kept_at.elapsed();
        let much = || inner.account.is_far_from(&inner.kept, budget);
        if since >= KEPT_IDLE_EVERY || since >= KEPT_EVERY && much() {
            self.keep(inner);
        }
    }

    /// Whether a stream of this class may be opened.
    pub(super) fn admit(&self, class: Class, budget: &LinkBudget, now: UnixTime) -> Result<(), Refusal> {
        let mut inner = self.inner();
        // A day may have begun.
        inner.account.take_in(&Carried::default(), now);
        inner.account.spent(class, budget).map_or(Ok(()), Err)
    }

    /// What was carried today.
    pub(super) fn today(&self) -> Account {
        self.inner().account.clone()
    }

    /// Writes the account down.
    pub(super) fn close(&self) {
        self.keep(&mut self.inner());
    }

    fn keep(&self, inner: &mut Inner) {
        inner.kept_at = Instant::now();
        if inner.account == inner.kept {
            return;
        }
        match self.book.keep(&inner.account) {
            Ok(()) => inner.kept = inner.account.clone(),
            Err(error) => debug!(%error, "what the link has carried is not kept"),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A carrier, and what of it was taken in.
pub(super) struct Counted {
    pub(super) meter: Meter,
    counted: u64,
}

impl Counted {
    pub(super) fn new(meter: Meter) -> Self {
        Self { meter, counted: 0 }
    }

    fn since(&mut self, tunnel: &Tunnel) -> Carried {
        let all = self.meter.sent_bytes() + self.meter.received_bytes();
        let before = std::mem::replace(&mut self.counted, all);
        let classes = Class::ALL.into_iter().zip(tunnel.take_moved());
        Carried {
            all: all.saturating_sub(before),
            classes: classes.filter(|(_, bytes)| *bytes > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::budget::WORTH_KEEPING;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[tokio::test(start_paused = true)]
    async fn much_is_kept_within_a_minute_little_within_a_quarter_of_an_hour_and_all_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(dir.path(), NOW);
        let kept = || Book::new(dir.path()).open(NOW).carried.all;
        let mut all = 0;
        for (bytes, minutes) in [(WORTH_KEEPING, 1), (WORTH_KEEPING - 1, 15), (1, 15)] {
            let before = kept();
            carry(&accounts, bytes);
            all += bytes;
            advance(Duration::from_secs(minutes * 60 - 1)).await;
            carry(&accounts, 0);
            assert_eq!(kept(), before, "{bytes} bytes, too early");
            advance(Duration::from_secs(1)).await;
            carry(&accounts, 0);
            assert_eq!(kept(), all, "{bytes} bytes");
        }
        carry(&accounts, 5);
        accounts.close();
        assert_eq!(kept(), all + 5);
    }

    fn carry(accounts: &Accounts, all: u64) {
        let mut inner = accounts.inner();
        let carried = Carried {
            all,
            ..Carried::default()
        };
        inner.account.take_in(&carried, NOW);
        accounts.keep_if_due(&mut inner, &LinkBudget::default());
    }
}
