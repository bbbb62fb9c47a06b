//! Where a message's body ends (RFC 9112 section 6).
//!
//! Bodies are passed on as the bytes they came as; the scan only says which bytes belong to them, and refuses chunks
//! that another parser might read differently.

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, with trailers.
    Chunked,
    /// All there is until the sender ends the connection. Responses only.
    UntilClose,
}

/// The longest chunk extension, in bytes.
const MAX_EXTENSION: u16 = 256;

/// The longest chunk size, in hexadecimal digits: 60 bits, so that it also fits the signed 64 bits of the next parser.
const MAX_DIGITS: u8 = 15;

/// The longest trailer section, in bytes.
const MAX_TRAILERS: u16 = 8 * 1024;

/// Why a chunked body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("a chunk without a hexadecimal size")]
    BadSize,
    #[error("a chunk size of more than {MAX_DIGITS} digits")]
    HugeChunk,
    #[error("a chunk extension of more than {MAX_EXTENSION} bytes, or with control characters")]
    BadExtension,
    #[error("a chunk that does not end where its size says")]
    BadChunkEnd,
    #[error("a trailer section of more than {MAX_TRAILERS} bytes")]
    LongTrailers,
    #[error("a malformed trailer")]
    BadTrailer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Size { size: u64, digits: u8 },
    Extension { size: u64, len: u16 },
    SizeLineFeed { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataLineFeed,
    TrailerStart { seen: u16 },
    TrailerName { seen: u16 },
    TrailerValue { seen: u16 },
    TrailerLineFeed { seen: u16 },
    LastLineFeed,
}

const FIRST_SIZE: State = State::Size { size: 0, digits: 0 };

/// Follows a body through its bytes.
#[derive(Debug)]
pub(crate) struct BodyScan {
    state: State,
}

impl BodyScan {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => FIRST_SIZE,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// How many of the next bytes belong to the body; less than all of them once it is complete.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut at = 0;
        while at < bytes.len() {
            at += match &mut self.state {
                State::Done => break,
                State::UntilClose => bytes.len() - at,
                State::Length(left) => {
                    let taken = take(left, bytes.len() - at);
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    taken
                }
                State::Data { left } => {
                    let taken = take(left, bytes.len() - at);
                    if *left == 0 {
                        self.state = State::DataReturn;
                    }
                    taken
                }
                _ => {
                    self.state = self.state.after(bytes[at])?;
                    1
                }
            };
        }
        Ok(at)
    }

    /// Whether the body is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the body may end with the connection.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }
}

/// Takes what is there of what is left.
fn take(left: &mut u64, there: usize) -> usize {
    match usize::try_from(*left) {
        Ok(all) if all <= there => {
            *left = 0;
            all
        }
        _ => {
            *left -= there as u64;
            there
        }
    }
}

impl State {
    /// The state after one byte of chunked coding that is not data.
    fn after(self, byte: u8) -> Result<Self, BodyError> {
        match (self, byte) {
            (Self::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if digits == MAX_DIGITS {
                    return Err(BodyError::HugeChunk);
                }
                Ok(Self::Size {
                    size: size << 4 | digit,
                    digits: digits + 1,
                })
            }
            (Self::Size { digits: 0, .. }, _) => Err(BodyError::BadSize),
            (Self::Size { size, .. }, b';') => Ok(Self::Extension { size, len: 1 }),
            (Self::Size { size, .. } | Self::Extension { size, .. }, b'\r') => Ok(Self::SizeLineFeed { size }),
            (Self::Size { .. }, _) => Err(BodyError::BadSize),
            (Self::Extension { size, len }, b'\t' | b' '..=b'~') if len < MAX_EXTENSION => {
                Ok(Self::Extension { size, len: len + 1 })
            }
            (Self::Extension { .. }, _) => Err(BodyError::BadExtension),
            (Self::SizeLineFeed { size: 0 }, b'\n') => Ok(Self::TrailerStart { seen: 0 }),
            (Self::SizeLineFeed { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::SizeLineFeed { .. }, _) => Err(BodyError::BadSize),
            (Self::DataReturn, b'\r') => Ok(Self::DataLineFeed),
            (Self::DataLineFeed, b'\n') => Ok(FIRST_SIZE),
            (Self::DataReturn | Self::DataLineFeed, _) => Err(BodyError::BadChunkEnd),
            (Self::TrailerStart { .. }, b'\r') => Ok(Self::LastLineFeed),
            (Self::LastLineFeed, b'\n') => Ok(Self::Done),
            (Self::LastLineFeed, _) => Err(BodyError::BadTrailer),
            _ => self.after_trailer_byte(byte),
        }
    }

    fn after_trailer_byte(self, byte: u8) -> Result<Self, BodyError> {
        let seen = match self {
            Self::TrailerStart { seen }
            | Self::TrailerName { seen }
            | Self::TrailerValue { seen }
            | Self::TrailerLineFeed { seen } => seen + 1,
            other => return Ok(other),
        };
        if seen > MAX_TRAILERS {
            return Err(BodyError::LongTrailers);
        }
        match (self, byte) {
            (Self::TrailerStart { .. } | Self::TrailerName { .. }, b) if is_token(b) => Ok(Self::TrailerName { seen }),
            (Self::TrailerName { .. }, b':') => Ok(Self::TrailerValue { seen }),
            (Self::TrailerValue { .. }, b'\r') => Ok(Self::TrailerLineFeed { seen }),
            (Self::TrailerValue { .. }, b'\t' | b' '..=b'~' | 0x80..) => Ok(Self::TrailerValue { seen }),
            (Self::TrailerLineFeed { .. }, b'\n') => Ok(Self::TrailerStart { seen }),
            _ => Err(BodyError::BadTrailer),
        }
    }
}

/// Whether a byte may stand in a field name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_framing_ends_where_it_should() {
        for (framing, bytes, belongs, done) in [
            (Framing::None, "next", 0, true),
            (Framing::Length(0), "next", 0, true),
            (Framing::Length(3), "abcnext", 3, true),
            (Framing::Length(9), "abc", 3, false),
            (Framing::UntilClose, "abc", 3, false),
            (Framing::Chunked, "3\r\nabc\r\n0\r\n\r\nnext", 13, true),
            (Framing::Chunked, "0\r\n\r\nnext", 5, true),
            (
                Framing::Chunked,
                "00000A;x=\"y z\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nnext",
                47,
                true,
            ),
            (Framing::Chunked, "3\r\nabc\r\n0\r\n", 11, false),
            (Framing::Chunked, "fffffffffffffff\r\nabc", 20, false),
        ] {
            let mut scan = BodyScan::new(framing);
            assert_eq!(scan.scan(bytes.as_bytes()), Ok(belongs), "{framing:?} {bytes:?}");
            assert_eq!(scan.is_done(), done, "{framing:?} {bytes:?}");
        }
    }

    /// B15
    #[test]
    fn chunks_that_two_parsers_read_differently_are_refused() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(256));
        let long_trailers = format!("0\r\nX: {}\r\n\r\n", "x".repeat(8192));
        let many_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000));
        for (bytes, error) in [
            ("\r\n", BodyError::BadSize),
            ("g\r\n", BodyError::BadSize),
            ("0x3\r\nabc\r\n", BodyError::BadSize),
            ("+3\r\nabc\r\n", BodyError::BadSize),
            ("-3\r\nabc\r\n", BodyError::BadSize),
            (" 3\r\nabc\r\n", BodyError::BadSize),
            ("3 \r\nabc\r\n", BodyError::BadSize),
            ("3\nabc\n", BodyError::BadSize),
            ("3\r\r\nabc", BodyError::BadSize),
            ("3_0\r\n", BodyError::BadSize),
            (";x\r\n", BodyError::BadSize),
            ("3;a\nabc\r\n", BodyError::BadExtension),
            ("3;\0\r\nabc\r\n", BodyError::BadExtension),
            ("3;\x7f\r\nabc\r\n", BodyError::BadExtension),
            ("3;a\rb\r\nabc\r\n", BodyError::BadSize),
            (&long_extension, BodyError::BadExtension),
            ("1000000000000000\r\n", BodyError::HugeChunk),
            ("ffffffffffffffff\r\n", BodyError::HugeChunk),
            ("0000000000000001\r\na\r\n", BodyError::HugeChunk),
            ("3\r\nabcd\r\n", BodyError::BadChunkEnd),
            ("3\r\nabc\n", BodyError::BadChunkEnd),
            ("3\r\nabc\rX", BodyError::BadChunkEnd),
            ("3\r\nabc0\r\n\r\n", BodyError::BadChunkEnd),
            ("0\r\n\n", BodyError::BadTrailer),
            ("0\r\n\rX", BodyError::BadTrailer),
            ("0\r\nGET / HTTP/1.1\r\n", BodyError::BadTrailer),
            ("0\r\nX : y\r\n\r\n", BodyError::BadTrailer),
            ("0\r\n: y\r\n\r\n", BodyError::BadTrailer),
            ("0\r\nX: y\n\r\n", BodyError::BadTrailer),
            ("0\r\nX: a\0b\r\n\r\n", BodyError::BadTrailer),
            ("0\r\nX: y\r\n folded\r\n\r\n", BodyError::BadTrailer),
            ("0\r\nX: y\rz\r\n\r\n", BodyError::BadTrailer),
            (&long_trailers, BodyError::LongTrailers),
            (&many_trailers, BodyError::LongTrailers),
        ] {
            let mut scan = BodyScan::new(Framing::Chunked);
            assert_eq!(scan.scan(bytes.as_bytes()), Err(error), "{bytes:?}");
            assert!(!scan.may_end(), "{bytes:?}");
        }
    }

    #[test]
    fn only_a_body_without_a_stated_length_may_end_with_the_connection() {
        assert!(BodyScan::new(Framing::None).may_end());
        assert!(BodyScan::new(Framing::UntilClose).may_end());
        assert!(!BodyScan::new(Framing::Length(1)).may_end());
        let coded = b"3;x\r\nabc\r\n0\r\nX: y\r\n\r\n";
        for cut in 0..coded.len() {
            let mut scan = BodyScan::new(Framing::Chunked);
            assert_eq!(scan.scan(&coded[..cut]), Ok(cut));
            assert!(!scan.may_end(), "complete after {cut} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_chunked_body_ends_at_the_same_byte_however_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut coded = Vec::new();
            for chunk in &chunks {
                coded.extend(format!("{:x};n\r\n", chunk.len()).bytes());
                coded.extend(chunk);
                coded.extend(b"\r\n");
            }
            coded.extend(b"0\r\nX-Sum: 1\r\n\r\n");
            let end = coded.len();
            coded.extend(b"GET / HTTP/1.1\r\n");

            let mut at: Vec<_> = cuts.iter().map(|c| c.index(coded.len())).chain([coded.len()]).collect();
            at.sort_unstable();
            let (mut scan, mut from, mut belongs) = (BodyScan::new(Framing::Chunked), 0, 0);
            for to in at {
                belongs += scan.scan(&coded[from..to]).unwrap();
                from = to;
            }
            prop_assert_eq!(belongs, end);
            prop_assert!(scan.is_done());
        }
    }
}
