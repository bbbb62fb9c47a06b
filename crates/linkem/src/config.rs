//! What a link is like: the settings of one direction, and of both.

use std::num::NonZeroU64;
use std::time::Duration;

/// The queue in front of the link where nothing else is said: what a common LTE modem holds.
pub const DEFAULT_QUEUE_BYTES: u64 = 64_000;

/// The settings of one direction of a link. The default is a perfect link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkConfig {
    /// Time on the wire, one way.
    pub delay: Duration,
    /// How far the delay of a packet strays from `delay`, at most, to either side. Jitter alone never
    /// changes the order of packets: one that is late holds up those behind it.
    pub jitter: Duration,
    /// Which packets vanish on the wire, after they have taken their share of the rate.
    pub loss: Loss,
    /// Bits per second, or no limit.
    pub rate: Option<NonZeroU64>,
    /// Bytes that may wait for the transmitter (one packet more is being sent); the rest is dropped
    /// at the tail. Without a rate nothing waits.
    pub queue: u64,
    /// The largest packet that the link carries, in bytes with all headers; larger ones vanish.
    pub mtu: u64,
    /// How likely a packet arrives twice. The copy is made behind the bottleneck, and costs no rate.
    pub duplicate: Probability,
    /// How likely a packet is held back, so that later ones overtake it.
    pub reorder: Probability,
    /// How likely one bit of a packet is flipped.
    pub corrupt: Probability,
    /// Whether the link carries anything. A cut takes what waits and what flies with it.
    pub up: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::default(),
            rate: None,
            queue: DEFAULT_QUEUE_BYTES,
            mtu: u64::MAX,
            duplicate: Probability::NEVER,
            reorder: Probability::NEVER,
            corrupt: Probability::NEVER,
            up: true,
        }
    }
}

/// Both directions of a link, seen from the thin end (the site, the client).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkPair {
    /// From the site to the net.
    pub up: LinkConfig,
    /// From the net to the site.
    pub down: LinkConfig,
}

impl LinkPair {
    /// Cuts both directions, or mends them, and leaves every other setting as it is.
    #[must_use]
    pub fn with_up(mut self, up: bool) -> Self {
        self.up.up = up;
        self.down.up = up;
        self
    }
}

/// The same link in both directions.
impl From<LinkConfig> for LinkPair {
    fn from(config: LinkConfig) -> Self {
        Self {
            up: config,
            down: config,
        }
    }
}

/// How packets are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each packet by itself.
    Random(Probability),
    /// In bursts, as radio links do: the two-state chain of Gilbert and Elliott. The good state
    /// loses nothing.
    Burst {
        /// From the good state to the bad one, per packet.
        worsen: Probability,
        /// From the bad state to the good one, per packet.
        recover: Probability,
        /// How likely a packet is lost in the bad state.
        loss_when_bad: Probability,
    },
}

impl Loss {
    /// Bursts of `length` packets on average, all of them lost, that make up `share` of all packets
    /// in the long run.
    ///
    /// # Errors
    /// Where no such chain exists: a length below one, or a share so near to one that the good
    /// state could not last a packet.
    pub fn bursts(share: Probability, length: f64) -> Result<Self, NotAProbability> {
        let recover = Probability::new(1.0 / length)?;
        // In balance as many packets enter the bad state as leave it.
        let worsen = Probability::new(share.get() * recover.get() / (1.0 - share.get()))?;
        Ok(Self::Burst {
            worsen,
            recover,
            loss_when_bad: Probability::ALWAYS,
        })
    }
}

impl Default for Loss {
    fn default() -> Self {
        Self::Random(Probability::NEVER)
    }
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    /// Zero.
    pub const NEVER: Self = Self(0.0);
    /// One.
    pub const ALWAYS: Self = Self(1.0);

    /// # Errors
    /// Where `value` is below 0, above 1, or not a number.
    pub fn new(value: f64) -> Result<Self, NotAProbability> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(NotAProbability(value))
        }
    }

    /// # Errors
    /// As [`Probability::new`], of a hundredth of `percent`.
    pub fn percent(percent: f64) -> Result<Self, NotAProbability> {
        Self::new(percent / 100.0)
    }

    /// The number, from 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// A number that is no probability.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a probability: it must be from 0 to 1")]
pub struct NotAProbability(f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_from_zero_to_one() {
        for bad in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            assert!(Probability::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Probability::new(1.0), Ok(Probability::ALWAYS));
        assert_eq!(Probability::percent(50.0), Probability::new(0.5));
    }

    #[test]
    fn bursts_that_cannot_be_are_refused() {
        let half = Probability::new(0.5).unwrap();
        assert!(Loss::bursts(half, 0.5).is_err());
        assert!(Loss::bursts(Probability::ALWAYS, 3.0).is_err());
        assert!(Loss::bursts(half, 3.0).is_ok());
    }
}
