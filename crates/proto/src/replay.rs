//! What was sent and not yet acknowledged, kept so that another carrier can send it again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Chunks below this are copied together: each stands for a packet at most, and would hold on to a whole buffer.
const SMALL: usize = 1024;

/// The bytes of one direction from the first that the peer has not acknowledged, as reference-counted chunks.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The offset of the first byte that is kept.
    start: u64,
    len: usize,
    chunks: VecDeque<Bytes>,
    /// Small chunks that came last.
    tail: BytesMut,
}

/// The peer acknowledged what was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NeverSent;

impl Replay {
    /// How many bytes were ever pushed.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    /// How many bytes are kept.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        if chunk.len() < SMALL && self.tail.len() < SMALL {
            self.tail.extend_from_slice(&chunk);
        } else {
            self.seal();
            self.chunks.push_back(chunk);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    /// Forgets what lies before `offset`, and says how many bytes that were. An offset that is known already says nothing.
    pub(crate) fn acknowledged(&mut self, offset: u64) -> Result<usize, NeverSent> {
        if offset > self.end() {
            return Err(NeverSent);
        }
        let Ok(gone) = usize::try_from(offset.saturating_sub(self.start)) else {
            return Err(NeverSent);
        };
        self.start += gone as u64;
        self.len -= gone;
        let mut left = gone;
        while left > 0 {
            if self.chunks.is_empty() {
                self.seal();
            }
            let Some(first) = self.chunks.front_mut() else { break };
            if first.len() > left {
                // A copy, where little is left of much, so that the rest does not pin all of it.
                let rest = first.slice(left..);
                *first = if rest.len() < SMALL {
                    Bytes::copy_from_slice(&rest)
                } else {
                    rest
                };
                break;
            }
            left -= first.len();
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
        Ok(gone)
    }

    /// All that is kept, in order.
    pub(crate) fn chunks(&mut self) -> Vec<Bytes> {
        self.seal();
        self.chunks.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut replay = Replay::default();
        replay.push(Bytes::from_static(b"hello"));
        assert_eq!(replay.acknowledged(6), Err(NeverSent));
        assert_eq!(replay.acknowledged(u64::MAX), Err(NeverSent));
        assert_eq!(replay.acknowledged(5), Ok(5));
        assert_eq!(replay.acknowledged(2), Ok(0));
        assert_eq!((replay.end(), replay.len()), (5, 0));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_pushed_less_what_was_acknowledged(
            acts in prop::collection::vec((0usize..3000, 0usize..4000), 0..40),
        ) {
            let mut replay = Replay::default();
            let (mut all, mut gone) = (Vec::new(), 0);
            for (push, acknowledge) in acts {
                let bytes: Vec<u8> = (all.len()..all.len() + push).map(|i| (i * 31).to_le_bytes()[0]).collect();
                all.extend_from_slice(&bytes);
                replay.push(bytes.into());
                let to = (gone + acknowledge).min(all.len());
                prop_assert_eq!(replay.acknowledged(to as u64), Ok(to - gone));
                gone = to;
                prop_assert_eq!(replay.chunks().concat(), &all[gone..]);
                prop_assert_eq!(replay.len(), all.len() - gone);
                prop_assert_eq!(replay.end(), all.len() as u64);
            }
        }
    }
}
