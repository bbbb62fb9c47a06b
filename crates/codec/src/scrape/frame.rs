//! zstd frames of whole bodies, alone or with another body as prefix.

use zstd_safe::{CCtx, CParameter, DCtx};

use super::Corrupt;

/// A prefix and a body that together are longer than this do not go through one window, to bound memory.
const MAX_WINDOW_LOG: u32 = 23;

/// How hard zstd tries.
const LEVEL: i32 = 6;

/// How hard it tries with a prefix, where a little more time gains a sixth; beyond it, the time is tenfold.
const LEVEL_WITH_PREFIX: i32 = 9;

/// How hard it tries where prefix and body are so long that this would take long, and megabytes of tables.
const LEVEL_OF_LONG: i32 = 3;

/// Longer ones are long.
const LONG: usize = 256 << 10;

/// Compresses a body; `None` where zstd cannot, or body and prefix together exceed the largest window.
pub(super) fn compress(body: &[u8], prefix: Option<&[u8]>) -> Option<Vec<u8>> {
    compress_with(&mut CCtx::try_create()?, body, prefix)
}

fn compress_with<'p>(context: &mut CCtx<'p>, body: &[u8], prefix: Option<&'p [u8]>) -> Option<Vec<u8>> {
    let together = body.len() + prefix.map_or(0, <[u8]>::len);
    let window_log = (usize::BITS - together.leading_zeros()).clamp(10, MAX_WINDOW_LOG);
    if prefix.is_some() && together > 1 << window_log {
        return None;
    }
    let level = match prefix {
        _ if together > LONG => LEVEL_OF_LONG,
        Some(_) => LEVEL_WITH_PREFIX,
        None => LEVEL,
    };
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window_log),
        // The message says it, where the decoder looks first.
        CParameter::ContentSizeFlag(false),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    if let Some(prefix) = prefix {
        context.ref_prefix(prefix).ok()?;
    }
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
    context.compress2(&mut out, body).ok()?;
    Some(out)
}

/// What a frame holds, which is exactly `length` bytes. Spends no memory beyond these and a context.
pub(super) fn decompress(frame: &[u8], prefix: Option<&[u8]>, length: usize) -> Result<Vec<u8>, Corrupt> {
    let mut context = DCtx::try_create().ok_or(Corrupt::Frame)?;
    if let Some(prefix) = prefix {
        context.ref_prefix(prefix).map_err(|_| Corrupt::Frame)?;
    }
    let mut out = Vec::with_capacity(length);
    let written = context.decompress(&mut out, frame).map_err(|_| Corrupt::Frame)?;
    if written != length {
        return Err(Corrupt::Frame);
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Lines that are alike, of this length together.
    fn body(len: usize, salt: u64) -> Vec<u8> {
        let lines = (0_u64..).map(|i| {
            format!(
                "metric{{label=\"{i}\"}} {}\n",
                (i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        });
        let mut body = String::with_capacity(len + 100);
        for line in lines {
            body.push_str(&line);
            if body.len() >= len {
                break;
            }
        }
        body.truncate(len);
        body.into_bytes()
    }

    #[test]
    fn what_is_compressed_reads_back_and_takes_no_more_memory_than_is_said() {
        for (len, most) in [(100_000, 3 << 20), (500_000, 3 << 20), (4_000_000, 3 << 20)] {
            let (base, body) = (body(len, 1), body(len, 2));
            for prefix in [None, Some(&base[..])] {
                let mut context = CCtx::create();
                let frame = compress_with(&mut context, &body, prefix).unwrap();
                assert!(context.sizeof() <= most, "{len}: {}", context.sizeof());
                assert_eq!(decompress(&frame, prefix, len), Ok(body.clone()));
                assert_eq!(decompress(&frame, prefix, len + 1), Err(Corrupt::Frame));
                assert_eq!(decompress(&frame, prefix, len - 1), Err(Corrupt::Frame));
                assert_eq!(decompress(&frame[..frame.len() - 1], prefix, len), Err(Corrupt::Frame));
            }
        }
    }

    #[test]
    fn what_exceeds_the_largest_window_takes_no_prefix() {
        let long = vec![0; 5 << 20];
        assert_eq!(compress(&long, Some(&long)), None);
        assert!(compress(&long, None).is_some());
    }
}
