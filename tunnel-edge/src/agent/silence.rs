//! How long the link may be silent: learned for each network, from what comes in after a silence. And whether UDP gets
//! through at all.
//!
//! Each round the gateway is asked to answer after an interval. If the answer comes, the way in has stayed open for that long
//! and the next interval may be longer; if not, and the gateway answers at once when asked anew, the NAT had forgotten us.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tunnel_daemon::file::{Mode, replace};
use tunnel_identity::UnixTime;

/// Below the shortest timeout of UDP that NATs are known to have (RFC 4787 section 4.3 asks for two minutes, many give
/// thirty seconds).
pub(super) const SHORTEST: Duration = Duration::from_secs(25);
/// A little less than what a NAT should allow, and Linux does. Longer would save little, and it is also how long an idle
/// edge may not notice that its gateway was restarted without a farewell.
pub(super) const LONGEST: Duration = Duration::from_secs(110);
/// A gain below this is not worth another failure.
const WORTH: Duration = Duration::from_secs(10);
/// An interval that has failed may be tried again after so long: the network may have another router by then.
const FORGIVEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Networks that are remembered; the one that was used longest ago goes.
const REMEMBERED: usize = 32;

/// What is known of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Learned {
    /// The longest silence after which something came in, in seconds.
    holds_s: u64,
    /// The shortest after which nothing did, and when that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fails_s: Option<u64>,
    #[serde(default)]
    failed_at: u64,
    /// The last time, UDP did not get through and TLS did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    blocked: bool,
    /// When it was last learned from.
    used_at: u64,
}

impl Learned {
    fn new(now: UnixTime) -> Self {
        Self {
            holds_s: 0,
            fails_s: None,
            failed_at: 0,
            blocked: false,
            used_at: now.secs(),
        }
    }

    /// Whether UDP did not get through, the last time.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// How long the next silence is to be.
    pub(super) fn interval(&self) -> Duration {
        let holds = Duration::from_secs(self.holds_s);
        let doubled = (2 * holds).clamp(SHORTEST, LONGEST);
        let next = match self.fails_s.map(Duration::from_secs) {
            // Half of what is left between the two.
            Some(fails) => doubled.min((holds + fails) / 2),
            None => doubled,
        };
        if next < holds + WORTH { holds } else { next }.clamp(SHORTEST, LONGEST)
    }

    /// Something came in after so long.
    fn held(&mut self, silence: Duration, now: UnixTime) {
        self.used_at = now.secs();
        self.holds_s = self.holds_s.max(silence.as_secs());
        if self.fails_s.is_some_and(|fails| fails <= self.holds_s)
            || now.since(UnixTime::from_secs(self.failed_at)) > FORGIVEN
        {
            self.fails_s = None;
        }
    }

    /// Nothing came in after so long, and something did when it was asked for.
    fn failed(&mut self, silence: Duration, now: UnixTime) {
        self.used_at = now.secs();
        self.fails_s = Some(self.fails_s.unwrap_or(u64::MAX).min(silence.as_secs()));
        self.failed_at = now.secs();
        if self.holds_s >= silence.as_secs() {
            // It has held before: the network is another one, or a packet was lost.
            self.holds_s = silence.as_secs() / 2;
        }
    }
}

/// What is known of all networks, in the state directory.
#[derive(Debug)]
pub(super) struct Networks {
    path: PathBuf,
    known: BTreeMap<String, Learned>,
}

impl Networks {
    /// What cannot be read is learned anew.
    pub(super) fn open(state: &Path) -> Self {
        let path = state.join("networks.json");
        let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            path,
            known: known.unwrap_or_default(),
        }
    }

    /// What is known of the network from which packets leave with this address.
    pub(super) fn get(&self, source: Option<IpAddr>, now: UnixTime) -> Learned {
        let known = self.known.get(&key(source)).copied();
        known.unwrap_or_else(|| Learned::new(now))
    }

    pub(super) fn held(&mut self, source: Option<IpAddr>, silence: Duration, now: UnixTime) -> io::Result<()> {
        self.learn(source, now, |learned| learned.held(silence, now))
    }

    pub(super) fn failed(&mut self, source: Option<IpAddr>, silence: Duration, now: UnixTime) -> io::Result<()> {
        self.learn(source, now, |learned| learned.failed(silence, now))
    }

    pub(super) fn blocked(&mut self, source: Option<IpAddr>, blocked: bool, now: UnixTime) -> io::Result<()> {
        if self.get(source, now).blocked == blocked {
            return Ok(());
        }
        self.learn(source, now, |learned| {
            (learned.blocked, learned.used_at) = (blocked, now.secs())
        })
    }

    /// Written is what has changed but for the time, so that an edge that has learned all writes nothing.
    fn learn(&mut self, source: Option<IpAddr>, now: UnixTime, learn: impl FnOnce(&mut Learned)) -> io::Result<()> {
        let before = self.known.get(&key(source)).copied();
        let mut learned = self.get(source, now);
        learn(&mut learned);
        self.known.insert(key(source), learned);
        if self.known.len() > REMEMBERED
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.used_at)
        {
            let oldest = oldest.0.clone();
            self.known.remove(&oldest);
        }
        let what = |learned: Learned| (learned.holds_s, learned.fails_s, learned.blocked);
        if before.map(what) == Some(what(learned)) {
            return Ok(());
        }
        replace(&self.path, &serde_json::to_vec(&self.known)?, Mode::Private)
    }
}

fn key(source: Option<IpAddr>) -> String {
    source.map_or_else(|| "unknown".to_owned(), |source| source.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    /// The intervals that are tried on a network that forgets after so long, until they change no more.
    fn tried(forgets_after: u64) -> Vec<u64> {
        let mut learned = Learned::new(NOW);
        (0..12)
            .map(|_| {
                let interval = learned.interval();
                match interval.as_secs() < forgets_after {
                    true => learned.held(interval, NOW),
                    false => learned.failed(interval, NOW),
                }
                interval.as_secs()
            })
            .collect()
    }

    #[test]
    fn the_interval_grows_while_it_holds_and_settles_below_what_fails() {
        assert_eq!(tried(3600)[..5], [25, 50, 100, 110, 110]);
        assert_eq!(tried(60)[..6], [25, 50, 100, 75, 62, 50]);
        for forgets_after in [30, 45, 60, 90, 109, 180] {
            let tried = tried(forgets_after);
            let settled = tried[11];
            assert!(settled < forgets_after, "{forgets_after}: {tried:?}");
            assert_eq!(tried[8..], [settled; 4], "{forgets_after}: {tried:?}");
            let failures = tried.iter().filter(|&&interval| interval >= forgets_after).count();
            assert!(failures <= 3, "{forgets_after}: {tried:?}");
        }
        // Shorter than that it never gets, whatever happens.
        assert_eq!(tried(10), [25; 12]);
    }

    #[test]
    fn what_has_held_may_fail_and_is_tried_again_when_that_is_long_ago() {
        let mut learned = Learned::new(NOW);
        for silence in [25, 50, 100, 110] {
            learned.held(Duration::from_secs(silence), NOW);
        }
        learned.failed(LONGEST, NOW);
        assert!(learned.interval() < LONGEST, "{learned:?}");
        let later = NOW.plus(FORGIVEN + Duration::from_secs(1));
        learned.held(Duration::from_secs(60), later);
        assert_eq!(learned.interval(), LONGEST);
    }

    #[test]
    fn networks_are_told_apart_remembered_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let source = |n: u8| Some(IpAddr::from([192, 168, 1, n]));
        let mut networks = Networks::open(dir.path());
        networks.held(source(1), SHORTEST, NOW).unwrap();
        networks.failed(source(2), SHORTEST, NOW).unwrap();
        networks.held(None, SHORTEST, NOW).unwrap();
        let mut networks = Networks::open(dir.path());
        networks.blocked(source(2), true, NOW).unwrap();
        let networks_now = Networks::open(dir.path());
        assert_eq!(
            [1, 2].map(|n| networks_now.get(source(n), NOW).is_blocked()),
            [false, true]
        );
        let interval = |networks: &Networks, n| networks.get(source(n), NOW).interval().as_secs();
        assert_eq!([1, 2, 3].map(|n| interval(&networks, n)), [50, 25, 25]);
        for n in 3..=255 {
            let later = NOW.plus(Duration::from_secs(n.into()));
            networks.held(source(n), SHORTEST, later).unwrap();
        }
        assert_eq!(Networks::open(dir.path()).known.len(), REMEMBERED);
        assert_eq!([1, 255].map(|n| interval(&networks, n)), [25, 50]);

        fs::write(dir.path().join("networks.json"), "{\"192").unwrap();
        assert_eq!(interval(&Networks::open(dir.path()), 255), 25);
    }
}
