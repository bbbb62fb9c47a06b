//! Request heads, as a proxy reads them, and as a server for many hosts does (RFC 9112 section 3).

use bytes::Bytes;
use tunnel_model::Class;

use super::{
    authority::Authority,
    body::Framing,
    head::{Declared, Fields, HeadError, MAX_FIELDS, Version, chosen_class, declared},
};

/// The port of a URL that names none.
pub(crate) const HTTP_PORT: u16 = 80;

/// What a request asks this proxy for. It alone decides where the request goes and whether the caller may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A tunnel to this host and port.
    Tunnel { authority: Authority, port: u16 },
    /// A request passed on to this host, with what is left of the target.
    Resource { authority: Authority, path: String },
}

impl Asked {
    /// The host and port that are meant.
    pub(crate) fn host_port(&self) -> (&str, u16) {
        match self {
            Self::Tunnel { authority, port } => (authority.host(), *port),
            Self::Resource { authority, .. } => (authority.host(), authority.port().unwrap_or(HTTP_PORT)),
        }
    }

    fn authority(&self) -> &Authority {
        match self {
            Self::Tunnel { authority, .. } | Self::Resource { authority, .. } => authority,
        }
    }
}

/// A request head in which nothing is ambiguous.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) version: Version,
    pub(crate) asked: Asked,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// How urgent it is, where the caller says so.
    pub(crate) class: Option<Class>,
    /// The caller may send another request afterwards.
    pub(crate) persistent: bool,
    /// The caller offers to speak something else afterwards.
    pub(crate) upgrade: bool,
}

impl Request {
    /// Reads a complete head, its empty line included, in which the target decides.
    pub(crate) fn parse(raw: Bytes) -> Result<Self, HeadError> {
        Self::read(&raw, |method, target, version, fields| {
            let asked = ask(method, target)?;
            check_host(fields, version, &asked)?;
            Ok(asked)
        })
    }

    /// Reads a complete head, its empty line included, in which `Host` decides.
    pub(crate) fn parse_by_host(raw: Bytes) -> Result<Self, HeadError> {
        Self::read(&raw, |method, target, _, fields| ask_by_host(method, target, fields))
    }

    fn read(
        raw: &Bytes,
        ask: impl FnOnce(&str, &str, Version, &Fields) -> Result<Asked, HeadError>,
    ) -> Result<Self, HeadError> {
        // The preface's first half looks like a head (RFC 9113 section 3.4).
        if raw.starts_with(b"PRI * HTTP/2.0\r\n") {
            return Err(HeadError::Http2);
        }
        let mut parsed = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut parsed);
        if request.parse(raw)?.is_partial() {
            return Err(HeadError::Truncated);
        }
        let version = Version::from_minor(request.version)?;
        let method = request.method.unwrap_or_default();
        let fields = Fields::new(raw, request.headers);
        let asked = ask(method, request.path.unwrap_or_default(), version, &fields)?;
        fields.one("proxy-authorization", HeadError::TwoCredentials)?;
        for ours in ["host", "content-length", "transfer-encoding"] {
            if fields.lists("connection", ours) {
                return Err(HeadError::BadConnection);
            }
        }
        let class = chosen_class(&fields)?;
        let framing = match declared(&fields, version)? {
            Declared::Nothing | Declared::Length(0) => Framing::None,
            _ if matches!(asked, Asked::Tunnel { .. }) => return Err(HeadError::BodyOnConnect),
            Declared::Length(length) => Framing::Length(length),
            Declared::Chunked => Framing::Chunked,
        };
        // An offer with a body would leave the protocols' border in the middle of it; it may be ignored (RFC 9110
        // section 7.8), and is.
        let upgrade = version == Version::Http11
            && framing == Framing::None
            && fields.lists("connection", "upgrade")
            && fields.all("upgrade").next().is_some();
        Ok(Self {
            persistent: version == Version::Http11 && !fields.lists("connection", "close"),
            method: method.to_owned(),
            version,
            asked,
            fields,
            framing,
            class,
            upgrade,
        })
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether sending it twice is as good as once (RFC 9110 section 9.2.2).
    pub(crate) fn is_repeatable(&self) -> bool {
        self.framing == Framing::None
            && !self.upgrade
            && matches!(
                self.method.as_str(),
                "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
            )
    }

    /// Whether the caller waits to be told before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.fields.lists("expect", "100-continue")
    }

    /// Whether the caller asks for answers in JSON.
    pub(crate) fn accepts_json(&self) -> bool {
        let json = |m: &[u8]| m.to_ascii_lowercase().starts_with(b"application/json");
        self.fields.list("accept").any(json)
    }
}

fn ask(method: &str, target: &str) -> Result<Asked, HeadError> {
    check_target(target)?;
    if method == "CONNECT" {
        let authority = Authority::parse(target.as_bytes())?;
        let port = authority.port().ok_or(HeadError::NoPort)?;
        return Ok(Asked::Tunnel { authority, port });
    }
    absolute(method, target)?.ok_or(HeadError::NotForAProxy)
}

/// What a request asks for where `Host` decides (RFC 9112 section 3.2): a path, or a whole URL that says the same.
fn ask_by_host(method: &str, target: &str, fields: &Fields) -> Result<Asked, HeadError> {
    check_target(target)?;
    if method == "CONNECT" {
        return Err(HeadError::NoTunnels);
    }
    let host = fields.one("host", HeadError::TwoHosts)?.ok_or(HeadError::NoHost)?;
    let host = Authority::parse(host)?;
    if target.starts_with('/') || target == "*" && method == "OPTIONS" {
        let path = target.to_owned();
        return Ok(Asked::Resource { authority: host, path });
    }
    let asked = absolute(method, target)?.ok_or(HeadError::NotAPath)?;
    if host.means(asked.authority(), HTTP_PORT) {
        Ok(asked)
    } else {
        Err(HeadError::HostDiffers)
    }
}

fn check_target(target: &str) -> Result<(), HeadError> {
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(HeadError::BadTarget);
    }
    if target.contains('#') {
        return Err(HeadError::Fragment);
    }
    Ok(())
}

/// A target in absolute form; nothing if it has another one.
fn absolute(method: &str, target: &str) -> Result<Option<Asked>, HeadError> {
    let rest = match target.split_at_checked("http://".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
        _ => return Ok(None),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = Authority::parse(authority.as_bytes())?;
    let path = match path {
        "" if method == "OPTIONS" => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    };
    Ok(Some(Asked::Resource { authority, path }))
}

/// `Host` may only repeat the target (RFC 9112 section 3.2.2 lets a proxy ignore it; whoever logs or routes by it
/// behind us would see another host than the one that rights were checked for).
fn check_host(fields: &Fields, version: Version, asked: &Asked) -> Result<(), HeadError> {
    let Some(host) = fields.one("host", HeadError::TwoHosts)? else {
        return match version {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(HeadError::NoHost),
        };
    };
    let host = Authority::parse(host)?;
    // Some clients leave the port of a CONNECT out of Host.
    let (_, port) = asked.host_port();
    let default = match asked {
        Asked::Tunnel { .. } => port,
        Asked::Resource { .. } => HTTP_PORT,
    };
    if host.means(asked.authority(), default) {
        Ok(())
    } else {
        Err(HeadError::HostDiffers)
    }
}

#[cfg(test)]
mod tests {
    use tunnel_model::ParseClassError;

    use super::*;

    #[test]
    fn the_target_decides_where_a_request_goes() {
        for (head, host, port, path) in [
            (
                "GET http://edge1 HTTP/1.1\r\nHost: edge1\r\n\r\n",
                "edge1",
                80,
                Some("/"),
            ),
            (
                "GET http://edge1?q HTTP/1.1\r\nHost: edge1:80\r\n\r\n",
                "edge1",
                80,
                Some("/?q"),
            ),
            (
                "GET HTTP://Edge1:81/a?b HTTP/1.1\r\nHost: edge1:81\r\n\r\n",
                "Edge1",
                81,
                Some("/a?b"),
            ),
            (
                "OPTIONS http://edge1 HTTP/1.1\r\nHost: edge1\r\n\r\n",
                "edge1",
                80,
                Some("*"),
            ),
            (
                "GET http://edge1/http://other/ HTTP/1.0\r\n\r\n",
                "edge1",
                80,
                Some("/http://other/"),
            ),
            ("CONNECT edge1:22 HTTP/1.0\r\n\r\n", "edge1", 22, None),
            ("CONNECT edge1:22 HTTP/1.1\r\nHost: edge1\r\n\r\n", "edge1", 22, None),
            (
                "CONNECT edge1:22 HTTP/1.1\r\nHost: edge1:22\r\nContent-Length: 0\r\n\r\n",
                "edge1",
                22,
                None,
            ),
        ] {
            let request = parse(head).unwrap();
            assert_eq!(request.asked.host_port(), (host, port), "{head}");
            let left = match &request.asked {
                Asked::Tunnel { .. } => None,
                Asked::Resource { path, .. } => Some(path.as_str()),
            };
            assert_eq!(left, path, "{head}");
        }
    }

    #[test]
    fn the_framing_is_what_the_head_says() {
        let post = |fields: &str| parse(&format!("POST http://a/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
        assert_eq!(post("").framing, Framing::None);
        assert_eq!(post("Content-Length: 0\r\n").framing, Framing::None);
        assert_eq!(post("content-length:12 \r\n").framing, Framing::Length(12));
        assert_eq!(post("TRANSFER-ENCODING: chunked\r\n").framing, Framing::Chunked);
    }

    #[test]
    fn a_connection_lasts_until_either_side_says_close() {
        let get = |version: &str, fields: &str| {
            parse(&format!("GET http://a/ HTTP/{version}\r\nHost: a\r\n{fields}\r\n"))
                .unwrap()
                .persistent
        };
        assert!(get("1.1", ""));
        assert!(!get("1.1", "Connection: x, Close\r\n"));
        assert!(!get("1.0", "Connection: keep-alive\r\n"));
    }

    #[test]
    fn an_upgrade_is_offered_by_both_fields_and_without_a_body() {
        let offers = |version: &str, fields: &str| {
            parse(&format!("GET http://a/ HTTP/{version}\r\nHost: a\r\n{fields}\r\n"))
                .unwrap()
                .upgrade
        };
        assert!(offers(
            "1.1",
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        ));
        assert!(!offers("1.1", "Upgrade: websocket\r\n"));
        assert!(!offers("1.1", "Connection: Upgrade\r\n"));
        assert!(!offers("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"));
        assert!(!offers(
            "1.1",
            "Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n"
        ));
    }

    #[test]
    fn a_caller_may_choose_a_class_for_its_tunnel_or_its_request() {
        for (fields, class) in [
            ("", None),
            ("Tunnel-Class: bulk\r\n", Some(Class::Bulk)),
            ("tunnel-class:interactive \r\n", Some(Class::Interactive)),
            (
                "Connection: Tunnel-Class\r\nTUNNEL-CLASS: metrics\r\n",
                Some(Class::Metrics),
            ),
        ] {
            for line in ["CONNECT a:22", "GET http://a:22/"] {
                let head = format!("{line} HTTP/1.1\r\nHost: a:22\r\n{fields}\r\n");
                assert_eq!(parse(&head).unwrap().class, class, "{head}");
            }
            let by_host = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(Request::parse_by_host(Bytes::from(by_host)).unwrap().class, class);
        }
    }

    /// B15
    #[test]
    fn each_ambiguity_is_refused_by_its_name() {
        let plain = |fields: &str| format!("POST http://a/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let old = |fields: &str| format!("POST http://a/ HTTP/1.0\r\n{fields}\r\n");
        let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
        let many = "X: y\r\n".repeat(MAX_FIELDS);
        for (head, error) in [
            (
                plain("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
                HeadError::LengthAndEncoding,
            ),
            (
                plain("Content-Length: 1\r\nContent-Length: 1\r\n"),
                HeadError::TwoLengths,
            ),
            (plain("Content-Length: 1, 1\r\n"), HeadError::BadLength),
            (plain("Transfer-Encoding: gzip, chunked\r\n"), HeadError::BadEncoding),
            (
                plain("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
                HeadError::BadEncoding,
            ),
            (plain("Content_Length: 1\r\n"), HeadError::Masquerade),
            (plain("transfer_encoding: chunked\r\n"), HeadError::Masquerade),
            (old("Transfer-Encoding: chunked\r\n"), HeadError::EncodingInHttp10),
            (plain("Host: a\r\n"), HeadError::TwoHosts),
            (plain("Connection: x, content-length\r\n"), HeadError::BadConnection),
            (
                plain("Proxy-Authorization: a\r\nProxy-Authorization: b\r\n"),
                HeadError::TwoCredentials,
            ),
            (
                plain("Tunnel-Class: bulk\r\ntunnel-class: bulk\r\n"),
                HeadError::TwoClasses,
            ),
            (plain("Tunnel-Class: control\r\n"), HeadError::BadClass(ParseClassError)),
            (plain("Tunnel-Class: Bulk\r\n"), HeadError::BadClass(ParseClassError)),
            (
                plain("Tunnel-Class: bulk, interactive\r\n"),
                HeadError::BadClass(ParseClassError),
            ),
            (plain("Tunnel-Class:\r\n"), HeadError::BadClass(ParseClassError)),
            (
                plain("Tunnel-Class: b\u{fc}lk\r\n"),
                HeadError::BadClass(ParseClassError),
            ),
            (plain("Tunnel_Class: bulk\r\n"), HeadError::Masquerade),
            (plain(&many), HeadError::TooManyFields),
            ("GET http://a/ HTTP/1.1\r\n\r\n".to_owned(), HeadError::NoHost),
            (line("GET http://b/ HTTP/1.1"), HeadError::HostDiffers),
            (line("GET http://u:p@a/ HTTP/1.1"), HeadError::UserInfo),
            (line("GET http://a%2eb/ HTTP/1.1"), HeadError::BadHost),
            (line("GET http:///x HTTP/1.1"), HeadError::BadHost),
            (line("GET http://a/#f HTTP/1.1"), HeadError::Fragment),
            (line("GET http://a/é HTTP/1.1"), HeadError::BadTarget),
            (line("GET / HTTP/1.1"), HeadError::NotForAProxy),
            (line("OPTIONS * HTTP/1.1"), HeadError::NotForAProxy),
            (line("GET https://a/ HTTP/1.1"), HeadError::NotForAProxy),
            (line("CONNECT a HTTP/1.1"), HeadError::NoPort),
            (line("CONNECT a:0 HTTP/1.1"), HeadError::BadPort),
            (line("CONNECT http://a:80/ HTTP/1.1"), HeadError::BadHost),
            (
                line("GET http://a/ HTTP/2.0"),
                HeadError::Syntax(httparse::Error::Version),
            ),
            ("PRI * HTTP/2.0\r\n\r\n".to_owned(), HeadError::Http2),
            (
                "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n".to_owned(),
                HeadError::BodyOnConnect,
            ),
            (
                "CONNECT a:1 HTTP/1.1\r\nHost: a:2\r\n\r\n".to_owned(),
                HeadError::HostDiffers,
            ),
        ] {
            assert_eq!(parse(&head).unwrap_err(), error, "{head}");
        }
    }

    #[test]
    fn where_host_decides_a_path_is_enough() {
        for (head, host, port, path) in [
            ("GET / HTTP/1.1\r\nHost: edge1\r\n\r\n", "edge1", 80, "/"),
            (
                "GET //x/../y?z HTTP/1.1\r\nHost: Web.Edge1:81\r\n\r\n",
                "Web.Edge1",
                81,
                "//x/../y?z",
            ),
            ("GET / HTTP/1.0\r\nHost: edge1\r\n\r\n", "edge1", 80, "/"),
            ("OPTIONS * HTTP/1.1\r\nHost: edge1\r\n\r\n", "edge1", 80, "*"),
            (
                "GET http://EDGE1/x HTTP/1.1\r\nHost: edge1:80\r\n\r\n",
                "EDGE1",
                80,
                "/x",
            ),
        ] {
            let request = Request::parse_by_host(Bytes::from(head)).unwrap();
            assert_eq!(request.asked.host_port(), (host, port), "{head}");
            let left = matches!(&request.asked, Asked::Resource { path: left, .. } if left == path);
            assert!(left, "{head}");
        }
    }

    /// B15
    #[test]
    fn where_host_decides_nothing_contradicts_it() {
        for (head, error) in [
            ("GET / HTTP/1.1\r\n\r\n", HeadError::NoHost),
            ("GET / HTTP/1.0\r\n\r\n", HeadError::NoHost),
            ("GET http://a/ HTTP/1.0\r\n\r\n", HeadError::NoHost),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", HeadError::BadHost),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::TwoHosts),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HeadError::UserInfo),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::HostDiffers),
            ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::HostDiffers),
            ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::NotAPath),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::NotAPath),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::NotAPath),
            ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Fragment),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::NoTunnels),
            ("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::NoTunnels),
        ] {
            assert_eq!(Request::parse_by_host(Bytes::from(head)).unwrap_err(), error, "{head}");
        }
    }

    fn parse(head: &str) -> Result<Request, HeadError> {
        Request::parse(Bytes::from(head.to_owned()))
    }
}
