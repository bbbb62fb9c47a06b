//! Join tokens: one string that lets one edge, or a few, join a cluster.
//!
//! `tj1.` and, in unpadded base64url (RFC 4648 section 5): the length of what follows as two bytes, big-endian; the token
//! id (16 bytes); the root's pin (32); the secret (32); the number of gateway addresses and for each its host's length,
//! the host and the port (two bytes, big-endian); and the first four bytes of the SHA-256 of all before.
//!
//! The gateway keeps no secret, only its [`TokenKey`]; what leaks from its store does not spell a token, though it does
//! prove one until the token is spent or expires.

use std::{fmt, str::FromStr};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use rand::CryptoRng;
use ring::digest;
use subtle::ConstantTimeEq as _;
use tunnel_model::{GatewayAddr, TokenId};
use zeroize::Zeroizing;

use crate::RootPin;

const PREFIX: &str = "tj1.";
/// Takes a last character with stray bits, so that a slip there is not mistaken for a cut.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
const CHECKSUM: usize = 4;
const FIXED: usize = 16 + 32 + 32 + 1;

/// A text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// It starts with something else.
    #[error("this is not a join token: one starts with {PREFIX:?}; create one with `tunnel-cloud token create`")]
    NotAToken,
    /// It is of a later version.
    #[error("this join token is of a newer version than this program; update tunnel-edge")]
    Newer,
    /// The end is missing.
    #[error("the join token was cut short; copy all of it")]
    Cut,
    /// There is something behind the end.
    #[error("there is something behind the end of the join token; copy the token alone")]
    TooLong,
    /// There is a character that no token has.
    #[error("the join token holds {found:?} at character {at}, which no token does; copy it again")]
    BadCharacter {
        /// The character.
        found: char,
        /// Its position, from 1.
        at: usize,
    },
    /// The checksum does not match.
    #[error("the join token was mistyped: its checksum does not match; copy it again")]
    Mistyped,
    /// The checksum matches and the content makes no sense.
    #[error("the join token holds no valid gateway address; create a new one")]
    BadContent,
}

/// The secret half of a join token. Wiped from memory when dropped, never shown.
pub struct TokenSecret(Zeroizing<[u8; 32]>);

impl TokenSecret {
    /// What the gateway keeps of it, and both ends prove the token with.
    pub fn key(&self) -> TokenKey {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"tunnel join token v1\0");
        hash.update(self.0.as_ref());
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        TokenKey(Zeroizing::new(key))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// The hash of a token's secret, for the store. Compared in constant time, wiped when dropped, never shown.
#[derive(Clone)]
pub struct TokenKey(Zeroizing<[u8; 32]>);

impl TokenKey {
    /// The key that a store kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For a store to keep.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_ref()).into()
    }
}

impl Eq for TokenKey {}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// A join token. `Display` writes it out, secret and all: that is its purpose. `Debug` does not.
#[derive(Debug)]
pub struct JoinToken {
    id: TokenId,
    pin: RootPin,
    gateways: Vec<GatewayAddr>,
    secret: TokenSecret,
}

impl JoinToken {
    /// How many gateway addresses a token may carry.
    pub const MAX_GATEWAYS: usize = 8;

    /// A new token with 1 to [`Self::MAX_GATEWAYS`] addresses; `None` for any other number.
    pub fn generate(pin: RootPin, gateways: Vec<GatewayAddr>, rng: &mut impl CryptoRng) -> Option<Self> {
        if !(1..=Self::MAX_GATEWAYS).contains(&gateways.len()) {
            return None;
        }
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Some(Self {
            id: TokenId::random(rng),
            pin,
            gateways,
            secret: TokenSecret(secret),
        })
    }

    /// Its public half.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The root that the gateway must show.
    pub fn pin(&self) -> RootPin {
        self.pin
    }

    /// Where the gateway is, in order of preference; 1 to [`Self::MAX_GATEWAYS`].
    pub fn gateways(&self) -> &[GatewayAddr] {
        &self.gateways
    }

    /// Its secret half.
    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(256));
        body.extend_from_slice(self.id.as_bytes());
        body.extend_from_slice(&self.pin.0);
        body.extend_from_slice(self.secret.0.as_ref());
        body.extend(u8::try_from(self.gateways.len()));
        for GatewayAddr(address) in &self.gateways {
            body.extend(u8::try_from(address.host().len()));
            body.extend_from_slice(address.host().as_bytes());
            body.extend_from_slice(&address.port().to_be_bytes());
        }
        body
    }

    fn from_body(mut body: &[u8]) -> Option<Self> {
        let id = TokenId::from_bytes(*take(&mut body)?);
        let pin = RootPin(*take(&mut body)?);
        let secret = TokenSecret(Zeroizing::new(*take(&mut body)?));
        let [count] = *take(&mut body)?;
        let mut gateways = Vec::new();
        for _ in 0..count {
            let [len] = *take(&mut body)?;
            let (host, rest) = body.split_at_checked(len.into())?;
            body = rest;
            let port = u16::from_be_bytes(*take(&mut body)?);
            let host = std::str::from_utf8(host).ok()?;
            let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
            gateways.push(format!("{}{host}{}:{port}", brackets.0, brackets.1).parse().ok()?);
        }
        let sensible = body.is_empty() && (1..=Self::MAX_GATEWAYS).contains(&gateways.len());
        sensible.then_some(Self {
            id,
            pin,
            gateways,
            secret,
        })
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(head)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest::digest(&digest::SHA256, bytes).as_ref()[..CHECKSUM]);
    sum
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let len = u16::try_from(body.len() + CHECKSUM).map_err(|_| fmt::Error)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.len() + 2 + CHECKSUM));
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&body);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes));
        write!(f, "{PREFIX}{}", *text)
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(match text.strip_prefix("tj").and_then(|t| t.split_once('.')) {
                Some((version, _)) if version.parse::<u32>().is_ok() => ParseTokenError::Newer,
                _ => ParseTokenError::NotAToken,
            });
        };
        if let Some((at, found)) = text
            .chars()
            .enumerate()
            .skip(PREFIX.len())
            .find(|&(_, c)| !in_alphabet(c))
        {
            return Err(ParseTokenError::BadCharacter { found, at: at + 1 });
        }
        // Four characters are three bytes, so no whole text leaves one character over.
        let Ok(bytes) = LENIENT.decode(encoded).map(Zeroizing::new) else {
            return Err(ParseTokenError::Cut);
        };
        let (len, rest) = bytes.split_first_chunk().ok_or(ParseTokenError::Cut)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if rest.len() < len {
            return Err(ParseTokenError::Cut);
        }
        if rest.len() > len {
            return Err(ParseTokenError::TooLong);
        }
        let (content, sum) = bytes.split_last_chunk().ok_or(ParseTokenError::Cut)?;
        let canonical = *Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes)) == encoded;
        if len < FIXED + CHECKSUM || !canonical || checksum(content) != *sum {
            return Err(ParseTokenError::Mistyped);
        }
        Self::from_body(&content[2..]).ok_or(ParseTokenError::BadContent)
    }
}

fn in_alphabet(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let written = token(3);
        let read: JoinToken = format!(" {written}\n").parse().unwrap();
        assert_eq!((read.id(), read.pin()), (written.id(), written.pin()));
        assert_eq!(read.gateways(), written.gateways());
        assert_eq!(read.secret().key(), written.secret().key());
    }

    #[test]
    fn a_token_carries_one_to_eight_addresses() {
        for count in 1..=8 {
            assert_eq!(
                token(count).to_string().parse::<JoinToken>().unwrap().gateways().len(),
                count
            );
        }
        for count in [0, 9] {
            let gateways = vec!["a:1".parse().unwrap(); count];
            assert!(JoinToken::generate(RootPin([0; 32]), gateways, &mut rng()).is_none());
        }
    }

    /// T6
    #[test]
    fn debugging_a_token_shows_no_secret() {
        let token = token(1);
        let shown = format!("{token:?} {:?}", token.secret().key());
        assert!(shown.contains("TokenSecret(..)") && shown.contains("TokenKey(..)"));
        for secret in [token.secret.0.as_ref(), token.secret().key().as_bytes()] {
            assert!(!shown.contains(&format!("{:?}", &secret[..4])[1..10]));
        }
    }

    #[test]
    fn the_stored_key_is_not_the_secret() {
        let token = token(1);
        assert_ne!(token.secret().key().as_bytes(), &*token.secret.0);
    }

    /// B12
    #[test]
    fn each_slip_is_told_apart() {
        let text = token(2).to_string();
        let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse(""), ParseTokenError::NotAToken);
        assert_eq!(parse("eyJhbGciOi.x"), ParseTokenError::NotAToken);
        assert_eq!(parse(&text.replacen("tj1", "tj2", 1)), ParseTokenError::Newer);
        assert_eq!(parse(&text[..text.len() - 8]), ParseTokenError::Cut);
        assert_eq!(parse(&format!("{text}AAAA")), ParseTokenError::TooLong);
        assert_eq!(
            parse(&text.replacen("tj1.", "tj1. ", 1)),
            ParseTokenError::BadCharacter { found: ' ', at: 5 }
        );
        let mut swapped = text.clone().into_bytes();
        swapped[60] = if swapped[60] == b'A' { b'B' } else { b'A' };
        assert_eq!(parse(std::str::from_utf8(&swapped).unwrap()), ParseTokenError::Mistyped);
    }

    /// B12
    #[test]
    fn no_truncation_is_a_token() {
        let text = token(2).to_string();
        for len in 0..text.len() {
            assert!(text[..len].parse::<JoinToken>().is_err(), "cut at {len}");
        }
    }

    /// B12: a token has one spelling, also where base64 leaves bits of the last character unused.
    #[test]
    fn no_other_last_character_spells_the_same_token() {
        for host in ["a", "ab", "abc"] {
            let gateways = vec![format!("{host}:1").parse().unwrap()];
            let text = JoinToken::generate(RootPin([7; 32]), gateways, &mut rng())
                .unwrap()
                .to_string();
            let (start, last) = text.split_at(text.len() - 1);
            for other in ('!'..='~').filter(|c| !last.starts_with(*c)) {
                let read = format!("{start}{other}").parse::<JoinToken>();
                assert!(read.is_err(), "{last} read as {other}");
            }
        }
    }

    proptest! {
        /// B12
        #[test]
        fn a_token_with_one_character_changed_is_refused(at in 0usize..120, to in any::<char>()) {
            let text = token(1).to_string();
            let mut chars: Vec<char> = text.chars().collect();
            let at = at % chars.len();
            prop_assume!(chars[at] != to);
            // White space around a token is not part of it, but no character of the token may become white space.
            chars[at] = to;
            let changed: String = chars.into_iter().collect();
            prop_assert!(changed.parse::<JoinToken>().is_err());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(tj1\\.)?[A-Za-z0-9_-]{0,300}") {
            let _ = text.parse::<JoinToken>();
        }

        #[test]
        fn any_body_with_a_good_checksum_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = JoinToken::from_body(&body);
        }
    }

    fn token(gateways: usize) -> JoinToken {
        let addresses = ["gw.example.com:443", "[2001:db8::1]:7000", "192.0.2.1:1"];
        let gateways = (0..gateways).map(|i| addresses[i % 3].parse().unwrap()).collect();
        JoinToken::generate(RootPin([7; 32]), gateways, &mut rng()).unwrap()
    }

    fn rng() -> rand::rngs::StdRng {
        rand::rngs::StdRng::seed_from_u64(1)
    }
}
