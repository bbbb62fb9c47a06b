//! Watches the frames that a peer sends, before yamux sees them.
//!
//! yamux makes room for a frame of up to 1 MiB before it looks whether the stream may have it, gives each stream 256 KiB
//! from the start, answers what it does not understand by closing without a word, and tells nobody that the peer has taken
//! a stream. All that can be read off the frames' headers.

use std::collections::HashMap;

use super::limits::UNASKED;

/// The length of a frame's header, in bytes.
pub(super) const HEADER: usize = 12;
/// The longest data in one frame that is taken, in bytes.
const MAX_BODY: u32 = 64 * 1024;

/// A frame's type.
pub(super) const DATA: u8 = 0;
/// Likewise.
pub(super) const GO_AWAY: u8 = 3;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;

const SYN: u16 = 1;
const ACK: u16 = 2;

/// What a peer did that no honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("the peer sent a frame that is not yamux")]
    NotYamux,
    #[error("the peer sent a frame that is too long")]
    TooLong,
    #[error("the peer sent more on a stream than it may before the stream is taken")]
    Unasked,
}

#[derive(Debug)]
pub(super) struct Meter {
    header: [u8; HEADER],
    have: usize,
    /// What is still to come of a frame's data.
    body: u32,
    /// The peer's stream of carrier messages, which is always wanted.
    control: u32,
    /// What came on streams that nobody has taken yet.
    unasked: HashMap<u32, u32>,
    /// Streams that the peer has taken, to be collected.
    acknowledged: Vec<u32>,
}

impl Meter {
    pub(super) fn new(control: u32) -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            body: 0,
            control,
            unasked: HashMap::new(),
            acknowledged: Vec::new(),
        }
    }

    /// Takes the next bytes of the connection, frames' headers and data as they come.
    pub(super) fn watch(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while !bytes.is_empty() {
            let rest = self.body as usize;
            if rest > 0 {
                let data = rest.min(bytes.len());
                bytes = &bytes[data..];
                self.body = u32::try_from(rest - data).unwrap_or(0);
                continue;
            }
            let part = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            self.have += part;
            bytes = &bytes[part..];
            if self.have == HEADER {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Violation> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
        let flags = u16::from_be_bytes([f0, f1]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if version != 0 {
            return Err(Violation::NotYamux);
        }
        match kind {
            DATA => {
                if length > MAX_BODY {
                    return Err(Violation::TooLong);
                }
                self.body = length;
            }
            WINDOW_UPDATE => {}
            PING | GO_AWAY => return Ok(()),
            _ => return Err(Violation::NotYamux),
        }
        if flags & ACK != 0 {
            self.acknowledged.push(stream);
        }
        if flags & SYN != 0 && stream != self.control {
            self.unasked.entry(stream).or_insert(0);
        }
        if kind == DATA
            && let Some(so_far) = self.unasked.get_mut(&stream)
        {
            *so_far = so_far.saturating_add(length);
            if *so_far > UNASKED {
                return Err(Violation::Unasked);
            }
        }
        Ok(())
    }

    /// The stream was taken, or is no more.
    pub(super) fn asked(&mut self, stream: u32) {
        self.unasked.remove(&stream);
    }

    /// The streams that the peer has taken since the last call.
    pub(super) fn acknowledged(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
        let mut bytes = vec![0, kind];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(stream.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        if kind == DATA {
            bytes.extend(std::iter::repeat_n(0xff, length as usize));
        }
        bytes
    }

    fn watch(frames: &[Vec<u8>], cut: usize) -> Result<Meter, Violation> {
        let mut meter = Meter::new(1);
        frames.concat().chunks(cut).try_for_each(|part| meter.watch(part))?;
        Ok(meter)
    }

    #[test]
    fn data_is_told_from_headers_however_the_bytes_come() {
        let frames = [
            frame(DATA, SYN, 1, 10_000),
            frame(DATA, SYN, 3, 5),
            frame(WINDOW_UPDATE, ACK, 2, 9),
            frame(DATA, 0, 3, 70),
            frame(DATA, ACK, 4, 0),
        ];
        for cut in [1, 5, 12, 13, 1000, 100_000] {
            let mut meter = watch(&frames, cut).unwrap();
            assert_eq!(meter.acknowledged(), [2, 4]);
            assert_eq!(meter.unasked, HashMap::from([(3, 75)]));
        }
    }

    #[test]
    fn t2_a_stream_that_nobody_has_taken_may_have_little_and_a_taken_one_more() {
        let open = frame(DATA, SYN, 3, UNASKED);
        let more = frame(DATA, 0, 3, 1);
        watch(std::slice::from_ref(&open), 4096).unwrap();
        assert_eq!(
            watch(&[open.clone(), more.clone()], 4096).unwrap_err(),
            Violation::Unasked
        );
        let mut meter = watch(&[open], 4096).unwrap();
        meter.asked(3);
        meter.watch(&more).unwrap();
    }

    #[test]
    fn b1_a_frame_that_is_too_long_is_refused_at_its_header() {
        for (frame, violation) in [
            (frame(DATA, 0, 3, MAX_BODY + 1), Violation::TooLong),
            (frame(4, 0, 3, 0), Violation::NotYamux),
            (vec![1; HEADER], Violation::NotYamux),
            (b"GET / HTTP/1.1\r\n".to_vec(), Violation::NotYamux),
        ] {
            assert_eq!(watch(&[frame[..HEADER].to_vec()], HEADER).unwrap_err(), violation);
        }
    }
}
