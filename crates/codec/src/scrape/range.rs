//! A binary range coder with adaptive bits, as LZMA's, but for the precision of a probability and how fast it learns.
//!
//! [`Coder`] is one interface for both directions: whoever writes says each bit, whoever reads is told it, so that one
//! walk over the model serves both and they cannot drift apart.

/// How fast a bit learns: after its n-th use it goes this part of 2^16 towards what was seen.
/// 1 / (n + 1.5), rounded down.
const RATES: [u32; 32] = {
    let mut rates = [0; 32];
    let (mut n, mut divisor) = (0, 3);
    while n < 32 {
        rates[n] = 131_072 / divisor;
        n += 1;
        divisor += 2;
    }
    rates
};

/// No bit is surer than this, in parts of 2^16.
const SUREST: u32 = 24;

/// Below this the range is widened by a byte.
const TOP: u32 = 1 << 24;

/// The probability that a bit is 0, learned from what it was before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bit {
    zero: u16,
    uses: u8,
}

impl Bit {
    /// Nothing is known.
    pub(super) const EVEN: Self = Self::new(32_768);

    /// Starts from `zero` in 2^16.
    pub(super) const fn new(zero: u16) -> Self {
        Self { zero, uses: 0 }
    }

    fn learn(&mut self, bit: bool) {
        let rate = RATES[usize::from(self.uses)];
        let zero = u32::from(self.zero);
        let moved = if bit {
            zero - ((zero * rate) >> 16)
        } else {
            zero + (((65_536 - zero) * rate) >> 16)
        };
        self.zero = u16::try_from(moved.clamp(SUREST, 65_536 - SUREST)).unwrap_or(u16::MAX);
        self.uses = (self.uses + 1).min(31);
    }
}

/// One direction of the range coder.
pub(super) trait Coder {
    /// Codes a bit with what is known of it. Whoever reads passes anything.
    fn bit(&mut self, known: &mut Bit, bit: bool) -> bool;

    /// Codes the low `count` bits of a number, of which nothing is known.
    fn raw(&mut self, count: u32, value: u64) -> u64;

    /// Codes a symbol of `bits` bits, highest bit first. `tree` has 2^`bits` entries.
    fn symbol(&mut self, tree: &mut [Bit], bits: u32, value: usize) -> usize {
        let mut node = 1;
        for at in (0..bits).rev() {
            let bit = self.bit(&mut tree[node], value >> at & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        node - (1 << bits)
    }
}

/// Writes.
#[derive(Debug)]
pub(super) struct Writer {
    low: u64,
    range: u32,
    /// The last byte that a carry can still reach, and how many 0xff follow it.
    held: Option<u8>,
    full: usize,
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            held: None,
            full: 0,
            out: Vec::new(),
        }
    }

    /// The shortest bytes that read back as what was written, given that a reader finds zeros behind the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        // Of the numbers in low..low + range, one that ends in as many zero bits as can be.
        let last = self.low + u64::from(self.range) - 1;
        for zeros in (0..=32).rev() {
            let rounded = last >> zeros << zeros;
            if rounded >= self.low {
                self.low = rounded;
                break;
            }
        }
        for _ in 0..5 {
            self.shift();
        }
        let end = self.out.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        self.out.truncate(end);
        self.out
    }

    fn shift(&mut self) {
        let [_, _, _, carry, top, ..] = self.low.to_be_bytes();
        if carry == 1 || top != 0xff {
            // The first byte that is held is none: the number begins below 1.
            if let Some(held) = self.held {
                self.out.push(held.wrapping_add(carry));
            }
            let filled = self.out.len() + std::mem::take(&mut self.full);
            self.out.resize(filled, 0xff_u8.wrapping_add(carry));
            self.held = Some(top);
        } else {
            self.full += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    fn narrow(&mut self, from: u32, range: u32) {
        self.low += u64::from(from);
        self.range = range;
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }
}

impl Coder for Writer {
    fn bit(&mut self, known: &mut Bit, bit: bool) -> bool {
        let split = (self.range >> 16) * u32::from(known.zero);
        if bit {
            self.narrow(split, self.range - split);
        } else {
            self.narrow(0, split);
        }
        known.learn(bit);
        bit
    }

    fn raw(&mut self, count: u32, value: u64) -> u64 {
        for at in (0..count).rev() {
            let half = self.range >> 1;
            self.narrow(if value >> at & 1 == 1 { half } else { 0 }, half);
        }
        value
    }
}

/// Reads. Behind the end of its bytes it finds zeros, so that it never fails; what it reads then is as wrong as what it
/// reads from bytes that were made up.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    code: u32,
    range: u32,
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self {
            code: 0,
            range: u32::MAX,
            bytes: bytes.iter(),
        };
        for _ in 0..4 {
            reader.pull();
        }
        reader
    }

    fn pull(&mut self) {
        self.code = self.code << 8 | u32::from(self.bytes.next().copied().unwrap_or(0));
    }

    fn narrow(&mut self, from: u32, range: u32) {
        self.code = self.code.wrapping_sub(from);
        self.range = range;
        while self.range < TOP {
            self.range <<= 8;
            self.pull();
        }
    }
}

impl Coder for Reader<'_> {
    fn bit(&mut self, known: &mut Bit, _: bool) -> bool {
        let split = (self.range >> 16) * u32::from(known.zero);
        let bit = self.code >= split;
        if bit {
            self.narrow(split, self.range - split);
        } else {
            self.narrow(0, split);
        }
        known.learn(bit);
        bit
    }

    fn raw(&mut self, count: u32, _: u64) -> u64 {
        let mut value = 0;
        for _ in 0..count {
            let half = self.range >> 1;
            let bit = self.code >= half;
            self.narrow(if bit { half } else { 0 }, half);
            value = value << 1 | u64::from(bit);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Said {
        Bit(usize, bool),
        Raw(u32, u64),
        Symbol(usize),
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![
            1 => (0..3_usize, any::<bool>()).prop_map(|(known, bit)| Said::Bit(known, bit)),
            8 => (3..5_usize, prop::bool::weighted(0.001)).prop_map(|(known, bit)| Said::Bit(known, bit)),
            1 => (0..=60_u32, any::<u64>()).prop_map(|(count, value)| Said::Raw(count, value & ((1 << count) - 1))),
            1 => (0..16_usize).prop_map(Said::Symbol),
        ]
    }

    fn code(coder: &mut impl Coder, said: &[Said]) -> bool {
        let mut bits = [Bit::EVEN; 5];
        let mut tree = [Bit::EVEN; 16];
        said.iter().all(|said| match *said {
            Said::Bit(known, bit) => coder.bit(&mut bits[known], bit) == bit,
            Said::Raw(count, value) => coder.raw(count, value) == value,
            Said::Symbol(symbol) => coder.symbol(&mut tree, 4, symbol) == symbol,
        })
    }

    /// A reader that is told nothing: what it is said counts for nothing.
    struct Untold<'a>(Reader<'a>);

    impl Coder for Untold<'_> {
        fn bit(&mut self, known: &mut Bit, _: bool) -> bool {
            self.0.bit(known, false)
        }

        fn raw(&mut self, count: u32, _: u64) -> u64 {
            self.0.raw(count, 0)
        }
    }

    #[test]
    fn what_was_expected_costs_next_to_nothing() {
        let mut writer = Writer::new();
        let mut known = Bit::EVEN;
        for _ in 0..10_000 {
            writer.bit(&mut known, false);
        }
        assert!(writer.finish().len() < 8);
    }

    #[test]
    fn nothing_is_no_bytes() {
        assert_eq!(Writer::new().finish(), [0; 0]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(said in prop::collection::vec(said(), 0..400)) {
            let mut writer = Writer::new();
            prop_assert!(code(&mut writer, &said));
            let bytes = writer.finish();
            prop_assert!(bytes.last() != Some(&0));
            prop_assert!(code(&mut Untold(Reader::new(&bytes)), &said));
        }
    }
}
