//! How the lines of a body come from those of the one before: runs that are copied, and lines that are new.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

use super::Corrupt;
use super::snapshot::{Known, Layout, MAX_LINES};
use super::text::Place;
use super::varint;

/// Lines `from..from + copied` of the base, then `new` lines that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: usize,
    pub(super) copied: usize,
    pub(super) new: usize,
}

/// Where every line of a body comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    pub(super) segments: Vec<Segment>,
    /// The new lines, with newlines between them.
    pub(super) inserted: &'a [u8],
}

impl Plan<'static> {
    /// All lines stay.
    pub(super) fn same(lines: usize) -> Self {
        let all = Segment {
            from: 0,
            copied: lines,
            new: 0,
        };
        Self {
            segments: vec![all],
            inserted: &[],
        }
    }
}

impl<'a> Plan<'a> {
    /// Whether both bodies differ in nothing but what their fields say.
    pub(super) fn is_same(base: &[u8], known: &Known, body: &[u8], layout: &Layout) -> bool {
        if known.lines.len() != layout.lines.len() || known.fields.len() != layout.places.len() {
            return false;
        }
        let (mut was, mut is) = (0, 0);
        for (field, place) in known.fields.iter().zip(&layout.places) {
            let (old, new) = (field.place.range(), place.range());
            if base[was..old.start] != body[is..new.start] {
                return false;
            }
            (was, is) = (old.end, new.end);
        }
        base[was..] == body[is..]
    }

    /// Finds each line of the body in the base, by its text without fields. Returns the segments and the new lines.
    pub(super) fn find(base: &[u8], known: &Known, body: &[u8], layout: &Layout) -> (Vec<Segment>, Vec<u8>) {
        let keys: Vec<u64> = (0..known.lines.len())
            .map(|line| {
                let places = known.fields[known.fields_of(line)].iter().map(|field| field.place);
                key(base, known.line(line, base), places)
            })
            .collect();
        // The lines of each key, first one last.
        let mut lines_of: HashMap<u64, Vec<usize>> = HashMap::with_capacity(keys.len());
        for (line, key) in keys.iter().enumerate().rev() {
            lines_of.entry(*key).or_default().push(line);
        }
        let mut used = vec![false; keys.len()];
        let mut segments: Vec<Segment> = Vec::new();
        let mut inserted = Vec::new();
        let mut expected = 0;
        for (i, line) in layout.lines.iter().enumerate() {
            let end = layout
                .lines
                .get(i + 1)
                .map_or(body.len(), |next| next.start as usize - 1);
            let fields_end = layout
                .lines
                .get(i + 1)
                .map_or(layout.places.len(), |l| l.field as usize);
            let range = line.start as usize..end;
            let places = layout.places[line.field as usize..fields_end].iter().copied();
            let key = key(body, range.clone(), places);
            let found = if keys.get(expected) == Some(&key) && !used[expected] {
                Some(expected)
            } else {
                lines_of.get_mut(&key).and_then(|lines| {
                    while lines.last().is_some_and(|&line| used[line]) {
                        lines.pop();
                    }
                    lines.pop()
                })
            };
            match (found, segments.last_mut()) {
                (Some(at), Some(last)) if at == last.from + last.copied && last.new == 0 => last.copied += 1,
                (Some(at), _) => segments.push(Segment {
                    from: at,
                    copied: 1,
                    new: 0,
                }),
                (None, Some(last)) => last.new += 1,
                (None, None) => segments.push(Segment {
                    from: 0,
                    copied: 0,
                    new: 1,
                }),
            }
            match found {
                Some(at) => {
                    used[at] = true;
                    expected = at + 1;
                }
                None => {
                    inserted.extend_from_slice(&body[range]);
                    inserted.push(b'\n');
                }
            }
        }
        inserted.pop();
        (segments, inserted)
    }

    /// The plan as bytes.
    pub(super) fn encode(segments: &[Segment], inserted: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + 6 * segments.len() + inserted.len());
        varint::put(&mut out, segments.len());
        let mut expected = 0;
        for Segment { from, copied, new } in segments {
            varint::put(&mut out, *copied);
            if *copied > 0 {
                varint::put(&mut out, zigzag(*from, expected));
                expected = from + copied;
            }
            varint::put(&mut out, *new);
        }
        out.extend_from_slice(inserted);
        out
    }

    /// Reads a plan for a base of this many lines.
    pub(super) fn decode(bytes: &'a [u8], base_lines: usize) -> Result<Self, Corrupt> {
        let mut rest = bytes;
        let count = varint::take(&mut rest).ok_or(Corrupt::Plan)?;
        // Each takes two bytes at least, so that a short plan cannot ask for much.
        if count > rest.len() / 2 {
            return Err(Corrupt::Plan);
        }
        let mut segments = Vec::with_capacity(count);
        let (mut expected, mut lines, mut new_lines) = (0, 0, 0);
        for _ in 0..count {
            let copied = varint::take(&mut rest).ok_or(Corrupt::Plan)?;
            let mut from = 0;
            if copied > 0 {
                let offset = varint::take(&mut rest).ok_or(Corrupt::Plan)?;
                from = unzigzag(offset, expected).ok_or(Corrupt::Plan)?;
                expected = from.checked_add(copied).ok_or(Corrupt::Plan)?;
                if expected > base_lines {
                    return Err(Corrupt::Plan);
                }
            }
            let new = varint::take(&mut rest).ok_or(Corrupt::Plan)?;
            lines += copied + new;
            new_lines += new;
            if lines > MAX_LINES {
                return Err(Corrupt::TooLarge);
            }
            segments.push(Segment { from, copied, new });
        }
        let there = match new_lines {
            0 if rest.is_empty() => 0,
            _ => 1 + rest.iter().filter(|&&byte| byte == b'\n').count(),
        };
        if there != new_lines || lines == 0 {
            return Err(Corrupt::Plan);
        }
        Ok(Self {
            segments,
            inserted: rest,
        })
    }
}

/// What a line is found by: its text without its fields. Two lines that share one by chance make a wrong body, which
/// the encoder then does not send.
fn key(body: &[u8], line: std::ops::Range<usize>, places: impl Iterator<Item = Place>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut at = line.start;
    for place in places {
        let field = place.range();
        hasher.write(&body[at..field.start]);
        hasher.write_u8(b'\n');
        at = field.end;
    }
    hasher.write(&body[at..line.end]);
    hasher.finish()
}

fn zigzag(from: usize, expected: usize) -> usize {
    match from.checked_sub(expected) {
        Some(ahead) => ahead << 1,
        None => (expected - from) << 1 | 1,
    }
}

fn unzigzag(offset: usize, expected: usize) -> Option<usize> {
    if offset & 1 == 0 {
        expected.checked_add(offset >> 1)
    } else {
        expected.checked_sub(offset >> 1)
    }
}
