//! What request and response heads have in common: where they end, their fields, what they say about the body.
//!
//! Parsing is strict on purpose. Every leniency that RFC 9112 allows a recipient (bare line feeds, repeated lengths,
//! folded lines) is a place where two parsers disagree about where a message ends, and the second one is behind a
//! tunnel that somebody else may share.

use bytes::Bytes;

use tunnel_model::{ChosenClass, Class, ParseClassError};

use super::body::BodyError;

/// The longest head, in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// The field by which a caller chooses the class of its stream. It is for this side alone.
pub(crate) const CLASS_FIELD: &str = "Tunnel-Class";

/// The most fields in a head.
pub(crate) const MAX_FIELDS: usize = 100;

/// Why a message is not proxied. The caller's connection ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("the head has more than {MAX_FIELDS} fields")]
    TooManyFields,
    #[error("the connection ended within the head")]
    Truncated,
    #[error("the head took too long to arrive")]
    TooSlow,
    #[error("a line feed without a carriage return; lines end with both")]
    BareLineFeed,
    #[error("a carriage return without a line feed; lines end with both")]
    BareCarriageReturn,
    #[error("a NUL byte in the head")]
    Nul,
    #[error("an empty line before the first line of the head")]
    EmptyLine,
    #[error("a field is folded over several lines")]
    Folded,
    #[error("the head is not HTTP/1: {0}")]
    Syntax(httparse::Error),
    #[error("this port speaks HTTP/1.1, HTTP/1.0 and SOCKS5, not HTTP/2")]
    Http2,
    #[error("Content-Length is not one decimal number")]
    BadLength,
    #[error("more than one Content-Length")]
    TwoLengths,
    #[error("Transfer-Encoding is something other than \"chunked\"")]
    BadEncoding,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingInHttp10,
    #[error("a field name that some servers take for Content-Length, Transfer-Encoding or {CLASS_FIELD}")]
    Masquerade,
    #[error("no Host")]
    NoHost,
    #[error("more than one Host")]
    TwoHosts,
    #[error("Host differs from the request's target")]
    HostDiffers,
    #[error("a user name in the request's target; credentials go into Proxy-Authorization")]
    UserInfo,
    #[error("a host with characters that no host name has")]
    BadHost,
    #[error("a port that is not a number from 1 to 65535")]
    BadPort,
    #[error("a CONNECT target is HOST:PORT")]
    NoPort,
    #[error("characters that no request target has")]
    BadTarget,
    #[error("a fragment in the request's target")]
    Fragment,
    #[error("this is a proxy: ask for http://HOST/PATH, or CONNECT HOST:PORT for anything but plain HTTP")]
    NotForAProxy,
    #[error("CONNECT is for the proxy port; here, Host says where a request goes")]
    NoTunnels,
    #[error("the request's target is neither /PATH nor http://HOST/PATH")]
    NotAPath,
    #[error("a CONNECT request with a body")]
    BodyOnConnect,
    #[error("more than one Proxy-Authorization")]
    TwoCredentials,
    #[error("more than one {CLASS_FIELD}")]
    TwoClasses,
    #[error("{CLASS_FIELD} names {0}")]
    BadClass(#[from] ParseClassError),
    #[error("Connection lists a field that is not the connection's")]
    BadConnection,
    #[error("bytes after an Upgrade request, before its answer")]
    BytesAfterUpgrade,
    #[error("the body is malformed: {0}")]
    Body(#[from] BodyError),
    #[error("a status below 100")]
    BadStatus,
    #[error("an answer to an HTTP/1.0 request is chunked")]
    ChunkedForHttp10,
}

impl HeadError {
    /// The status that a caller is answered with.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TooLong | Self::TooManyFields => 431,
            Self::TooSlow => 408,
            Self::Http2 => 505,
            _ => 400,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            other => Self::Syntax(other),
        }
    }
}

/// Looks for the end of a head as its bytes arrive, and refuses what no strict head holds before it is complete.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    at: usize,
    line: usize,
}

impl HeadScan {
    /// The head's length once `buf`, which must only have grown since the last call, holds all of it.
    pub(crate) fn find(&mut self, buf: &[u8]) -> Result<Option<usize>, HeadError> {
        let within = &buf[..buf.len().min(MAX_HEAD)];
        while let Some(&byte) = within.get(self.at) {
            match byte {
                0 => return Err(HeadError::Nul),
                b'\n' => return Err(HeadError::BareLineFeed),
                b' ' | b'\t' if self.at == self.line && self.line > 0 => return Err(HeadError::Folded),
                b'\r' => match within.get(self.at + 1) {
                    None => break,
                    Some(b'\n') if self.at == 0 => return Err(HeadError::EmptyLine),
                    Some(b'\n') if self.at == self.line => return Ok(Some(self.at + 2)),
                    Some(b'\n') => {
                        self.at += 2;
                        self.line = self.at;
                    }
                    Some(_) => return Err(HeadError::BareCarriageReturn),
                },
                _ => self.at += 1,
            }
        }
        if buf.len() >= MAX_HEAD {
            return Err(HeadError::TooLong);
        }
        Ok(None)
    }
}

/// The versions that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Http10,
    Http11,
}

impl Version {
    pub(super) fn from_minor(minor: Option<u8>) -> Result<Self, HeadError> {
        match minor {
            Some(0) => Ok(Self::Http10),
            Some(1) => Ok(Self::Http11),
            _ => Err(HeadError::Syntax(httparse::Error::Version)),
        }
    }
}

/// One field line, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Bytes,
    pub(crate) value: Bytes,
}

impl Field {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a head, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Fields(Vec<Field>);

impl Fields {
    pub(super) fn new(raw: &Bytes, parsed: &[httparse::Header<'_>]) -> Self {
        let field = |h: &httparse::Header<'_>| Field {
            name: raw.slice_ref(h.name.as_bytes()),
            value: raw.slice_ref(h.value),
        };
        Self(parsed.iter().map(field).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |f| f.is(name)).map(|f| &f.value[..])
    }

    /// The value of a field that may be there once.
    pub(crate) fn one(&self, name: &'static str, twice: HeadError) -> Result<Option<&[u8]>, HeadError> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(twice),
        }
    }

    /// The members of a field that is a list (RFC 9110 section 5.6.1).
    pub(crate) fn list(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        self.all(name)
            .flat_map(|v| v.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
    }

    pub(crate) fn lists(&self, name: &'static str, member: &str) -> bool {
        self.list(name).any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Whether `Connection` makes a field the connection's own (RFC 9110 section 7.6.1).
    pub(super) fn is_of_connection(&self, field: &Field) -> bool {
        self.list("connection").any(|m| field.name.eq_ignore_ascii_case(m))
    }
}

/// The class that a caller has chosen, if it has chosen one: once, and in the one spelling that a class has.
pub(super) fn chosen_class(fields: &Fields) -> Result<Option<Class>, HeadError> {
    let Some(named) = fields.one(CLASS_FIELD, HeadError::TwoClasses)? else {
        return Ok(None);
    };
    let class: ChosenClass = std::str::from_utf8(named).map_err(|_| ParseClassError)?.parse()?;
    Ok(Some(class.get()))
}

/// What a head says about its body's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

/// Reads `Content-Length` and `Transfer-Encoding`; there is one of them, once, in one spelling, or the message is
/// refused (RFC 9112 section 6.3, without its leniencies).
pub(super) fn declared(fields: &Fields, version: Version) -> Result<Declared, HeadError> {
    // Servers that hand fields on as environment variables cannot tell `_` from `-`.
    let masquerades = |f: &Field| {
        let dashed = f
            .name
            .iter()
            .map(|&b| if b == b'_' { b'-' } else { b.to_ascii_lowercase() });
        let is = |name: &str| dashed.clone().eq(name.bytes().map(|b| b.to_ascii_lowercase()));
        f.name.contains(&b'_') && (is("content-length") || is("transfer-encoding") || is(CLASS_FIELD))
    };
    if fields.iter().any(masquerades) {
        return Err(HeadError::Masquerade);
    }
    let length = fields.one("content-length", HeadError::TwoLengths)?;
    let encoding = fields.one("transfer-encoding", HeadError::BadEncoding)?;
    match (length, encoding) {
        (None, None) => Ok(Declared::Nothing),
        (Some(_), Some(_)) => Err(HeadError::LengthAndEncoding),
        (Some(digits), None) => parse_length(digits).map(Declared::Length),
        (None, Some(_)) if version == Version::Http10 => Err(HeadError::EncodingInHttp10),
        (None, Some(b"chunked")) => Ok(Declared::Chunked),
        (None, Some(_)) => Err(HeadError::BadEncoding),
    }
}

/// A decimal number of at most 19 digits, so that it also fits the signed 64 bits of the next parser.
fn parse_length(digits: &[u8]) -> Result<u64, HeadError> {
    let plain = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)
        .and_then(|s| s.parse().ok());
    number.filter(|&n| i64::try_from(n).is_ok()).ok_or(HeadError::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line() {
        let bytes = b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut scan = HeadScan::default();
        for len in 0..bytes.len() {
            let found = scan.find(&bytes[..len]);
            assert_eq!(found, Ok((len >= 35).then_some(35)), "after {len} bytes");
        }
    }

    /// B15
    #[test]
    fn what_no_strict_head_holds_is_refused_before_the_head_is_complete() {
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\n"[..], HeadError::BareLineFeed),
            (b"GET / HTTP/1.1\r\nA: b\n", HeadError::BareLineFeed),
            (b"\n", HeadError::BareLineFeed),
            (b"GET /\rHTTP", HeadError::BareCarriageReturn),
            (b"A\r\r\n", HeadError::BareCarriageReturn),
            (b"G\0", HeadError::Nul),
            (b"\r\n", HeadError::EmptyLine),
            (b"GET / HTTP/1.1\r\n A: b", HeadError::Folded),
            (b"GET / HTTP/1.1\r\nA: b\r\n\tc", HeadError::Folded),
        ] {
            assert_eq!(HeadScan::default().find(bytes), Err(error), "{bytes:?}");
        }
    }

    /// B17
    #[test]
    fn an_endless_head_is_refused_at_its_limit() {
        let mut scan = HeadScan::default();
        let mut bytes = vec![b'a'; MAX_HEAD - 1];
        assert_eq!(scan.find(&bytes), Ok(None));
        bytes.push(b'a');
        assert_eq!(scan.find(&bytes), Err(HeadError::TooLong));

        let mut whole = vec![b'a'; MAX_HEAD - 4];
        whole.extend(b"\r\n\r\n");
        assert_eq!(HeadScan::default().find(&whole), Ok(Some(MAX_HEAD)));
    }

    #[test]
    fn a_length_is_one_decimal_number() {
        assert_eq!(parse_length(b"0"), Ok(0));
        assert_eq!(parse_length(b"007"), Ok(7));
        assert_eq!(parse_length(b"9223372036854775807"), Ok(i64::MAX as u64));
        for bad in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1,1",
            "0x1",
            "1_0",
            "9223372036854775808",
            "10000000000000000000",
        ] {
            assert_eq!(parse_length(bad.as_bytes()), Err(HeadError::BadLength), "{bad:?}");
        }
    }
}
