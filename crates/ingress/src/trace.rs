//! The caller's trace (W3C Trace Context, section 3.2).

use tunnel_model::TraceId;

/// Reads a `traceparent` value; `None` if it is not valid and the trace has to start anew.
pub(crate) fn parse(value: &[u8]) -> Option<TraceId> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.splitn(5, '-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let zero = |s: &str| s.bytes().all(|b| b == b'0');
    let sound = known && hex(parent, 16) && !zero(parent) && hex(flags, 2) && !zero(trace);
    trace.parse().ok().filter(|_| sound)
}

/// A `traceparent` value for a trace that starts here; not sampled, as nobody asked for that.
pub(crate) fn format(trace: TraceId, span: u64) -> String {
    // A parent of zero is not valid.
    format!("00-{trace}-{:016x}-00", span.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_valid_traceparent_gives_its_trace() {
        for good in [
            format!("00-{TRACE}-00f067aa0ba902b7-01"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later"),
            format(TRACE.parse().unwrap(), 0),
        ] {
            assert_eq!(parse(good.as_bytes()), TRACE.parse().ok(), "{good}");
        }
    }

    #[test]
    fn an_invalid_traceparent_starts_a_new_trace() {
        for bad in [
            String::new(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-1"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
