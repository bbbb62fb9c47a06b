//! What chance has in store for a packet.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::config::{LinkConfig, Loss, Probability};

/// How long a reordered packet is held back at most, on links with less delay than this.
const LEAST_HOLD: Duration = Duration::from_millis(20);

/// What becomes of one packet on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    pub(crate) duplicated: bool,
    /// Which bit is flipped, of as many as the packet has (modulo).
    pub(crate) flipped_bit: Option<u64>,
    /// How much longer than its fellows a reordered packet takes.
    pub(crate) held_back: Option<Duration>,
    /// Time on the wire, jitter included.
    pub(crate) delay: Duration,
}

/// Draws fates. Every packet takes the same number of draws whatever the settings are, so that a
/// change of the rate, say, does not change which packets of a seed are lost.
#[derive(Debug)]
pub(crate) struct Fates {
    rng: Xoshiro256PlusPlus,
    /// The state of the Gilbert-Elliott chain.
    bad: bool,
}

impl Fates {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            bad: false,
        }
    }

    pub(crate) fn draw(&mut self, config: &LinkConfig) -> Fate {
        let [state, loss, duplicate, corrupt, reorder, hold, jitter] =
            std::array::from_fn(|_| unit(self.rng.next_u64()));
        let bit = self.rng.next_u64();
        Fate {
            lost: self.is_lost(config.loss, state, loss),
            duplicated: happens(config.duplicate, duplicate),
            flipped_bit: happens(config.corrupt, corrupt).then_some(bit),
            held_back: happens(config.reorder, reorder).then(|| config.delay.max(LEAST_HOLD).mul_f64(hold)),
            delay: (config.delay + config.jitter.mul_f64(2.0 * jitter)).saturating_sub(config.jitter),
        }
    }

    fn is_lost(&mut self, loss: Loss, state: f64, draw: f64) -> bool {
        match loss {
            Loss::Random(probability) => happens(probability, draw),
            Loss::Burst {
                worsen,
                recover,
                loss_when_bad,
            } => {
                self.bad ^= happens(if self.bad { recover } else { worsen }, state);
                self.bad && happens(loss_when_bad, draw)
            }
        }
    }
}

fn happens(probability: Probability, draw: f64) -> bool {
    draw < probability.get()
}

/// Maps 64 random bits to [0, 1), using the 53 that a double can tell apart.
#[allow(clippy::cast_precision_loss)]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 100_000;

    #[test]
    fn random_loss_takes_its_share() {
        let loss = Loss::Random(Probability::percent(3.0).unwrap());
        let lost = losses(loss).iter().filter(|lost| **lost).count();
        assert!((2_700..3_300).contains(&lost), "{lost}");
    }

    #[test]
    fn bursts_have_their_length_and_take_their_share() {
        let losses = losses(Loss::bursts(Probability::percent(30.0).unwrap(), 8.0).unwrap());
        let lost = losses.iter().filter(|lost| **lost).count();
        let bursts = losses.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((27_000..33_000).contains(&lost), "{lost}");
        assert!((7..=9).contains(&(lost / bursts)), "{lost} in {bursts}");
    }

    #[test]
    fn jitter_stays_within_its_bounds_on_both_sides() {
        let config = LinkConfig {
            delay: Duration::from_millis(30),
            jitter: Duration::from_millis(10),
            ..LinkConfig::default()
        };
        let mut fates = Fates::new(1);
        let delays: Vec<_> = (0..1_000).map(|_| fates.draw(&config).delay).collect();
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!((20..22).contains(&least.as_millis()), "{least:?}");
        assert!((38..=40).contains(&most.as_millis()), "{most:?}");
    }

    #[test]
    fn other_settings_do_not_change_which_packets_are_lost() {
        let plain = LinkConfig {
            loss: Loss::Random(Probability::percent(10.0).unwrap()),
            ..LinkConfig::default()
        };
        let busy = LinkConfig {
            jitter: Duration::from_millis(5),
            duplicate: Probability::percent(50.0).unwrap(),
            reorder: Probability::percent(50.0).unwrap(),
            corrupt: Probability::percent(50.0).unwrap(),
            ..plain
        };
        let (mut one, mut other) = (Fates::new(7), Fates::new(7));
        for _ in 0..1_000 {
            assert_eq!(one.draw(&plain).lost, other.draw(&busy).lost);
        }
    }

    fn losses(loss: Loss) -> Vec<bool> {
        let config = LinkConfig {
            loss,
            ..LinkConfig::default()
        };
        let mut fates = Fates::new(42);
        (0..DRAWS).map(|_| fates.draw(&config).lost).collect()
    }
}
