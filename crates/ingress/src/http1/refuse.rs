//! Refusals as HTTP responses.

use std::fmt::Write;

use tunnel_model::{Reason, Refusal};

use super::forward::REASON_FIELD;

/// How long a caller that came at a bad time should wait, in seconds. What a second allows is there again after one.
fn retry_after(reason: Reason) -> Option<u8> {
    match reason {
        Reason::RateLimited => Some(1),
        // By then one failure is forgiven.
        Reason::TooManyFailures => Some(6),
        Reason::Overloaded | Reason::Draining => Some(5),
        _ => None,
    }
}

/// The status that says a reason best.
pub(crate) fn status_of(reason: Reason) -> u16 {
    match reason {
        Reason::BadRequest => 400,
        Reason::Denied | Reason::NotAllowed => 403,
        Reason::UnknownNode | Reason::UnknownService => 404,
        Reason::Unauthenticated => 407,
        Reason::RateLimited | Reason::TooManyFailures => 429,
        Reason::Internal => 500,
        Reason::NodeOffline | Reason::Revoked | Reason::Overloaded | Reason::Draining => 503,
        Reason::TargetTimeout | Reason::IdleTimeout => 504,
        Reason::TargetRefused
        | Reason::TargetUnreachable
        | Reason::TargetReset
        | Reason::CarrierLost
        | Reason::Cancelled
        | Reason::Protocol
        | Reason::Superseded
        | Reason::UnsupportedVersion => 502,
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    }
}

/// How a caller wants to be refused.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// In JSON rather than as a line of text.
    pub(crate) json: bool,
    /// Without a body: the request was HEAD.
    pub(crate) head: bool,
    /// The connection ends with it.
    pub(crate) close: bool,
}

/// A whole response.
pub(crate) fn response(status: u16, refusal: &Refusal, manner: Manner) -> Vec<u8> {
    let code = refusal.reason.as_str();
    let (kind, body) = if manner.json {
        let body = serde_json::json!({"error": {"code": code, "message": refusal.message}});
        ("application/json", format!("{body}\n"))
    } else {
        (
            "text/plain; charset=utf-8",
            format!("error[{code}]: {}\n", refusal.message),
        )
    };
    let mut text = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{REASON_FIELD}: {code}\r\n",
        phrase(status),
        body.len(),
    );
    if status == 407 {
        text.push_str("Proxy-Authenticate: Basic realm=\"tunnel\", charset=\"UTF-8\"\r\n");
        text.push_str("Proxy-Authenticate: Bearer realm=\"tunnel\"\r\n");
    }
    if let Some(seconds) = retry_after(refusal.reason) {
        // Writing to a String does not fail.
        let _ = write!(text, "Retry-After: {seconds}\r\n");
    }
    if manner.close {
        text.push_str("Connection: close\r\n");
    }
    text.push_str("\r\n");
    if !manner.head {
        text.push_str(&body);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_status_with_a_phrase() {
        for &reason in Reason::ALL {
            assert_ne!(phrase(status_of(reason)), "Refused", "{reason}");
        }
    }

    #[test]
    fn a_refusal_is_one_line_of_text_with_its_code() {
        let refusal = Refusal::new(Reason::NodeOffline, "edge1 is offline since 12:00");
        let text = String::from_utf8(response(503, &refusal, Manner::default())).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 50\r\n\
             Tunnel-Reason: node-offline\r\n\r\nerror[node-offline]: edge1 is offline since 12:00\n"
        );
    }

    #[test]
    fn a_refusal_in_json_escapes_what_a_caller_wrote() {
        let refusal = Refusal::new(Reason::Overloaded, "too \"many\"");
        let manner = Manner {
            json: true,
            close: true,
            head: false,
        };
        let text = String::from_utf8(response(503, &refusal, manner)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("Retry-After: 5") && head.contains("Connection: close"),
            "{head}"
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "overloaded");
        assert_eq!(body["error"]["message"], "too \"many\"");
    }

    #[test]
    fn a_refused_head_request_gets_the_length_without_the_body() {
        let manner = Manner {
            head: true,
            ..Manner::default()
        };
        let text = String::from_utf8(response(407, &Refusal::new(Reason::Unauthenticated, "no"), manner)).unwrap();
        assert!(
            text.contains("Content-Length: 27\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
        assert_eq!(text.matches("Proxy-Authenticate: ").count(), 2);
    }
}
