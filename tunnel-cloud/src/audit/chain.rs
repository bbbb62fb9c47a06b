//! The chain: every record names the one before it by its hash. No clock, no files; bytes in, bytes out.
//!
//! The hash is SHA-256 (FIPS 180-4) of a line's bytes as they stand in the file, without the line break. So whatever is
//! done to a line shows in the next, and a program of ten lines in any language can check it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version that every record names in its member `schema`.
pub const SCHEMA: &str = "v1";

/// SHA-256 of a record; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordHash([u8; 32]);

/// A text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lower-case hexadecimal digits")]
pub struct ParseHashError;

impl RecordHash {
    /// What the first record of all names as the one before it.
    pub const NONE: Self = Self([0; 32]);

    /// The hash of a line, without its line break.
    pub fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }

    fn digits(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        text
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RecordHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(ParseHashError),
        };
        if text.len() != 64 {
            return Err(ParseHashError);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

impl TryFrom<String> for RecordHash {
    type Error = ParseHashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RecordHash> for String {
    fn from(hash: RecordHash) -> Self {
        hash.to_string()
    }
}

/// The end of a chain: its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number; records are numbered from 1, without gaps.
    pub seq: u64,
    /// Its hash.
    pub hash: RecordHash,
}

impl Head {
    /// Of a chain without records.
    pub const EMPTY: Self = Self {
        seq: 0,
        hash: RecordHash::NONE,
    };

    /// Makes the next record of an event: adds its line, with the line break, to `lines`, and gives the head of the chain
    /// once it is written.
    ///
    /// # Errors
    /// Where the event cannot be written as a JSON object; `lines` may then hold a part of one.
    pub fn next<E: Serialize>(&self, time: &str, event: &E, lines: &mut Vec<u8>) -> serde_json::Result<Self> {
        #[derive(Serialize)]
        struct Record<'a, E> {
            schema: &'static str,
            seq: u64,
            time: &'a str,
            #[serde(flatten)]
            event: &'a E,
            prev: &'a str,
        }
        let seq = self.seq + 1;
        let start = lines.len();
        let prev = self.hash.digits();
        let record = Record {
            schema: SCHEMA,
            seq,
            time,
            event,
            prev: str::from_utf8(&prev).unwrap_or_default(),
        };
        serde_json::to_writer(&mut *lines, &record)?;
        let hash = RecordHash::of(&lines[start..]);
        lines.push(b'\n');
        Ok(Self { seq, hash })
    }
}

/// What of a record holds the chain together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The record's number.
    pub seq: u64,
    /// The hash of the record before it.
    pub prev: RecordHash,
}

impl Link {
    /// Reads a line, without its line break; `None` where that is no record.
    pub fn read(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            schema: &'a str,
            seq: u64,
            prev: RecordHash,
        }
        let raw: Raw<'_> = serde_json::from_slice(line).ok()?;
        (raw.schema == SCHEMA).then_some(Self {
            seq: raw.seq,
            prev: raw.prev,
        })
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("this is no record of schema {SCHEMA}: it was changed or cut")]
    NotARecord,
    /// Records are not there.
    #[error("records {first} to {last} are missing before this one")]
    Missing {
        /// The first that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A record stands where it does not belong.
    #[error("this is record {seq} where {expected} should be: records were moved or repeated")]
    OutOfOrder {
        /// Its number.
        seq: u64,
        /// The number it should have.
        expected: u64,
    },
    /// The line before is not the one that this record followed.
    #[error("this record does not follow from the line before it: one of the two was changed")]
    Changed,
}

/// Follows a chain, line by line. After a fault it goes on from the line at which that was found, so that one damage is
/// one finding.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    head: Option<Head>,
    first: Option<u64>,
    records: u64,
}

impl Verifier {
    /// A chain of which no line is known yet. It may begin anywhere: older records may have been rotated out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its line break.
    pub fn line(&mut self, line: &[u8]) -> Option<Fault> {
        let Some(link) = Link::read(line) else {
            self.head = None;
            // What comes after it is no beginning.
            self.first.get_or_insert(0);
            return Some(Fault::NotARecord);
        };
        let fault = match self.head {
            Some(head) => follows(head, link),
            None if self.first.is_none() && link.seq == 1 && link.prev != RecordHash::NONE => Some(Fault::Changed),
            None => None,
        };
        self.first.get_or_insert(link.seq);
        self.records += 1;
        self.head = Some(Head {
            seq: link.seq,
            hash: RecordHash::of(line),
        });
        fault
    }

    /// The last record, if the last line was one.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The number of the first record.
    pub fn first(&self) -> Option<u64> {
        self.first.filter(|&first| first > 0)
    }

    /// How many records there were.
    pub fn records(&self) -> u64 {
        self.records
    }
}

fn follows(head: Head, link: Link) -> Option<Fault> {
    let expected = head.seq.saturating_add(1);
    if link.seq > expected {
        let (first, last) = (expected, link.seq - 1);
        return Some(Fault::Missing { first, last });
    }
    if link.seq < expected {
        return Some(Fault::OutOfOrder {
            seq: link.seq,
            expected,
        });
    }
    (link.prev != head.hash).then_some(Fault::Changed)
}

#[cfg(test)]
mod tests;
