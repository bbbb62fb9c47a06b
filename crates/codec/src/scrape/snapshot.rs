//! A body that both sides have, with what they know of its fields.

use std::ops::Range;

use bytes::Bytes;

use super::model::{Field, Models, Next, Walk};
use super::plan::{Plan, Segment};
use super::range::Coder;
use super::text::{self, Place};
use super::{BaseId, Corrupt};

/// Bodies with more lines or more fields are sent without looking at their lines.
pub(super) const MAX_LINES: usize = 1 << 17;

/// Where the lines and the fields of a body are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) lines: Vec<Line>,
    pub(super) places: Vec<Place>,
}

/// Where a line begins, and the number of its first field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) field: u32,
}

impl Layout {
    /// `None` if there are too many lines or fields.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let mut lines = Vec::new();
        let mut places = Vec::new();
        let mut start = 0;
        for line in body.split(|&byte| byte == b'\n') {
            if lines.len() == MAX_LINES || places.len() > MAX_LINES {
                return None;
            }
            lines.push(Line {
                start: u32::try_from(start).ok()?,
                field: u32::try_from(places.len()).ok()?,
            });
            text::fields(line, start, |place| places.push(place));
            start += line.len() + 1;
        }
        (places.len() <= MAX_LINES).then_some(Self { lines, places })
    }
}

/// A body, and what is known of it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) id: BaseId,
    pub(super) body: Bytes,
    /// `None` if the body has too many lines.
    pub(super) known: Option<Known>,
}

/// What is known of the lines and fields of a body.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) lines: Vec<Line>,
    pub(super) fields: Vec<Field>,
    models: Box<Models>,
}

impl Known {
    /// What a body tells by itself.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let layout = Layout::of(body)?;
        Some(Self {
            fields: layout.places.iter().map(|&place| Field::new(place, body)).collect(),
            lines: layout.lines,
            models: Box::new(Models::new()),
        })
    }

    /// The numbers of a line's fields.
    pub(super) fn fields_of(&self, line: usize) -> Range<usize> {
        let end = |line: usize| self.lines.get(line).map_or(self.fields.len(), |l| l.field as usize);
        end(line)..end(line + 1)
    }

    /// Where a line stands in its body, without its newline.
    pub(super) fn line(&self, line: usize, body: &[u8]) -> Range<usize> {
        let start = |line: usize| self.lines.get(line).map_or(body.len() + 1, |l| l.start as usize);
        start(line)..start(line + 1) - 1
    }
}

impl Snapshot {
    /// A body of which nothing was known before.
    pub(super) fn fresh(body: Vec<u8>) -> Self {
        Self {
            id: BaseId::of(None, &body),
            known: Known::of(&body),
            body: body.into(),
        }
    }

    /// The bytes it holds.
    pub(super) fn memory(&self) -> usize {
        let known = self.known.as_ref().map_or(0, |known| {
            known.lines.capacity() * size_of::<Line>()
                + known.fields.capacity() * size_of::<Field>()
                + size_of::<Models>()
        });
        size_of::<Self>() + self.body.len() + known
    }
}

/// The body that follows `base` by a plan, with its numbers coded: written if `say` tells what each field says, read
/// if the coder does.
pub(super) fn follow<C: Coder>(
    base: &[u8],
    known: &Known,
    plan: &Plan<'_>,
    coder: &mut C,
    mut say: impl FnMut(&Field, &[u8]) -> Next,
    max_body: usize,
) -> Result<(Vec<u8>, Known), Corrupt> {
    let mut models = known.models.clone();
    let mut walk = Walk::new(&mut models, known.fields.len());
    let mut body = Vec::with_capacity(max_body.min(base.len() + base.len() / 16 + plan.inserted.len() + 64));
    let (mut lines, mut fields) = (
        Vec::with_capacity(known.lines.len()),
        Vec::with_capacity(known.fields.len()),
    );
    let mut inserted = plan.inserted.split(|&byte| byte == b'\n');
    for Segment { from, copied, new } in &plan.segments {
        for line in *from..*from + *copied {
            start_line(&mut lines, &mut body, fields.len())?;
            let range = known.line(line, base);
            let mut at = range.start;
            for index in known.fields_of(line) {
                let mut field = known.fields[index];
                let was = field.place.range();
                body.extend_from_slice(&base[at..was.start]);
                at = was.end;
                let next = say(&field, &base[was.clone()]);
                let start = body.len();
                match walk.code(coder, index, &mut field, &next)? {
                    Next::Same => body.extend_from_slice(&base[was]),
                    Next::Number(style, number) => number.write(style, &mut body),
                    Next::Word(word) => body.extend_from_slice(&word),
                }
                field.place.start = u32::try_from(start).map_err(|_| Corrupt::TooLarge)?;
                field.place.len = u8::try_from(body.len() - start).map_err(|_| Corrupt::Word)?;
                fields.push(field);
            }
            body.extend_from_slice(&base[at..range.end]);
            if body.len() > max_body || fields.len() > MAX_LINES {
                return Err(Corrupt::TooLarge);
            }
        }
        for line in inserted.by_ref().take(*new) {
            start_line(&mut lines, &mut body, fields.len())?;
            let start = body.len();
            body.extend_from_slice(line);
            if body.len() > max_body || fields.len() > MAX_LINES {
                return Err(Corrupt::TooLarge);
            }
            text::fields(line, start, |place| {
                walk.pass();
                fields.push(Field::new(place, &body));
            });
        }
    }
    let known = Known { lines, fields, models };
    Ok((body, known))
}

fn start_line(lines: &mut Vec<Line>, body: &mut Vec<u8>, fields: usize) -> Result<(), Corrupt> {
    if lines.len() == MAX_LINES {
        return Err(Corrupt::TooLarge);
    }
    if !lines.is_empty() {
        body.push(b'\n');
    }
    lines.push(Line {
        start: u32::try_from(body.len()).map_err(|_| Corrupt::TooLarge)?,
        field: u32::try_from(fields).map_err(|_| Corrupt::TooLarge)?,
    });
    Ok(())
}
