//! What the link has carried today, and how much it may: by class, and in all.
//!
//! A day is one of UTC. The count is kept in `budget.json` of the state directory, so that a restart spends nothing twice.
//! A power cut takes from it what was carried in the minute before, or, where the link was as good as idle, up to
//! [`WORTH_KEEPING`] of the quarter of an hour before.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tunnel_daemon::file::{self, Mode};
use tunnel_identity::UnixTime;
use tunnel_model::{Class, Reason, Refusal};

use crate::config::{Bytes, LinkBudget};

/// What is worth a write to a flash card, in bytes; less, where it is more than a hundredth of a budget.
pub(crate) const WORTH_KEEPING: u64 = 64 * 1024;

/// What was carried on one day, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// Packets of all kinds, in bytes of UDP or TCP payload.
    pub(crate) all: u64,
    /// Data of the streams of each class, in bytes as they cross the link.
    pub(crate) classes: BTreeMap<Class, u64>,
}

impl Carried {
    /// Adds what was carried since.
    fn add(&mut self, more: &Self) {
        self.all = self.all.saturating_add(more.all);
        for (class, bytes) in &more.classes {
            let sum = self.classes.entry(*class).or_default();
            *sum = sum.saturating_add(*bytes);
        }
    }
}

/// The account of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The day, such as `2026-11-26`.
    pub(crate) day: String,
    #[serde(flatten)]
    pub(crate) carried: Carried,
}

impl Account {
    fn new(now: UnixTime) -> Self {
        Self {
            day: day(now),
            carried: Carried::default(),
        }
    }

    /// Takes in what was carried since the last time.
    pub(crate) fn take_in(&mut self, more: &Carried, now: UnixTime) {
        if self.day != day(now) {
            *self = Self::new(now);
        }
        self.carried.add(more);
    }

    /// Whether so much was carried since this was kept that it is to be kept anew.
    pub(crate) fn is_far_from(&self, kept: &Self, budget: &LinkBudget) -> bool {
        let far = |now: u64, kept: u64, budget: Option<Bytes>| {
            let hundredth = budget.map_or(WORTH_KEEPING, |budget| budget.0.div_ceil(100));
            now.saturating_sub(kept) >= WORTH_KEEPING.min(hundredth.max(1))
        };
        let of = |account: &Self, class| account.carried.classes.get(&class).copied().unwrap_or_default();
        self.day != kept.day
            || far(self.carried.all, kept.carried.all, budget.all)
            || Class::ALL
                .into_iter()
                .any(|class| far(of(self, class), of(kept, class), budget.of(class)))
    }

    /// Why streams of a class are not let through any more today, where they are not.
    pub(crate) fn spent(&self, class: Class, budget: &LinkBudget) -> Option<Refusal> {
        let of_class = self.carried.classes.get(&class).copied().unwrap_or_default();
        let (what, limit) = match (budget.of(class), budget.all) {
            (Some(limit), _) if of_class >= limit.0 => (class.as_str(), limit),
            (_, Some(limit)) if class > Class::Interactive && self.carried.all >= limit.0 => ("all", limit),
            _ => return None,
        };
        let message = format!(
            "the link of this edge has carried its {limit} of today (link.budget.{what}); it begins anew at 00:00 UTC"
        );
        Some(Refusal::new(Reason::RateLimited, message))
    }
}

/// The text form of a time begins with its day (RFC 3339).
fn day(now: UnixTime) -> String {
    now.to_string().chars().take(10).collect()
}

/// Where the account is kept.
#[derive(Debug)]
pub(crate) struct Book(PathBuf);

impl Book {
    pub(crate) fn new(state: &Path) -> Self {
        Self(state.join("budget.json"))
    }

    /// The account that was kept; a new one where there is none, or none that can be read.
    pub(crate) fn open(&self, now: UnixTime) -> Account {
        let kept = fs::read(&self.0)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        kept.unwrap_or_else(|| Account::new(now))
    }

    pub(crate) fn keep(&self, account: &Account) -> io::Result<()> {
        let text = serde_json::to_vec(account)?;
        file::replace(&self.0, &text, Mode::Private)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn a_class_that_has_spent_its_budget_is_refused_and_others_are_not() {
        let budget = budget("metrics = \"1kB\"");
        let mut account = Account::new(NOW);
        account.take_in(&carried(0, Class::Metrics, 999), NOW);
        assert_eq!(account.spent(Class::Metrics, &budget), None);
        account.take_in(&carried(0, Class::Metrics, 1), NOW);
        let why = account.spent(Class::Metrics, &budget).unwrap();
        assert_eq!(why.reason, Reason::RateLimited);
        assert!(
            why.message.contains("its 1kB of today (link.budget.metrics)"),
            "{why:?}"
        );
        for class in [Class::Control, Class::Interactive, Class::Api, Class::Bulk] {
            assert_eq!(account.spent(class, &budget), None, "{class}");
        }
    }

    #[test]
    fn where_all_is_spent_somebody_who_types_still_gets_through() {
        let budget = budget("all = \"1MB\"");
        let mut account = Account::new(NOW);
        account.take_in(&carried(1_000_000, Class::Bulk, 900_000), NOW);
        for class in Class::ALL {
            let through = class <= Class::Interactive;
            assert_eq!(account.spent(class, &budget).is_none(), through, "{class}");
        }
    }

    #[test]
    fn nothing_is_refused_that_has_no_budget() {
        let mut account = Account::new(NOW);
        account.take_in(&carried(u64::MAX, Class::Bulk, u64::MAX), NOW);
        account.take_in(&carried(1, Class::Bulk, 1), NOW);
        for class in Class::ALL {
            assert_eq!(account.spent(class, &LinkBudget::default()), None);
        }
    }

    #[test]
    fn each_day_begins_anew() {
        let mut account = Account::new(NOW);
        account.take_in(&carried(5, Class::Api, 3), NOW);
        let tomorrow = NOW.plus(Duration::from_secs(24 * 60 * 60));
        account.take_in(&carried(7, Class::Api, 4), tomorrow);
        assert_eq!(account.carried, carried(7, Class::Api, 4));
        assert_ne!(account.day, day(NOW));
    }

    #[test]
    fn what_is_kept_anew_is_a_new_day_64_kib_or_a_hundredth_of_a_budget() {
        let kept = Account::new(NOW);
        let is_far = |more: Carried, text: &str| {
            let mut account = kept.clone();
            account.take_in(&more, NOW);
            account.is_far_from(&kept, &budget(text))
        };
        let of_packets = |all| carried(all, Class::Api, 0);
        assert!(!is_far(of_packets(0), "all = \"1B\""));
        assert!(!is_far(of_packets(WORTH_KEEPING - 1), ""));
        assert!(is_far(of_packets(WORTH_KEEPING), ""));
        assert!(is_far(of_packets(WORTH_KEEPING), "all = \"1GB\""));
        assert!(!is_far(of_packets(9_999), "all = \"1MB\""));
        assert!(is_far(of_packets(10_000), "all = \"1MB\""));
        assert!(!is_far(carried(1_000, Class::Api, 1_000), "metrics = \"10kB\""));
        assert!(is_far(carried(1_000, Class::Metrics, 100), "metrics = \"10kB\""));
        let mut tomorrow = kept.clone();
        tomorrow.take_in(&Carried::default(), NOW.plus(Duration::from_secs(24 * 60 * 60)));
        assert!(tomorrow.is_far_from(&kept, &LinkBudget::default()));
    }

    #[test]
    fn what_was_kept_is_found_again_and_what_cannot_be_read_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(dir.path());
        let mut account = book.open(NOW);
        account.take_in(&carried(5, Class::Api, 3), NOW);
        book.keep(&account).unwrap();
        assert_eq!(book.open(NOW), account);
        fs::write(dir.path().join("budget.json"), "{").unwrap();
        assert_eq!(book.open(NOW), Account::new(NOW));
    }

    fn budget(text: &str) -> LinkBudget {
        toml::from_str(text).unwrap()
    }

    fn carried(all: u64, class: Class, bytes: u64) -> Carried {
        Carried {
            all,
            classes: BTreeMap::from([(class, bytes)]),
        }
    }
}
