//! `HOST[:PORT]` in a request's target and in `Host` (RFC 3986 section 3.2, less user names and escapes).

use super::head::HeadError;

/// A host and maybe a port, as a caller wrote them; not a destination yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    text: String,
    host: std::ops::Range<usize>,
    port: Option<u16>,
}

impl Authority {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, HeadError> {
        if text.contains(&b'@') {
            return Err(HeadError::UserInfo);
        }
        let ok = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(b);
        if !text.iter().all(ok) {
            return Err(HeadError::BadHost);
        }
        let text = String::from_utf8(text.to_vec()).map_err(|_| HeadError::BadHost)?;
        // A colon within brackets is the address's own.
        let from = text.rfind(']').unwrap_or(0);
        let colon = text[from..].find(':').map(|at| from + at);
        let host = 0..colon.unwrap_or(text.len());
        let bracketed = text.starts_with('[') && host.end == from + 1;
        let plain = !text.contains(['[', ']']);
        if host.is_empty() || !(plain || bracketed) {
            return Err(HeadError::BadHost);
        }
        let port = match colon.map(|at| &text[at + 1..]) {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|&p| p != 0).ok_or(HeadError::BadPort)?)
            }
            Some(_) => return Err(HeadError::BadPort),
        };
        Ok(Self { text, host, port })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, with its brackets if it has them.
    pub(crate) fn host(&self) -> &str {
        &self.text[self.host.clone()]
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether both mean the same where `port` is the default.
    pub(crate) fn means(&self, other: &Self, port: u16) -> bool {
        let host = |a: &Self| a.host().strip_suffix('.').unwrap_or(a.host()).to_ascii_lowercase();
        host(self) == host(other) && self.port.unwrap_or(port) == other.port.unwrap_or(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_come_apart() {
        for (text, host, port) in [
            ("edge1", "edge1", None),
            ("edge1:80", "edge1", Some(80)),
            ("Web.Edge1.:65535", "Web.Edge1.", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[::ffff:a9fe:a9fe]:80", "[::ffff:a9fe:a9fe]", Some(80)),
        ] {
            let read = Authority::parse(text.as_bytes()).unwrap();
            assert_eq!((read.host(), read.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn what_no_authority_holds_is_refused() {
        for (text, error) in [
            ("", HeadError::BadHost),
            (":80", HeadError::BadHost),
            ("u@edge1", HeadError::UserInfo),
            ("edge%31", HeadError::BadHost),
            ("édge", HeadError::BadHost),
            ("a b", HeadError::BadHost),
            ("a\\b", HeadError::BadHost),
            ("[::1", HeadError::BadPort),
            ("::1]", HeadError::BadHost),
            ("x[::1]", HeadError::BadHost),
            ("[::1]x", HeadError::BadHost),
            ("[::1]x:80", HeadError::BadHost),
            ("a:b:80", HeadError::BadPort),
            ("edge1:", HeadError::BadPort),
            ("edge1:0", HeadError::BadPort),
            ("edge1:+80", HeadError::BadHost),
            ("edge1:65536", HeadError::BadPort),
            ("edge1:80]", HeadError::BadHost),
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Err(error), "{text}");
        }
    }

    #[test]
    fn two_spellings_of_one_authority_mean_the_same() {
        let means = |a: &str, b: &str| {
            let (a, b) = (Authority::parse(a.as_bytes()), Authority::parse(b.as_bytes()));
            a.unwrap().means(&b.unwrap(), 80)
        };
        assert!(means("Edge1", "edge1:80") && means("edge1.", "edge1") && means("a:81", "A:81"));
        assert!(!means("edge1", "edge2") && !means("edge1:81", "edge1"));
    }
}
