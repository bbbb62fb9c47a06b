//! What is known of a body's fields, and how a field's next value is said with it.
//!
//! [`Walk::code`] is one walk for both directions: it tells the coder what happened, or is told by it, and learns the
//! same either way.

use std::collections::HashMap;

use super::Corrupt;
use super::number::{Decimal, MANTISSA_END, Style};
use super::range::{Bit, Coder};
use super::text::{ALPHABET, MAX_COLUMNS, MAX_FIELD, Place, is_field};

/// No larger power of two is looked for in a field's values: that of a page.
const MAX_UNIT: u8 = 12;

/// No link.
const NONE: u32 = u32::MAX;

/// How a field is written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Number(Style),
    Word,
}

/// A field: where it stands in the body, what it says, and how it went so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) place: Place,
    pub(super) form: Form,
    pub(super) value: Decimal,
    trend: Trend,
    /// Which of the last six times it changed, the latest lowest, below a 1.
    changes: u8,
    /// A field before this one that changed by the same difference.
    link: u32,
    /// How sure the link is.
    faith: u8,
}

impl Field {
    /// A field of which nothing is known but its text.
    pub(super) fn new(place: Place, body: &[u8]) -> Self {
        let (form, value) = Decimal::guess(&body[place.range()])
            .map_or((Form::Word, Decimal { mantissa: 0, scale: 0 }), |(style, value)| {
                (Form::Number(style), value)
            });
        Self {
            place,
            form,
            value,
            trend: Trend::new(value.mantissa),
            changes: 1,
            link: NONE,
            faith: 0,
        }
    }
}

/// The power of two that divides a number; all divide 0.
fn zeros(number: i64) -> u8 {
    u8::try_from(number.trailing_zeros()).unwrap_or(MAX_UNIT)
}

/// What a field's differences were.
#[derive(Debug, Clone, Copy)]
struct Trend {
    last: i64,
    mean: i64,
    /// By how much each way to guess was off, in sixteenths: nothing, the last difference, their mean.
    miss: [u64; 3],
    /// How many differences there were, up to 3.
    count: u8,
    /// All differences so far were multiples of this power of two.
    unit: u8,
    /// The signs of the last two surprises.
    signs: u8,
}

impl Trend {
    fn new(mantissa: i64) -> Self {
        let unit = if mantissa == 0 {
            0
        } else {
            zeros(mantissa).min(MAX_UNIT)
        };
        // A first difference is likely far smaller than the value.
        let miss = mantissa.unsigned_abs() >> 8 << 4;
        Self {
            last: 0,
            mean: 0,
            miss: [miss; 3],
            count: 0,
            unit,
            signs: 0,
        }
    }

    fn guess(&self, way: usize) -> i64 {
        [0, self.last, self.mean][way]
    }

    /// The way that was off least so far; the first of equals.
    fn best(&self) -> usize {
        (0..3).min_by_key(|&way| self.miss[way]).unwrap_or(0)
    }

    fn learn(&mut self, difference: i64) {
        let below = difference < self.guess(self.best());
        self.signs = (self.signs << 1 | u8::from(below)) & 3;
        self.unit = self.unit.min(zeros(difference));
        for way in 0..3 {
            let off = difference.abs_diff(self.guess(way)).min(1 << 58) << 4;
            let miss = &mut self.miss[way];
            *miss = match self.count {
                0 => off,
                1 => (*miss >> 1) + (off >> 1),
                _ => *miss - (*miss >> 2) + (off >> 2),
            };
        }
        let part = u32::from(self.count.min(2));
        self.mean += (difference - self.mean) >> part;
        self.last = difference;
        self.count = (self.count + 1).min(3);
    }
}

/// What was learned of all fields together.
#[derive(Debug, Clone)]
pub(super) struct Models {
    changed: [[Bit; 4]; 128],
    kept: [Bit; 2],
    form: [Bit; 8],
    scale: [Bit; 32],
    repeated: [[Bit; 2]; 8],
    aligned: [Bit; 16],
    zero: [Bit; 32],
    length: [[Bit; 16]; 24],
    far: [Bit; 64],
    sign: [[Bit; 4]; 3],
    second: [Bit; 64],
    third: [[Bit; 2]; 64],
    word_length: [Bit; 64],
    letter: [Bit; 32],
}

impl Models {
    pub(super) fn new() -> Self {
        let e = Bit::EVEN;
        Self {
            changed: [[e; 4]; 128],
            kept: [Bit::new(60_000); 2],
            form: [e; 8],
            scale: [e; 32],
            repeated: [[e; 2]; 8],
            aligned: [e; 16],
            zero: [e; 32],
            length: [[e; 16]; 24],
            far: [e; 64],
            sign: [[e; 4]; 3],
            second: [e; 64],
            third: [[e; 2]; 64],
            word_length: [e; 64],
            letter: [e; 32],
        }
    }
}

/// What a field says next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Same,
    Number(Style, Decimal),
    Word(Vec<u8>),
}

impl Next {
    /// What is said of a field that now reads `text`.
    pub(super) fn of(field: &Field, was: &[u8], text: &[u8]) -> Self {
        if was == text {
            return Self::Same;
        }
        if let Form::Number(style) = field.form
            && let Some(number) = Decimal::read(text, style)
        {
            // A few zeros behind the digits are cheaper than to say another scale.
            let near = style != Style::Fixed && field.value.scale.saturating_sub(number.scale) <= 3;
            let at_scale = number.at_scale(field.value.scale).filter(|_| near);
            return Self::Number(style, at_scale.unwrap_or(number));
        }
        match Decimal::guess(text) {
            Some((style, number)) => Self::Number(style, number),
            None => Self::Word(text.to_vec()),
        }
    }
}

/// One walk over the fields of a body, in their order.
#[derive(Debug)]
pub(super) struct Walk<'m> {
    models: &'m mut Models,
    /// By how much each field so far changed; `None` if it did not, or not by a number.
    differences: Vec<Option<i64>>,
    /// The last field that changed by a difference.
    latest: HashMap<i64, u32>,
    /// The last field that changed by a number, of each column.
    by_column: [u32; MAX_COLUMNS as usize],
    previous_changed: bool,
    /// Where the fields of the base are now.
    moved: Vec<u32>,
}

impl<'m> Walk<'m> {
    /// Starts with what is known, and the number of fields of the base.
    pub(super) fn new(models: &'m mut Models, base_fields: usize) -> Self {
        Self {
            models,
            differences: Vec::with_capacity(base_fields),
            latest: HashMap::new(),
            by_column: [NONE; MAX_COLUMNS as usize],
            previous_changed: false,
            moved: vec![NONE; base_fields],
        }
    }

    /// Passes a field that is not coded, because its line is new.
    pub(super) fn pass(&mut self) {
        self.differences.push(None);
    }

    fn difference(&self, index: u32) -> Option<i64> {
        self.differences.get(index as usize).copied().flatten()
    }

    /// Codes what the field says next. `index` is its number in the base.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        index: usize,
        field: &mut Field,
        next: &Next,
    ) -> Result<Next, Corrupt> {
        let this = u32::try_from(self.differences.len()).map_err(|_| Corrupt::Fields)?;
        // The link is meant as of the base.
        let link = self.moved.get(field.link as usize).copied().unwrap_or(NONE);
        self.moved[index] = this;
        field.link = link;
        if link == NONE {
            field.faith = 0;
        }

        let beside = match link {
            NONE => usize::from(self.previous_changed),
            _ => 2 + usize::from(self.difference(link).is_some()),
        };
        let known = &mut self.models.changed[usize::from(field.changes)][beside];
        let changed = coder.bit(known, *next != Next::Same);
        let history = field.changes << 1 | u8::from(changed);
        field.changes = if field.changes < 64 { history } else { history & 63 | 64 };
        self.previous_changed = changed;
        if !changed {
            self.differences.push(None);
            return Ok(Next::Same);
        }
        let said = self.change(coder, field, next, this)?;
        if let Next::Number(..) = said {
            self.by_column[usize::from(field.place.column)] = this;
        }
        Ok(said)
    }

    fn change<C: Coder>(&mut self, coder: &mut C, field: &mut Field, next: &Next, this: u32) -> Result<Next, Corrupt> {
        let models = &mut *self.models;
        let (form, scale) = match next {
            Next::Number(style, number) => (Form::Number(*style), number.scale),
            _ => (Form::Word, 0),
        };
        let was_word = field.form == Form::Word;
        let keeps = !was_word && form == field.form && scale == field.value.scale;
        let keeps = coder.bit(&mut models.kept[usize::from(was_word)], keeps);
        if !keeps {
            let number = match form {
                Form::Number(style) => Style::ALL.iter().position(|s| *s == style).unwrap_or(0),
                Form::Word => Style::ALL.len(),
            };
            let number = coder.symbol(&mut models.form, 3, number);
            field.form = match number.cmp(&Style::ALL.len()) {
                std::cmp::Ordering::Less => Form::Number(Style::ALL[number]),
                std::cmp::Ordering::Equal => Form::Word,
                std::cmp::Ordering::Greater => return Err(Corrupt::Number),
            };
            let scale = coder.symbol(&mut models.scale, 5, usize::from(scale));
            let scale = u8::try_from(scale).map_err(|_| Corrupt::Number)?;
            let mantissa = rescale(field.value, scale);
            field.value = Decimal { mantissa, scale };
            field.trend = Trend::new(mantissa);
        }
        let Form::Number(style) = field.form else {
            self.differences.push(None);
            let word = match next {
                Next::Word(word) => word.as_slice(),
                _ => &[],
            };
            return code_word(models, coder, word).map(Next::Word);
        };
        let wanted = match next {
            Next::Number(_, number) => number.mantissa - field.value.mantissa,
            _ => 0,
        };
        let difference = self.code_difference(coder, field, wanted)?;
        let mantissa = field.value.mantissa.checked_add(difference);
        let mantissa = mantissa.filter(|m| m.abs() < MANTISSA_END).ok_or(Corrupt::Number)?;
        field.value.mantissa = mantissa;
        field.trend.learn(difference);
        self.relink(field, difference, this);
        self.differences.push(Some(difference));
        Ok(Next::Number(style, field.value))
    }

    fn code_difference<C: Coder>(&mut self, coder: &mut C, field: &Field, wanted: i64) -> Result<i64, Corrupt> {
        let column = usize::from(field.place.column.min(3));
        let (likely, context) = match field.link {
            NONE => (self.difference(self.by_column[usize::from(field.place.column)]), column),
            link => (self.difference(link), 4 + usize::from(field.faith)),
        };
        let models = &mut *self.models;
        if let Some(likely) = likely {
            let small = usize::from(likely.unsigned_abs() < 4);
            if coder.bit(&mut models.repeated[context][small], wanted == likely) {
                return Ok(likely);
            }
        }
        code_surprise(models, coder, &field.trend, wanted)
    }

    fn relink(&mut self, field: &mut Field, difference: i64, this: u32) {
        let holds = field.link != NONE && self.difference(field.link) == Some(difference);
        if holds {
            field.faith = (field.faith + 1).min(3);
        } else if field.faith > 0 {
            field.faith -= 1;
        } else {
            field.link = self.latest.get(&difference).copied().unwrap_or(NONE);
        }
        self.latest.insert(difference, this);
    }
}

fn rescale(value: Decimal, scale: u8) -> i64 {
    if let Some(more) = value.at_scale(scale) {
        return more.mantissa;
    }
    let fewer = u32::from(value.scale.saturating_sub(scale));
    match 10_i64.checked_pow(fewer) {
        Some(by) if fewer > 0 => value.mantissa / by,
        _ => 0,
    }
}

/// Codes a difference by how far it is from what the trend makes likely.
fn code_surprise<C: Coder>(models: &mut Models, coder: &mut C, trend: &Trend, wanted: i64) -> Result<i64, Corrupt> {
    let mut unit = u32::from(trend.unit);
    if unit > 0 {
        let aligned = wanted.trailing_zeros() >= unit;
        if !coder.bit(&mut models.aligned[unit as usize], aligned) {
            unit = 0;
        }
    }
    let way = trend.best();
    let likely = trend.guess(way) >> unit;
    let off = (wanted >> unit) - likely;

    let miss = trend.miss[way] >> unit;
    let expected = 64 - miss.leading_zeros();
    let length = 64 - off.unsigned_abs().leading_zeros();
    let zero = coder.bit(&mut models.zero[expected.min(31) as usize], length == 0);
    let off = if zero {
        0
    } else {
        let length = code_length(models, coder, trend.count, miss, expected, length)?;
        let signs = &mut models.sign[way][usize::from(trend.signs)];
        let negative = coder.bit(signs, off < 0);
        let magnitude = code_magnitude(models, coder, length, off.unsigned_abs());
        let magnitude = i64::try_from(magnitude).map_err(|_| Corrupt::Number)?;
        if negative { -magnitude } else { magnitude }
    };
    let difference = off.checked_add(likely).ok_or(Corrupt::Number)?;
    difference
        .checked_mul(1 << unit)
        .filter(|d| d.unsigned_abs() < 2 * MANTISSA_END.unsigned_abs())
        .ok_or(Corrupt::Number)
}

/// Codes how many bits a number above 0 has, by how many are expected.
fn code_length<C: Coder>(
    models: &mut Models,
    coder: &mut C,
    count: u8,
    miss: u64,
    expected: u32,
    length: u32,
) -> Result<u32, Corrupt> {
    const FAR: usize = 15;
    let half = expected > 1 && miss >> (expected - 2) & 1 == 1;
    let context = usize::from(count) * 6 + usize::from(half) * 3 + (expected as usize / 6).min(2);
    let near = (length + 11)
        .checked_sub(expected)
        .filter(|near| (*near as usize) < FAR);
    let near = coder.symbol(&mut models.length[context], 4, near.map_or(FAR, |near| near as usize));
    let length = if near == FAR {
        coder.symbol(&mut models.far, 6, length as usize)
    } else {
        (near + expected as usize).checked_sub(11).ok_or(Corrupt::Number)?
    };
    if length == 0 || length > 63 {
        return Err(Corrupt::Number);
    }
    u32::try_from(length).map_err(|_| Corrupt::Number)
}

/// Codes the bits below the highest: two as they were before, the rest as they are.
fn code_magnitude<C: Coder>(models: &mut Models, coder: &mut C, length: u32, wanted: u64) -> u64 {
    if length == 1 {
        return 1;
    }
    let at = length as usize;
    let second = coder.bit(&mut models.second[at], wanted >> (length - 2) & 1 == 1);
    let magnitude = 2 | u64::from(second);
    if length == 2 {
        return magnitude;
    }
    let third = &mut models.third[at][usize::from(second)];
    let third = coder.bit(third, wanted >> (length - 3) & 1 == 1);
    let magnitude = magnitude << 1 | u64::from(third);
    let rest = length - 3;
    magnitude << rest | coder.raw(rest, wanted & ((1 << rest) - 1))
}

fn code_word<C: Coder>(models: &mut Models, coder: &mut C, word: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let len = coder.symbol(&mut models.word_length, 6, word.len());
    if len > MAX_FIELD {
        return Err(Corrupt::Word);
    }
    let mut said = Vec::with_capacity(len);
    for at in 0..len {
        let letter = word.get(at).and_then(|byte| ALPHABET.iter().position(|b| b == byte));
        let letter = coder.symbol(&mut models.letter, 5, letter.unwrap_or(0));
        said.push(*ALPHABET.get(letter).ok_or(Corrupt::Word)?);
    }
    if !is_field(&said) {
        return Err(Corrupt::Word);
    }
    Ok(said)
}
