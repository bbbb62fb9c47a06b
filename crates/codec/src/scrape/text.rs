//! A body as lines, and the fields in them that may change: numbers, and words such as `NaN`.
//!
//! A line is what is between two newlines, or a newline and an end; the joined lines are the body. A field is a word
//! behind a space that looks like a number. It needs no more grammar than that, for whatever a field is taken for, the
//! body comes out the same; only comments have none, where digits are prose.

use std::ops::Range;

/// Longer words are no fields.
pub(super) const MAX_FIELD: usize = 40;

/// What fields are made of, in the order of their numbers on the wire.
pub(super) const ALPHABET: &[u8; 18] = b"0123456789.-+eaINf";

/// Further fields of a line are a part of its text.
pub(super) const MAX_COLUMNS: u8 = 8;

/// A field: where it stands, and the how-manyeth of its line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u32,
    pub(super) len: u8,
    pub(super) column: u8,
}

impl Place {
    pub(super) fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.len)
    }
}

/// Whether a word may be a field.
pub(super) fn is_field(word: &[u8]) -> bool {
    let (sign, rest) = match word {
        [b'-' | b'+', rest @ ..] => (true, rest),
        _ => (false, word),
    };
    match rest {
        b"Inf" => true,
        b"NaN" => !sign,
        [b'0'..=b'9' | b'.', ..] => {
            word.len() <= MAX_FIELD
                && rest
                    .iter()
                    .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e'))
        }
        _ => false,
    }
}

/// Calls `found` with every field of a line that begins at `start` of the body.
pub(super) fn fields(line: &[u8], start: usize, mut found: impl FnMut(Place)) {
    if line.first() == Some(&b'#') {
        return;
    }
    let mut column = 0;
    let mut at = 0;
    // The word at the beginning of a line is a name.
    while let Some(space) = line[at..].iter().position(|&byte| byte == b' ') {
        at += space + 1;
        let len = line[at..]
            .iter()
            .position(|byte| matches!(byte, b' ' | b'\r'))
            .unwrap_or(line.len() - at);
        if column < MAX_COLUMNS
            && is_field(&line[at..at + len])
            && let (Ok(start), Ok(len)) = (u32::try_from(start + at), u8::try_from(len))
        {
            found(Place { start, len, column });
            column += 1;
        }
        at += len;
    }
}
