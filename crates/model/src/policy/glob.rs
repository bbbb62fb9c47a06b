//! Names with gaps.

use std::{fmt, str::FromStr};

/// A pattern for names in which each `*` stands for any characters or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: String,
    /// Where the first `*` is.
    prefix: usize,
}

/// A text is no [`Glob`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern for names is made of a-z, 0-9, '-' and '*', got {0:?}")]
pub struct ParseGlobError(String);

impl Glob {
    /// What is before the first `*`.
    pub fn prefix(&self) -> &str {
        &self.text[..self.prefix]
    }

    /// Whether a name is of this form.
    pub fn matches(&self, name: &str) -> bool {
        let Some(mut rest) = name.strip_prefix(self.prefix()) else {
            return false;
        };
        let Some(behind) = self.text.get(self.prefix + 1..) else {
            return rest.is_empty();
        };
        let (middle, last) = behind.rsplit_once('*').unwrap_or(("", behind));
        // The leftmost place for each part leaves the most room for those behind it.
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            let Some((_, behind)) = rest.split_once(part) else {
                return false;
            };
            rest = behind;
        }
        rest.ends_with(last)
    }
}

impl FromStr for Glob {
    type Err = ParseGlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'*';
        // A name has 63 bytes at most (RFC 1035 section 2.3.4), and a gap on each side of each of them is no use.
        if text.is_empty() || text.len() > 127 || !text.bytes().all(ok) {
            return Err(ParseGlobError(text.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            prefix: text.find('*').unwrap_or(text.len()),
        })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_star_is_any_characters_or_none() {
        for (glob, yes, no) in [
            ("hz-*", ["hz-1", "hz-"], ["hz", "xhz-1"]),
            ("*", ["", "a"], ["", ""]),
            ("*-1", ["a-1", "-1"], ["a-12", "1"]),
            ("a*b*c", ["abc", "axbxbxc"], ["ab", "acb"]),
            ("a**b", ["ab", "axb"], ["a", "b"]),
            ("a*a", ["aa", "aba"], ["a", "ab"]),
        ] {
            let read: Glob = glob.parse().unwrap();
            assert!(yes.iter().all(|name| read.matches(name)), "{glob}");
            assert!(
                no.iter().filter(|n| !n.is_empty()).all(|name| !read.matches(name)),
                "{glob}"
            );
        }
        for bad in ["", "A*", "a?", "[a]", "a b", "a.b", "é*"] {
            assert!(bad.parse::<Glob>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_agrees_with_one_that_tries_everything(glob in "[ab*]{1,8}", name in "[ab]{0,8}") {
            let read: Glob = glob.parse().unwrap();
            prop_assert_eq!(read.matches(&name), naive(glob.as_bytes(), name.as_bytes()));
        }
    }

    fn naive(glob: &[u8], name: &[u8]) -> bool {
        match (glob, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => naive(rest, name) || (!name.is_empty() && naive(glob, &name[1..])),
            ([g, glob @ ..], [n, name @ ..]) => g == n && naive(glob, name),
            _ => false,
        }
    }
}
