//! Heads rewritten for the next hop: what belongs to the connection stays behind (RFC 9110 section 7.6.1).

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};
use tunnel_model::TraceId;

use super::{
    head::{CLASS_FIELD, Field, Fields, Version},
    request::{Asked, Request},
    response::Response,
};
use crate::trace;

/// The field by which callers tell this side's own refusals from the targets' answers.
pub(crate) const REASON_FIELD: &str = "Tunnel-Reason";

/// The head that goes to the target, and in it the trace that the request belongs to: the caller's, or `fresh`.
pub(crate) fn request_head(request: &Request, path: &str, fresh: TraceId, span: u64) -> Bytes {
    let mut head = BytesMut::with_capacity(1024);
    // The body goes on as it came, so a caller of 1.0 must not get an answer that needs 1.1.
    let version = match request.version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    };
    line(&mut head, format_args!("{} {path} {version}", request.method));
    let authority = match &request.asked {
        Asked::Tunnel { authority, .. } | Asked::Resource { authority, .. } => authority,
    };
    line(&mut head, format_args!("Host: {}", authority.as_str()));
    let traced = trace_of(request).is_some();
    for field in request.fields.iter() {
        let ours = field.is("host") || !traced && (field.is("traceparent") || field.is("tracestate"));
        if !ours && !stays_behind(field, &request.fields) {
            copy(&mut head, field);
        }
    }
    if !traced {
        line(&mut head, format_args!("Traceparent: {}", trace::format(fresh, span)));
    }
    if request.upgrade {
        copy_upgrade(&mut head, &request.fields);
    } else if !request.persistent {
        line(&mut head, format_args!("Connection: close"));
    }
    head.put_slice(b"\r\n");
    head.freeze()
}

/// The trace that the caller named, if it named one.
pub(crate) fn trace_of(request: &Request) -> Option<TraceId> {
    let mut values = request.fields.all("traceparent");
    let first = values.next()?;
    trace::parse(first).filter(|_| values.next().is_none())
}

/// The head that goes to the caller; `close` announces the end of its connection.
pub(crate) fn response_head(response: &Response, close: bool) -> Bytes {
    let mut head = BytesMut::with_capacity(1024);
    line(
        &mut head,
        format_args!("HTTP/1.1 {} {}", response.status, response.phrase),
    );
    for field in response.fields.iter() {
        let length = field.is("content-length") || field.is("transfer-encoding");
        // A target must not speak in the name of this side.
        let left_out = field.is(REASON_FIELD) || length && response.hides_length();
        if !left_out && !stays_behind(field, &response.fields) {
            copy(&mut head, field);
        }
    }
    if response.is_switch() {
        copy_upgrade(&mut head, &response.fields);
    } else if close {
        line(&mut head, format_args!("Connection: close"));
    }
    head.put_slice(b"\r\n");
    head.freeze()
}

/// Whether a field is meant for this hop alone. The body's framing is not: the body goes on as it came.
fn stays_behind(field: &Field, fields: &Fields) -> bool {
    let framing = field.is("content-length") || field.is("transfer-encoding");
    let proxy = field.name.len() >= 6 && field.name[..6].eq_ignore_ascii_case(b"proxy-");
    proxy
        || field.is(CLASS_FIELD)
        || ["connection", "keep-alive", "te", "upgrade"]
            .iter()
            .any(|name| field.is(name))
        || !framing && fields.is_of_connection(field)
}

fn copy(head: &mut BytesMut, field: &Field) {
    head.put_slice(&field.name);
    head.put_slice(b": ");
    head.put_slice(&field.value);
    head.put_slice(b"\r\n");
}

fn copy_upgrade(head: &mut BytesMut, fields: &Fields) {
    line(head, format_args!("Connection: Upgrade"));
    fields.iter().filter(|f| f.is("upgrade")).for_each(|f| copy(head, f));
}

fn line(head: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // BytesMut grows; there is nothing to fail.
    let _ = write!(head, "{text}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::from_utf8;

    #[test]
    fn what_belongs_to_the_callers_connection_stays_behind() {
        let head = forwarded(
            "GET http://Edge1:81/x HTTP/1.1\r\nhost: edge1:81\r\nProxy-Authorization: Basic eA==\r\n\
             Proxy-Connection: keep-alive\r\nConnection: X-Mine, close\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             tunnel-class: bulk\r\nUpgrade: h2c\r\nTrailer: X-Sum\r\nX-Yours: é\r\nContent-Length: 3\r\n\r\n",
        );
        let expected = "GET /x HTTP/1.1\r\nHost: Edge1:81\r\nTrailer: X-Sum\r\nX-Yours: é\r\nContent-Length: 3\r\n\
                        Traceparent: 00-00000000000000000000000000000007-0000000000000009-00\r\nConnection: close\r\n\r\n";
        assert_eq!(head, expected);
    }

    #[test]
    fn an_upgrade_is_passed_on_as_this_hops_own() {
        let head = forwarded(
            "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert!(
            head.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            "{head}"
        );
        assert_eq!(head.matches("Upgrade: ").count(), 1, "{head}");
    }

    #[test]
    fn a_valid_trace_goes_on_and_an_invalid_one_starts_anew() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let head = forwarded(&format!(
            "GET http://a/ HTTP/1.1\r\nHost: a\r\ntraceparent: {valid}\r\ntracestate: a=b\r\n\r\n"
        ));
        assert!(
            head.contains(&format!("traceparent: {valid}\r\ntracestate: a=b\r\n")),
            "{head}"
        );
        assert!(!head.contains("Traceparent"), "{head}");

        let head = forwarded("GET http://a/ HTTP/1.1\r\nHost: a\r\ntraceparent: x\r\ntracestate: a=b\r\n\r\n");
        assert!(
            !head.contains("traceparent: x") && !head.contains("tracestate"),
            "{head}"
        );
        assert!(head.contains("Traceparent: 00-0000"), "{head}");
    }

    #[test]
    fn a_target_speaks_neither_for_the_connection_nor_for_the_proxy() {
        let head = answered(
            "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\ntunnel-reason: denied\r\nUpgrade: h2c\r\nX-Yours: 1\r\n\r\n",
        );
        assert_eq!(
            head,
            "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nX-Yours: 1\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_response_that_cannot_have_a_body_does_not_mention_its_length() {
        let head = answered("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\nX: y\r\n\r\n");
        assert_eq!(head, "HTTP/1.1 204 No Content\r\nX: y\r\nConnection: close\r\n\r\n");
    }

    fn latin1(bytes: &[u8]) -> String {
        from_utf8(bytes).map_or_else(|_| bytes.iter().map(|&b| char::from(b)).collect(), str::to_owned)
    }

    fn request(head: &str) -> Request {
        let bytes: Vec<u8> = head.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        Request::parse(bytes.into()).unwrap()
    }

    fn forwarded(head: &str) -> String {
        let request = request(head);
        let Asked::Resource { path, .. } = &request.asked else {
            panic!("not a plain request")
        };
        let mut trace = [0; 16];
        trace[15] = 7;
        latin1(&request_head(&request, path, TraceId::from_bytes(trace), 9))
    }

    fn answered(head: &str) -> String {
        let asked = request("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
        latin1(&response_head(
            &Response::parse(Bytes::from(head.to_owned()), &asked).unwrap(),
            true,
        ))
    }
}
