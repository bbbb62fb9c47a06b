//! What a caller shows to prove who it is.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use tunnel_identity::UserIdentity;

/// A secret that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The text, for whoever verifies it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What a caller showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and its secret (RFC 7617, RFC 1929).
    Basic {
        /// The name, not checked yet.
        user: String,
        /// The secret.
        secret: Secret,
    },
    /// A secret alone (RFC 6750).
    Bearer {
        /// The secret.
        secret: Secret,
    },
    /// A client certificate, by which the connection itself was opened. It counts where a request shows nothing else:
    /// what is said with each request is the more deliberate.
    Certificate(Arc<UserIdentity>),
}

impl Credential {
    /// Reads the value of a `Proxy-Authorization` field; `None` for a scheme or an encoding that is not ours.
    pub(crate) fn from_field(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            let (user, secret) = decoded.split_once(':')?;
            Some(Self::Basic {
                user: user.to_owned(),
                secret: Secret::new(secret),
            })
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let one_word = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
            one_word.then(|| Self::Bearer {
                secret: Secret::new(rest),
            })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_and_bearer_are_read_and_nothing_else() {
        let basic = Credential::Basic {
            user: "alice".to_owned(),
            secret: Secret::new("s:e"),
        };
        assert_eq!(Credential::from_field(b"Basic YWxpY2U6czpl"), Some(basic.clone()));
        assert_eq!(Credential::from_field(b"bASIC  YWxpY2U6czpl "), Some(basic));
        let bearer = Credential::Bearer {
            secret: Secret::new("abc"),
        };
        assert_eq!(Credential::from_field(b"Bearer abc"), Some(bearer));
        for bad in [
            &b"Basic"[..],
            b"Basic !!!!",
            b"Basic YWxpY2U=",
            b"Basic /////w==",
            b"Bearer ",
            b"Bearer a b",
            b"Digest x",
            b"",
            b"\xff",
        ] {
            assert_eq!(Credential::from_field(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let shown = format!("{:?}", Credential::from_field(b"Basic YWxpY2U6czpl"));
        assert!(shown.contains("alice") && !shown.contains("s:e"), "{shown}");
    }
}
