//! Lengths and counts: seven bits a byte, lowest first, with the high bit on all but the last (as protobuf's).

/// More bytes than a length of this program has.
const MAX: usize = 5;

pub(super) fn put(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes a number from the front; `None` if there is none, or one above 2^32.
pub(super) fn take(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0_u64;
    for at in 0..MAX {
        let byte = *bytes.get(at)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return u32::try_from(value).ok().and_then(|value| usize::try_from(value).ok());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_leave_the_rest() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, 0xffff_ffff] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            bytes.push(7);
            let mut rest = &bytes[..];
            assert_eq!(take(&mut rest), Some(value));
            assert_eq!(rest, [7]);
        }
    }

    /// B2
    #[test]
    fn numbers_that_are_cut_or_too_large_are_none() {
        for wrong in [
            &[][..],
            &[0x80],
            &[0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
            &[0x80; 9],
        ] {
            assert_eq!(take(&mut &*wrong), None, "{wrong:?}");
        }
    }
}
