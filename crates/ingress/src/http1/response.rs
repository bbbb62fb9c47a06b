//! Response heads, as a proxy reads them (RFC 9112 section 4).

use bytes::Bytes;

use super::{
    body::Framing,
    head::{Declared, Fields, HeadError, MAX_FIELDS, Version, declared},
    request::Request,
};

/// A response head in which nothing is ambiguous.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) phrase: String,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// The target takes another request afterwards.
    pub(crate) persistent: bool,
}

impl Response {
    /// Reads a complete head, its empty line included, that answers a request.
    pub(crate) fn parse(raw: Bytes, request: &Request) -> Result<Self, HeadError> {
        let mut parsed = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut parsed);
        if response.parse(&raw)?.is_partial() {
            return Err(HeadError::Truncated);
        }
        let version = Version::from_minor(response.version)?;
        let status = response.code.filter(|&code| code >= 100).ok_or(HeadError::BadStatus)?;
        let fields = Fields::new(&raw, response.headers);
        let declared = declared(&fields, version)?;
        // RFC 9112 section 6.3, rules 1 to 4 and 8; rule 2 (CONNECT) does not occur.
        let framing = match declared {
            _ if request.is_head() || is_bodiless(status) => Framing::None,
            Declared::Chunked if request.version == Version::Http10 => return Err(HeadError::ChunkedForHttp10),
            Declared::Chunked => Framing::Chunked,
            Declared::Length(length) => Framing::Length(length),
            Declared::Nothing => Framing::UntilClose,
        };
        Ok(Self {
            status,
            phrase: response.reason.unwrap_or_default().to_owned(),
            persistent: version == Version::Http11
                && framing != Framing::UntilClose
                && !fields.lists("connection", "close"),
            fields,
            framing,
        })
    }

    /// Another response to the same request follows.
    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200 && !self.is_switch()
    }

    /// The target speaks something else from here on.
    pub(crate) fn is_switch(&self) -> bool {
        self.status == 101
    }

    /// A status whose responses must not even mention a body's length (RFC 9110 section 8.6).
    pub(crate) fn hides_length(&self) -> bool {
        self.status < 200 || self.status == 204
    }
}

fn is_bodiless(status: u16) -> bool {
    status < 200 || matches!(status, 204 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9112 section 6.3
    #[test]
    fn the_framing_follows_from_request_and_status() {
        for (method, head, framing) in [
            (
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
            ),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::Chunked,
            ),
            ("GET", "HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose),
            ("GET", "HTTP/1.0 200\r\n\r\n", Framing::UntilClose),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::None),
            (
                "HEAD",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::None,
            ),
            (
                "GET",
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                Framing::None,
            ),
            (
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                Framing::None,
            ),
            ("GET", "HTTP/1.1 100 Continue\r\n\r\n", Framing::None),
            (
                "GET",
                "HTTP/1.1 101 Switching\r\nContent-Length: 5\r\n\r\n",
                Framing::None,
            ),
            (
                "GET",
                "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
                Framing::Length(0),
            ),
        ] {
            assert_eq!(parse(method, "1.1", head).unwrap().framing, framing, "{method} {head}");
        }
    }

    /// B15
    #[test]
    fn an_ambiguous_response_is_refused_by_its_name() {
        for (version, head, error) in [
            (
                "1.1",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::LengthAndEncoding,
            ),
            (
                "1.1",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                HeadError::TwoLengths,
            ),
            (
                "1.1",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                HeadError::BadEncoding,
            ),
            (
                "1.1",
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::EncodingInHttp10,
            ),
            (
                "1.0",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::ChunkedForHttp10,
            ),
            ("1.1", "HTTP/1.1 099 Low\r\n\r\n", HeadError::BadStatus),
            (
                "1.1",
                "HTTP/2.0 200 OK\r\n\r\n",
                HeadError::Syntax(httparse::Error::Version),
            ),
            (
                "1.1",
                "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
                HeadError::Syntax(httparse::Error::HeaderName),
            ),
        ] {
            assert_eq!(parse("GET", version, head).unwrap_err(), error, "{head}");
        }
    }

    #[test]
    fn a_target_lasts_if_it_can_say_where_its_answer_ends() {
        let lasts = |head: &str| parse("GET", "1.1", head).unwrap().persistent;
        assert!(lasts("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
        assert!(!lasts(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n"
        ));
        assert!(!lasts("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"));
        assert!(!lasts("HTTP/1.1 200 OK\r\n\r\n"));
    }

    fn parse(method: &str, version: &str, head: &str) -> Result<Response, HeadError> {
        let request = format!("{method} http://a/ HTTP/{version}\r\nHost: a\r\n\r\n");
        Response::parse(Bytes::from(head.to_owned()), &Request::parse(request.into()).unwrap())
    }
}
