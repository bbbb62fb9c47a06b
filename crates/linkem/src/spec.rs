//! The form in which a person writes a link: `3mbit,60ms,1%`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{DEFAULT_QUEUE_BYTES, LinkConfig, Loss, Probability};

/// Units of each part with their size: in bits per second, microseconds and bytes. A unit stands
/// before those it ends in.
const RATES: [(&str, u64); 4] = [
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];
const TIMES: [(&str, u64); 3] = [("ms", 1_000), ("us", 1), ("s", 1_000_000)];
const SIZES: [(&str, u64); 3] = [("mb", 1_000_000), ("kb", 1_000), ("b", 1)];

const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(60);

/// Why a link could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "link part {part:?} {problem}; write rate, round-trip time, loss and queue like 3mbit,60ms,1%,64kb, \
     in any order, each if wanted"
)]
pub struct ParseLinkError {
    part: String,
    problem: &'static str,
}

/// Parts in any order, each at most once: a rate (`3mbit`), a round-trip time (`60ms`; half of it is
/// spent each way), a loss each way (`1%`) and a queue (`64kb`). Amounts may have a fraction
/// (`2.5mbit`), and units are powers of ten. What is left out is perfect, but for the queue, which
/// is [`DEFAULT_QUEUE_BYTES`].
impl FromStr for LinkConfig {
    type Err = ParseLinkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut rate, mut delay, mut loss, mut queue) = (None, None, None, None);
        for part in text.split(',').map(str::trim) {
            let error = |problem| ParseLinkError {
                part: part.to_owned(),
                problem,
            };
            let said_twice = match Part::parse(part).map_err(error)? {
                Part::Rate(value) => rate.replace(value).is_some(),
                Part::RoundTrip(value) => delay.replace(value / 2).is_some(),
                Part::Loss(value) => loss.replace(value).is_some(),
                Part::Queue(value) => queue.replace(value).is_some(),
            };
            if said_twice {
                return Err(error("says again what another part says"));
            }
        }
        Ok(Self {
            rate,
            delay: delay.unwrap_or_default(),
            loss: loss.map_or_else(Loss::default, Loss::Random),
            queue: queue.unwrap_or(DEFAULT_QUEUE_BYTES),
            ..Self::default()
        })
    }
}

/// The form that [`FromStr`] reads, as far as it can say the settings.
impl fmt::Display for LinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rate) = self.rate {
            write!(f, "{},", in_units(rate.get(), &RATES))?;
        }
        let round_trip = (self.delay * 2).min(LONGEST_ROUND_TRIP).as_micros();
        let round_trip = u64::try_from(round_trip).unwrap_or(u64::MAX);
        // Whole seconds too are said in milliseconds: that is how people say round-trip times.
        f.write_str(&in_units(round_trip, &TIMES[..2]))?;
        if let Loss::Random(loss) = self.loss
            && loss > Probability::NEVER
        {
            write!(f, ",{}%", loss.get() * 100.0)?;
        }
        if self.queue != DEFAULT_QUEUE_BYTES {
            write!(f, ",{}", in_units(self.queue, &SIZES))?;
        }
        Ok(())
    }
}

enum Part {
    Rate(NonZeroU64),
    RoundTrip(Duration),
    Loss(Probability),
    Queue(u64),
}

impl Part {
    fn parse(part: &str) -> Result<Self, &'static str> {
        let part = part.to_ascii_lowercase();
        if let Some(number) = part.strip_suffix('%') {
            let percent = number.parse().map_err(|_| "has no number before its %")?;
            let loss = Probability::percent(percent).map_err(|_| "is not from 0% to 100%")?;
            Ok(Self::Loss(loss))
        } else if let Some(rate) = amount(&part, &RATES)? {
            NonZeroU64::new(rate).map(Self::Rate).ok_or("is no rate")
        } else if let Some(micros) = amount(&part, &TIMES)? {
            let round_trip = Duration::from_micros(micros);
            let known = round_trip <= LONGEST_ROUND_TRIP;
            known.then_some(Self::RoundTrip(round_trip)).ok_or("is longer than 60s")
        } else if let Some(bytes) = amount(&part, &SIZES)? {
            Ok(Self::Queue(bytes))
        } else {
            Err("has no unit that is known")
        }
    }
}

/// Reads a decimal number with one of `units`; `None` where it has none of them.
fn amount(part: &str, units: &[(&str, u64)]) -> Result<Option<u64>, &'static str> {
    let found = units
        .iter()
        .find_map(|(unit, size)| Some((part.strip_suffix(unit)?, *size)));
    let Some((number, size)) = found else {
        return Ok(None);
    };
    decimal(number, size)
        .map(Some)
        .ok_or("has no sensible number before its unit")
}

/// `number` times `size`, without the rounding of floating point. Digits beyond one unit's smallest
/// part are dropped.
fn decimal(number: &str, size: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then_some(());
    digits(whole).and(digits(fraction))?;
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(size)? / scale;
    whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(part)
}

/// The amount in the largest unit that leaves no fraction.
fn in_units(amount: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, size)| amount.is_multiple_of(*size))
        .map_or_else(|| amount.to_string(), |(unit, size)| format!("{}{unit}", amount / size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_link_is_read_from_parts_in_any_order() {
        let expected = LinkConfig {
            rate: NonZeroU64::new(3_000_000),
            delay: Duration::from_millis(30),
            loss: Loss::Random(Probability::percent(1.0).unwrap()),
            queue: 32_000,
            ..LinkConfig::default()
        };
        for text in [
            "3mbit,60ms,1%,32kb",
            "32KB, 1%, 0.06s, 3Mbit",
            "1%,3000kbit,60000us,32000b",
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_left_out_is_perfect() {
        assert_eq!("0ms".parse(), Ok(LinkConfig::default()));
        let rate_only: LinkConfig = "2.5mbit".parse().unwrap();
        assert_eq!(rate_only.rate, NonZeroU64::new(2_500_000));
        assert_eq!(rate_only.delay, Duration::ZERO);
    }

    #[test]
    fn a_bad_part_is_named_with_the_reason() {
        for (text, reason) in [
            ("", "has no unit that is known"),
            ("3mbit,,1%", "has no unit that is known"),
            ("3mbit/h", "has no unit that is known"),
            ("3mbps", "has no sensible number"),
            ("60", "has no unit that is known"),
            ("mbit", "has no sensible number"),
            ("-3mbit", "has no sensible number"),
            ("+3mbit", "has no sensible number"),
            ("1e3ms", "has no sensible number"),
            ("99999999999999gbit", "has no sensible number"),
            ("0bit", "is no rate"),
            ("61s", "is longer than 60s"),
            ("101%", "is not from 0% to 100%"),
            ("nan%", "is not from 0% to 100%"),
            ("x%", "has no number before its %"),
            ("60ms,80ms", "says again"),
        ] {
            let error = text.parse::<LinkConfig>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn a_link_is_shown_as_people_write_it() {
        for text in [
            "3mbit,60ms,1%",
            "1500kbit,800ms,32kb",
            "0ms",
            "1gbit,2500us",
            "1mbit,1000ms",
        ] {
            assert_eq!(text.parse::<LinkConfig>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(
            rate in proptest::option::of(1..u64::MAX), delay in 0..30_000_000u64, loss in 0..=1_000u32, queue: u64,
        ) {
            let link = LinkConfig {
                rate: rate.and_then(NonZeroU64::new),
                delay: Duration::from_micros(delay),
                loss: Loss::Random(Probability::percent(f64::from(loss) / 10.0).unwrap()),
                queue,
                ..LinkConfig::default()
            };
            let shown = link.to_string().parse::<LinkConfig>().unwrap();
            prop_assert_eq!(LinkConfig { loss: link.loss, ..shown }, link);
            let (Loss::Random(shown), Loss::Random(meant)) = (shown.loss, link.loss) else { unreachable!() };
            prop_assert!((shown.get() - meant.get()).abs() < 1e-9);
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = text.parse::<LinkConfig>();
        }
    }
}
