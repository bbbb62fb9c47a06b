//! Requests that are scrapes, and answers that can be held. What is neither travels as it is: here is nothing refused.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};

/// The longest head of a scrape or of its answer, in bytes.
pub(crate) const MAX_HEAD: usize = 16 << 10;

/// The most fields in one.
const MAX_FIELDS: usize = 64;

/// A request with one of these wants something else than the whole answer of now, or is not only a head.
const NO_SCRAPE: [&str; 11] = [
    "content-length",
    "transfer-encoding",
    "expect",
    "upgrade",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "trailer",
];

/// They differ in each request, and the stream's own header has the trace.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// What a caller has sent so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Too little to say.
    Unclear,
    /// A scrape, in the first so many bytes.
    Scrape {
        len: usize,
        /// The head as the target is to see it.
        head: Bytes,
    },
    /// Something else.
    Other,
}

/// Looks at what a caller sends.
pub(crate) fn request(bytes: &[u8]) -> Request {
    let method = &b"GET "[..];
    let known = bytes.len().min(method.len());
    if bytes[..known] != method[..known] {
        return Request::Other;
    }
    let Some(len) = end_of_head(bytes) else {
        return if bytes.len() < MAX_HEAD {
            Request::Unclear
        } else {
            Request::Other
        };
    };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let read = request.parse(&bytes[..len]);
    let (Ok(httparse::Status::Complete(_)), Some(1), Some(path)) = (read, request.version, request.path) else {
        return Request::Other;
    };
    let mut head = BytesMut::with_capacity(len);
    put_all(&mut head, &[method, path.as_bytes(), b" HTTP/1.1\r\n"]);
    for field in &*request.headers {
        if is_one_of(field.name, &NO_SCRAPE) {
            return Request::Other;
        }
        if !is_one_of(field.name, &TRACE) {
            put_field(&mut head, field.name, field.value);
        }
    }
    head.put_slice(b"\r\n");
    let head = head.freeze();
    Request::Scrape { len, head }
}

/// The head without what it says of encodings, so that the target answers in plain text.
pub(crate) fn without_encodings(head: &[u8]) -> Bytes {
    let mut plain = BytesMut::with_capacity(head.len());
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or(line);
        if !name.eq_ignore_ascii_case(b"accept-encoding") {
            plain.put_slice(line);
        }
    }
    plain.freeze()
}

/// Whether a scrape is the last of its connection.
pub(crate) fn is_last(head: &[u8]) -> bool {
    head.split(|&byte| byte == b'\n')
        .any(|line| line.trim_ascii_end().eq_ignore_ascii_case(b"connection: close"))
}

/// How long the body behind a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

/// The head of an answer without its framing: the body is said apart, and its length is then known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Status line and fields, each with the end of its line, without `Date`.
    text: Bytes,
    /// Where in the text `Date` stands, and what it says, in seconds since 1970.
    date: Option<(usize, u64)>,
}

/// An answer that cannot be held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotHeld;

impl Head {
    /// Reads an answer: its head, the head's length, and the framing of what follows. Nothing if the head is not complete.
    pub(crate) fn answer(bytes: &[u8]) -> Result<Option<(Self, usize, Framing)>, NotHeld> {
        match end_of_head(bytes) {
            Some(len) => Self::read(&bytes[..len]).map(|(head, framing)| Some((head, len, framing))),
            None if bytes.len() < MAX_HEAD => Ok(None),
            None => Err(NotHeld),
        }
    }

    /// Reads what [`Self::text`] wrote.
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, NotHeld> {
        let whole = [text, b"\r\n"].concat();
        match Self::answer(&whole)? {
            Some((head, len, _)) if len == whole.len() && head.text() == text => Ok(head),
            _ => Err(NotHeld),
        }
    }

    fn read(whole: &[u8]) -> Result<(Self, Framing), NotHeld> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        if !matches!(response.parse(whole), Ok(httparse::Status::Complete(_))) {
            return Err(NotHeld);
        }
        let status = response.code.filter(|&code| code >= 200).ok_or(NotHeld)?;
        let line = whole.iter().position(|&byte| byte == b'\n').ok_or(NotHeld)? + 1;
        let mut text = BytesMut::from(&whole[..line]);
        let (mut date, mut framing) = (None, None);
        for field in &*response.headers {
            let name = field.name;
            if name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(field.value).ok().and_then(|text| text.parse().ok());
                if framing.replace(Framing::Length(length.ok_or(NotHeld)?)).is_some() {
                    return Err(NotHeld);
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if field.value != b"chunked" || framing.replace(Framing::Chunked).is_some() {
                    return Err(NotHeld);
                }
            } else if name.eq_ignore_ascii_case("trailer") {
                return Err(NotHeld);
            } else if let Some(seconds) = parse_date(field).filter(|_| date.is_none()) {
                date = Some((text.len(), seconds));
            } else {
                put_field(&mut text, name, field.value);
            }
        }
        let framing = if is_bodiless(status) {
            Framing::Length(0)
        } else {
            framing.unwrap_or(Framing::Length(usize::MAX))
        };
        let text = text.freeze();
        Ok((Self { status, text, date }, framing))
    }

    /// As it is sent: status line and fields.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = self.text.to_vec();
        if let Some((at, seconds)) = self.date {
            let line = format!("Date: {}\r\n", format_date(seconds));
            text.splice(at..at, line.into_bytes());
        }
        text
    }

    /// By how many seconds the date differs from that of another head, if nothing else does.
    pub(crate) fn later_than(&self, other: &Self) -> Option<i64> {
        if self.text != other.text {
            return None;
        }
        match (self.date, other.date) {
            (None, None) => Some(0),
            (Some((at, now)), Some((was_at, then))) if at == was_at => {
                i64::try_from(now).ok()?.checked_sub(i64::try_from(then).ok()?)
            }
            _ => None,
        }
    }

    /// The same head so many seconds later.
    pub(crate) fn at(&self, later: i64) -> Option<Self> {
        let date = match self.date {
            None if later == 0 => None,
            None => return None,
            Some((at, seconds)) => Some((at, seconds.checked_add_signed(later).filter(|&s| s <= LAST)?)),
        };
        let text = self.text.clone();
        Some(Self { date, text, ..*self })
    }

    /// The head as a caller gets it, before a body of this length.
    pub(crate) fn before(&self, body: usize) -> Vec<u8> {
        let mut head = self.text();
        if !is_bodiless(self.status) {
            head.extend_from_slice(format!("Content-Length: {body}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// The last second of the year 9999: `Date` has four digits for it.
const LAST: u64 = 253_402_300_799;

/// The date that a field says, if it is written as it would be written here.
fn parse_date(field: &httparse::Header<'_>) -> Option<u64> {
    let value = std::str::from_utf8(field.value).ok().filter(|_| field.name == "Date")?;
    let since = httpdate::parse_http_date(value)
        .ok()?
        .duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.ok()?.as_secs();
    (seconds <= LAST && format_date(seconds) == value).then_some(seconds)
}

fn format_date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// RFC 9110 section 6.4.1
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// Where a head ends, if its lines end as they must.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let within = &bytes[..bytes.len().min(MAX_HEAD)];
    within.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn put_field(head: &mut BytesMut, name: &str, value: &[u8]) {
    put_all(head, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn put_all(head: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| head.put_slice(part));
}
