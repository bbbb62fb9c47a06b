//! Identifiers: 128 random bits each, written as 32 lower-case hexadecimal digits.

use std::{fmt, str::FromStr};

/// A text is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 lower-case hexadecimal digits")]
pub struct ParseIdError;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new id from the given source of randomness.
            pub fn random(rng: &mut impl rand::Rng) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// The id made of these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id's 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(str::from_utf8(&hex(&self.0)).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                parse_hex(s).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(s: String) -> Result<Self, Self::Error> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

random_id! {
    /// Who a node is, from enrolment to removal; its certificate says so, its name may change.
    NodeId
}
random_id! {
    /// One cluster: a certificate authority and everything it signed.
    ClusterId
}
random_id! {
    /// The public half of a join token.
    TokenId
}
random_id! {
    /// One lasting relation of a node and the gateway; it outlives connections.
    SessionId
}
random_id! {
    /// A caller's request, followed through gateway and edge (W3C Trace Context section 3.2.2.3).
    TraceId
}

fn hex(bytes: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    digits
}

fn parse_hex(s: &str) -> Result<[u8; 16], ParseIdError> {
    let digits = s.as_bytes();
    if digits.len() != 32 {
        return Err(ParseIdError);
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

fn nibble(digit: u8) -> Result<u8, ParseIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseIdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = NodeId::random(&mut rand::rngs::StdRng::seed_from_u64(7));
        assert_eq!(id.to_string().parse(), Ok(id));
        let known = NodeId::from_bytes(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
        assert_eq!(known.to_string(), "00112233445566778899aabbccddeeff");
    }

    #[test]
    fn one_id_has_one_spelling() {
        let spelled = "00112233445566778899aabbccddeeff";
        assert!(spelled.parse::<NodeId>().is_ok());
        for bad in [
            "",
            "0",
            &spelled.to_uppercase(),
            &spelled[1..],
            &format!("{spelled}0"),
            &"é".repeat(16),
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
    }
}
