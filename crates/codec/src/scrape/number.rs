//! Numbers as text: a whole number, a count of decimals, and the habit of whoever wrote it, so that the three give the
//! text back to the last character. What they do not give back is a word, and travels as text.

/// Numbers with more digits are words.
const MAX_DIGITS: u32 = 18;

/// Numbers with more decimals are words.
pub(super) const MAX_SCALE: u8 = 31;

/// No mantissa is this large.
pub(super) const MANTISSA_END: i64 = 1_000_000_000_000_000_000;

/// How a program writes its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `12`, `12.5`, `1.25e+07`, `1e-05`: the shortest, as Go writes it.
    Go,
    /// As `Go`, but that `12` is `12.0`: the shortest that is a float in OpenMetrics.
    GoFloat,
    /// `12`, `12.5`, `12500000`: the shortest without exponents.
    Short,
    /// As `Short`, but that `12` is `12.0`.
    ShortFloat,
    /// Always as many decimals, zeros too.
    Fixed,
}

impl Style {
    /// In the order of their numbers on the wire, in which they are tried.
    pub(super) const ALL: [Self; 5] = [Self::Go, Self::GoFloat, Self::Short, Self::ShortFloat, Self::Fixed];

    fn has_exponents(self) -> bool {
        matches!(self, Self::Go | Self::GoFloat)
    }

    fn is_float(self) -> bool {
        matches!(self, Self::GoFloat | Self::ShortFloat)
    }
}

/// `mantissa` / 10^`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) mantissa: i64,
    pub(super) scale: u8,
}

impl Decimal {
    /// The same number with this many decimals; `None` if it needs more, or then is too large.
    pub(super) fn at_scale(self, scale: u8) -> Option<Self> {
        let more = scale.checked_sub(self.scale)?;
        let mantissa = 10_i64.checked_pow(u32::from(more))?.checked_mul(self.mantissa)?;
        (mantissa.abs() < MANTISSA_END).then_some(Self { mantissa, scale })
    }

    /// Reads a number that this style would write just so. It has as few decimals as can be, unless the style is `Fixed`.
    pub(super) fn read(text: &[u8], style: Style) -> Option<Self> {
        let parts = Parts::read(text)?;
        let mut digits = parts.digits;
        let mut scale = parts.decimals - parts.exponent;
        if style != Style::Fixed {
            while digits != 0 && digits % 10 == 0 && scale > 0 {
                digits /= 10;
                scale -= 1;
            }
            if digits == 0 {
                scale = 0;
            }
        }
        if scale < 0 {
            digits = digits.checked_mul(10_i64.checked_pow(scale.unsigned_abs())?)?;
            scale = 0;
        }
        let scale = u8::try_from(scale).ok().filter(|scale| *scale <= MAX_SCALE)?;
        if digits >= MANTISSA_END {
            return None;
        }
        let mantissa = if parts.negative { -digits } else { digits };
        let number = Self { mantissa, scale };
        let mut again = Vec::with_capacity(text.len());
        number.write(style, &mut again);
        (again == text).then_some(number)
    }

    /// Reads a number in the first style that would write it just so.
    pub(super) fn guess(text: &[u8]) -> Option<(Style, Self)> {
        Style::ALL
            .into_iter()
            .find_map(|style| Some((style, Self::read(text, style)?)))
    }

    /// Writes the number: 2 + 19 or 3 + 31 characters at most.
    pub(super) fn write(self, style: Style, out: &mut Vec<u8>) {
        if self.mantissa < 0 {
            out.push(b'-');
        }
        let mut digits = [b'0'; 20];
        let mut rest = self.mantissa.unsigned_abs();
        let mut start = digits.len();
        while rest > 0 {
            start -= 1;
            digits[start] = digit(rest);
            rest /= 10;
        }
        let mut digits = &digits[start..];
        let mut scale = usize::from(self.scale);
        if style != Style::Fixed {
            while scale > 0 && digits.last() == Some(&b'0') {
                digits = &digits[..digits.len() - 1];
                scale -= 1;
            }
            if digits.is_empty() {
                scale = 0;
            }
        }
        // Where the point is, counted from the first digit.
        let point = digits.len() as isize - scale as isize;
        if style.has_exponents() && !digits.is_empty() && !(-3..=6).contains(&point) {
            write_exponent(digits, point - 1, out);
        } else {
            write_plain(digits, scale, style.is_float(), out);
        }
    }
}

fn write_plain(digits: &[u8], scale: usize, is_float: bool, out: &mut Vec<u8>) {
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.push(b'0');
    }
    out.extend_from_slice(&digits[..whole]);
    if scale > 0 {
        out.push(b'.');
        out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
        out.extend_from_slice(&digits[whole..]);
    } else if is_float {
        out.extend_from_slice(b".0");
    }
}

fn write_exponent(digits: &[u8], exponent: isize, out: &mut Vec<u8>) {
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(1, |at| at + 1);
    out.push(digits[0]);
    if end > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..end]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    // Below 100, for a mantissa has 19 digits at most and 31 decimals.
    let exponent = exponent.unsigned_abs();
    out.push(digit(exponent as u64 / 10));
    out.push(digit(exponent as u64));
}

/// The last digit of a number.
fn digit(number: u64) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// The parts of a number's text.
struct Parts {
    negative: bool,
    digits: i64,
    decimals: i32,
    exponent: i32,
}

impl Parts {
    fn read(text: &[u8]) -> Option<Self> {
        let mut parts = Self {
            negative: false,
            digits: 0,
            decimals: 0,
            exponent: 0,
        };
        let mut text = text;
        if let Some(rest) = text.strip_prefix(b"-") {
            parts.negative = true;
            text = rest;
        }
        let mut count = 0;
        let mut behind_point = false;
        for (at, &byte) in text.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    if parts.digits != 0 || byte != b'0' {
                        count += 1;
                    }
                    if count > MAX_DIGITS {
                        return None;
                    }
                    parts.digits = parts.digits * 10 + i64::from(byte - b'0');
                    parts.decimals += i32::from(behind_point);
                }
                b'.' if !behind_point => behind_point = true,
                b'e' => {
                    parts.exponent = str::from_utf8(&text[at + 1..]).ok()?.parse().ok()?;
                    return (parts.exponent.abs() < 100).then_some(parts);
                }
                _ => return None,
            }
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guess(text: &str) -> Option<(Style, i64, u8)> {
        Decimal::guess(text.as_bytes()).map(|(style, d)| (style, d.mantissa, d.scale))
    }

    #[test]
    fn every_habit_is_known() {
        for (text, known) in [
            ("0", (Style::Go, 0, 0)),
            ("12", (Style::Go, 12, 0)),
            ("-12.5", (Style::Go, -125, 1)),
            ("393216", (Style::Go, 393_216, 0)),
            ("1.445905e+06", (Style::Go, 1_445_905, 0)),
            ("2e+06", (Style::Go, 2_000_000, 0)),
            ("1.5e+06", (Style::Go, 1_500_000, 0)),
            ("0.0001", (Style::Go, 1, 4)),
            ("1e-05", (Style::Go, 1, 5)),
            ("1.7955813567268634e+09", (Style::Go, 17_955_813_567_268_634, 7)),
            ("12.0", (Style::GoFloat, 12, 0)),
            ("1589169", (Style::Short, 1_589_169, 0)),
            ("1000000", (Style::Short, 1_000_000, 0)),
            ("1700000000123", (Style::Short, 1_700_000_000_123, 0)),
            ("1589169.0", (Style::ShortFloat, 1_589_169, 0)),
            ("12.50", (Style::Fixed, 1250, 2)),
            ("0.000", (Style::Fixed, 0, 3)),
        ] {
            assert_eq!(guess(text), Some(known), "{text}");
        }
    }

    #[test]
    fn what_does_not_read_back_is_a_word() {
        for text in [
            "",
            "-",
            ".",
            "-0",
            "+5",
            "007",
            ".5",
            "5.",
            "1e5",
            "1E+06",
            "1.50e+07",
            "1e+6",
            "NaN",
            "+Inf",
            "1e",
            "1e+99",
            "9999999999999999999",
            "1.2.3",
            "1e-310",
            "--1",
        ] {
            assert_eq!(guess(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            mantissa in prop_oneof![-1000_i64..1000, 1 - MANTISSA_END..MANTISSA_END],
            scale in 0..=MAX_SCALE,
            style in prop::sample::select(Style::ALL.to_vec()),
        ) {
            let mut text = Vec::new();
            Decimal { mantissa, scale }.write(style, &mut text);
            prop_assert!(text.len() <= 34);
            if let Some(read) = Decimal::read(&text, style) {
                let mut again = Vec::new();
                read.write(style, &mut again);
                prop_assert_eq!(&again, &text);
                prop_assert_eq!(read.at_scale(scale), Some(Decimal { mantissa, scale }));
            } else {
                // More digits than a number may have, with zeros.
                prop_assert!(mantissa == 0 || scale >= 18 || mantissa.abs() >= 100_000_000_000_000_000, "{:?}", String::from_utf8(text));
            }
        }

        #[test]
        fn floats_as_rust_writes_them_are_no_words(value in -1e9..1e9_f64) {
            let text = format!("{value}");
            if text.trim_start_matches('-').len() <= 18 {
                prop_assert!(Decimal::guess(text.as_bytes()).is_some(), "{}", text);
            }
        }
    }
}
