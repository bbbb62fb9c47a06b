//! Notices what does not shrink.

/// Shorter blocks do not tell how random they are.
const TELLING: usize = 512;

/// How much of a block is looked at.
const SAMPLE: usize = 4096;

/// After how many raw bytes a block is tried again: at first, and at most.
const FIRST_SPAN: usize = 256 << 10;
const LAST_SPAN: usize = 4 << 20;

/// After how many bytes the ratio so far is believed.
const BELIEVED: usize = 2 << 10;

/// Decides, block by block, whether zstd is tried.
#[derive(Debug)]
pub(super) enum Watch {
    /// It is, and was lately worth it, or not tried for long enough to know.
    Trying {
        before: usize,
        after: usize,
        /// How long it will not be, if it is not worth it.
        span: usize,
        /// The block that is tried now looks random.
        random: bool,
    },
    /// It was not worth it.
    Passing {
        left: usize,
        span: usize,
        /// Because the bytes look random, which is cheap to see end.
        by_looks: bool,
    },
}

impl Default for Watch {
    fn default() -> Self {
        Self::trying(FIRST_SPAN)
    }
}

impl Watch {
    fn trying(span: usize) -> Self {
        Self::Trying {
            before: 0,
            after: 0,
            span,
            random: false,
        }
    }

    /// Whether to try zstd on the next block.
    pub(super) fn tries(&mut self, block: &[u8]) -> bool {
        let telling = block.len() >= TELLING;
        match self {
            Self::Trying { span, random, .. } => {
                *random = telling && looks_random(block);
                if !*random {
                    return true;
                }
                *self = Self::Passing {
                    left: span.saturating_sub(block.len()),
                    span: *span,
                    by_looks: true,
                };
                false
            }
            Self::Passing { left, span, by_looks } => {
                // What comes right after a span is tried however it looks: it may repeat itself.
                if *left == 0 {
                    *self = Self::Trying {
                        before: 0,
                        after: 0,
                        span: (*span * 2).min(LAST_SPAN),
                        random: telling && looks_random(block),
                    };
                    return true;
                }
                if *by_looks && telling && !looks_random(block) {
                    *self = Self::default();
                    return true;
                }
                *left = left.saturating_sub(block.len());
                false
            }
        }
    }

    /// Hears what zstd made of a block.
    pub(super) fn tried(&mut self, length: usize, compressed: usize) {
        let Self::Trying {
            before,
            after,
            span,
            random,
        } = self
        else {
            return;
        };
        *before += length;
        *after += compressed;
        if *before < BELIEVED {
            return;
        }
        // Less than a 32nd is not worth anybody's time.
        if *after > *before - *before / 32 {
            *self = Self::Passing {
                left: *span,
                span: *span,
                by_looks: *random,
            };
        } else if *before > 4 * BELIEVED {
            *span = FIRST_SPAN;
            *before /= 2;
            *after /= 2;
        }
    }
}

/// Whether the bytes are spread nearly as evenly as random ones. Counts how many pairs of a sample are equal, of which
/// random bytes have one in 256, and text one in 20.
fn looks_random(block: &[u8]) -> bool {
    const PIECES: usize = 8;
    let mut counts = [0_u32; 256];
    let mut sampled = 0_u64;
    let piece = (SAMPLE / PIECES).min(block.len() / PIECES);
    for chunk in block.chunks(block.len().div_ceil(PIECES)) {
        for byte in chunk.iter().take(piece) {
            counts[usize::from(*byte)] += 1;
            sampled += 1;
        }
    }
    let pairs: u64 = counts
        .iter()
        .map(|&n| u64::from(n) * u64::from(n.saturating_sub(1)))
        .sum();
    pairs * 256 * 4 <= sampled * sampled.saturating_sub(1) * 5
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without any pattern that counts see.
    fn random(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn text_does_not_look_random_and_noise_does() {
        for len in [TELLING, 4096, 65_536] {
            assert!(looks_random(&random(len)), "{len}");
            let text: Vec<u8> = b"the quick brown fox ".iter().copied().cycle().take(len).collect();
            assert!(!looks_random(&text));
            let digits: Vec<u8> = random(len)
                .iter()
                .map(|byte| b"0123456789abcdef"[usize::from(byte & 15)])
                .collect();
            assert!(!looks_random(&digits));
        }
    }

    #[test]
    fn noise_is_tried_again_after_longer_and_longer_spans() {
        let mut watch = Watch::default();
        let block = random(65_536);
        let mut tried_at = Vec::new();
        for at in 0..(16 << 4) {
            if watch.tries(&block) {
                tried_at.push(at);
                watch.tried(block.len(), block.len() + 9);
            }
        }
        // In blocks of 64 KiB: spans of 4, 8, 16, 32, then always 64, and the block that ended them.
        assert_eq!(tried_at, [4, 13, 30, 63, 128, 193]);
    }

    #[test]
    fn text_after_noise_is_tried_at_once() {
        let mut watch = Watch::default();
        assert!(!watch.tries(&random(65_536)));
        assert!(watch.tries(&[b'a'; 600]));
    }

    #[test]
    fn noise_in_small_pieces_is_noticed_by_what_zstd_makes_of_it() {
        let mut watch = Watch::default();
        let block = random(60);
        let tried = (0..1000)
            .filter(|_| {
                let tries = watch.tries(&block);
                if tries {
                    watch.tried(60, 63);
                }
                tries
            })
            .count();
        assert_eq!(tried, BELIEVED.div_ceil(60));
    }
}
