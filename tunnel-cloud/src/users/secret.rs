//! A user's secret: `tu_` and 54 characters of base64url.
//!
//! It is 40 random bytes. The first 8, the handle, are kept as they are and say whose secret it is, so that a bearer
//! needs to give no name. The other 32 are kept only as SHA-256 behind a salt: 256 random bits cannot be guessed, so a
//! slow password hash would cost every request and protect nothing.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "tu_";
const HANDLE: usize = 8;

/// A user's secret. `Display` writes it out: that is its purpose. `Debug` does not.
#[derive(Clone)]
pub struct UserSecret([u8; 40]);

impl UserSecret {
    pub(super) fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 40];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// By what the owner is found.
    pub(super) fn handle(&self) -> [u8; HANDLE] {
        let mut handle = [0; HANDLE];
        handle.copy_from_slice(&self.0[..HANDLE]);
        handle
    }

    pub(super) fn hash(&self, salt: &[u8; 16]) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(b"tunnel user secret v1\0");
        hash.update(salt);
        hash.update(&self.0[HANDLE..]);
        hash.finalize().into()
    }

    /// Compares in constant time.
    pub(super) fn matches(&self, salt: &[u8; 16], hash: &[u8; 32]) -> bool {
        self.hash(salt).ct_eq(hash).into()
    }
}

impl fmt::Display for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSecret(..)")
    }
}
