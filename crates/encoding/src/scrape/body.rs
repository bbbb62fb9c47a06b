//! Where the body of an answer ends, and what it holds (RFC 9112 section 6).

use std::ops::Range;

use super::head::{Framing, NotHeld};

/// Follows a body as its bytes arrive.
#[derive(Debug)]
pub(crate) struct Body {
    framing: Framing,
    max: usize,
    /// Chunks so far, and where the next one begins.
    chunks: Vec<Range<usize>>,
    next: usize,
    length: usize,
}

impl Body {
    /// A body of at most `max` bytes.
    pub(crate) fn new(framing: Framing, max: usize) -> Self {
        Self {
            framing,
            max,
            chunks: Vec::new(),
            next: 0,
            length: 0,
        }
    }

    /// Where the body ends, if it does within these bytes, of which there may be more each time.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, NotHeld> {
        match self.framing {
            Framing::Length(length) if length > self.max => Err(NotHeld),
            Framing::Length(length) => Ok((bytes.len() >= length).then_some(length)),
            Framing::Chunked => self.chunked(bytes),
        }
    }

    /// What the body says, once its end is known; `bytes` end there.
    pub(crate) fn content(&self, bytes: &[u8]) -> Vec<u8> {
        match self.framing {
            Framing::Length(_) => bytes.to_vec(),
            Framing::Chunked => {
                let chunks = self.chunks.iter().filter_map(|chunk| bytes.get(chunk.clone()));
                chunks.flatten().copied().collect()
            }
        }
    }

    fn chunked(&mut self, bytes: &[u8]) -> Result<Option<usize>, NotHeld> {
        loop {
            let rest = bytes.get(self.next..).unwrap_or_default();
            let (start, size) = match httparse::parse_chunk_size(rest) {
                Ok(httparse::Status::Complete(found)) => found,
                Ok(httparse::Status::Partial) if rest.len() <= LONGEST_SIZE => return Ok(None),
                Ok(httparse::Status::Partial) | Err(_) => return Err(NotHeld),
            };
            let size = usize::try_from(size).map_err(|_| NotHeld)?;
            self.length = self
                .length
                .checked_add(size)
                .filter(|&all| all <= self.max)
                .ok_or(NotHeld)?;
            let start = self.next + start;
            let end = start + size;
            match bytes.get(end..end + 2) {
                Some(b"\r\n") if size == 0 => return Ok(Some(end + 2)),
                Some(b"\r\n") => {
                    self.chunks.push(start..end);
                    self.next = end + 2;
                }
                // Also trailers, of which nobody would be told.
                Some(_) => return Err(NotHeld),
                None => {
                    self.length -= size;
                    return Ok(None);
                }
            }
        }
    }
}

/// The longest line that says a chunk's size, in bytes.
const LONGEST_SIZE: usize = 256;
