//! Logs: one line per state change, as text or JSON, on stderr.
//!
//! A JSON line is an object with `ts` (RFC 3339, UTC, microseconds), `level`, `target` and `msg`, then the event's own
//! fields and those of the spans around it, flattened; an inner field hides an outer one of the same name. A text line
//! has the same parts in the same order. Control characters are escaped in both, so that a peer cannot forge a line.
//!
//! A field whose name says that it is a secret is written as `[redacted]`. That is the last net, not a licence.

use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::error::{CliError, Exit};

/// The environment variable that overrides [`LogConfig::level`].
pub const LEVEL_VARIABLE: &str = "TUNNEL_LOG";

const TIMESTAMP: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Endings of field names whose values are never written.
const SECRET: [&str; 7] = [
    "secret",
    "password",
    "token",
    "authorization",
    "credential",
    "private_key",
    "cookie",
];

/// The `[log]` table of both binaries' configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least level that is logged (error, warn, info, debug, trace), or a filter such as
    /// `info,tunnel_carrier=debug`
    pub level: String,
    /// How a line is written
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one object per line
    Json,
}

/// Starts logging for the rest of the process's life.
///
/// # Errors
/// Code `log-filter` for a level that cannot be parsed; `log-init` if logging was started before.
pub fn init(config: &LogConfig) -> Result<(), CliError> {
    let Level(filter) = Level::read(config)?;
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry()
        .with(
            Lines {
                format: config.format,
                out: io::stderr,
            }
            .with_filter(filter),
        )
        .try_init()
        .map_err(|error| CliError::new(Exit::Failure, "log-init", format!("cannot start logging: {error}")))?;
    // Logging was not started before, so there is no other handle.
    let _ = HANDLE.set(handle);
    Ok(())
}

/// What the level is changed by, once logging was started.
static HANDLE: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// A level that can be.
#[derive(Debug)]
pub struct Level(EnvFilter);

impl Level {
    /// Reads the level of a configuration; [`LEVEL_VARIABLE`] overrides it.
    ///
    /// # Errors
    /// Code `log-filter` for one that cannot be parsed.
    pub fn read(config: &LogConfig) -> Result<Self, CliError> {
        let configured = filter("log.level", &config.level)?;
        match std::env::var(LEVEL_VARIABLE) {
            Ok(directives) => filter(LEVEL_VARIABLE, &directives).map(Self),
            Err(_) => Ok(Self(configured)),
        }
    }

    /// Logs at this level from now on, if logging was started.
    pub fn apply(self) {
        if let Some(handle) = HANDLE.get() {
            // It fails once the subscriber is gone, when nothing is logged anyway.
            let _ = handle.reload(self.0);
        }
    }
}

fn filter(source: &str, directives: &str) -> Result<EnvFilter, CliError> {
    EnvFilter::builder().parse(directives).map_err(|error| {
        CliError::new(
            Exit::Failure,
            "log-filter",
            format!("{source} = \"{directives}\" is no log filter: {error}"),
        )
        .with_hint("use a level such as info, or a filter such as info,tunnel_carrier=debug")
    })
}

/// Writes events as lines to what `out` opens.
struct Lines<F> {
    format: LogFormat,
    out: F,
}

/// The fields of a span or an event, by name.
#[derive(Clone, Default)]
struct Fields(Map<String, Value>);

impl<S, F, W> Layer<S> for Lines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn() -> W + 'static,
    W: Write,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.0.extend(outer.0.clone());
            }
        }
        event.record(&mut fields);
        let message = fields.0.remove("message");
        let line = Line {
            ts: OffsetDateTime::now_utc().format(TIMESTAMP).unwrap_or_default(),
            level: event.metadata().level(),
            target: event.metadata().target(),
            msg: message.as_ref().and_then(Value::as_str).unwrap_or_default(),
            fields: &fields.0,
        };
        // In one write, so that lines of several threads do not mix; a log that cannot be written has nowhere to say so.
        let _ = (self.out)().write_all(line.render(self.format).as_bytes());
    }
}

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    #[serde(serialize_with = "level_name")]
    level: &'a tracing::Level,
    target: &'a str,
    msg: &'a str,
    #[serde(flatten)]
    fields: &'a Map<String, Value>,
}

impl Line<'_> {
    fn render(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
            LogFormat::Text => self.text(),
        }
    }

    fn text(&self) -> String {
        let mut line = format!("{} {:5} {}: {}", self.ts, self.level, self.target, Escaped(self.msg));
        for (name, value) in self.fields {
            // Writing to a String cannot fail.
            let _ = match value {
                Value::String(text) if is_bare(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        line.push('\n');
        line
    }
}

/// Whether a value needs no quotes.
fn is_bare(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=')
}

fn level_name<S: serde::Serializer>(level: &tracing::Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.as_str())
}

/// Shows control characters as escapes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // Raw identifiers (`r#type`) keep their prefix in the field's name.
        let name = field.name().trim_start_matches("r#");
        let value = if SECRET.iter().any(|ending| name.ends_with(ending)) {
            "[redacted]".into()
        } else {
            value.into()
        };
        let name = match name {
            "ts" | "level" | "target" | "msg" => format!("{name}_"),
            _ => name.to_owned(),
        };
        self.0.insert(name, value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The whole chain: the outermost error alone seldom says what to do.
        let chain = std::iter::successors(Some(value), |error| error.source());
        self.put(field, chain.map(ToString::to_string).collect::<Vec<_>>().join(": "));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_json_line_has_stable_fields_and_flattens_spans() {
        let mut line: Value = serde_json::from_str(&logged(LogFormat::Json, "info", node_online)).unwrap();
        let ts = line["ts"].take();
        let ts = ts.as_str().unwrap();
        assert!(
            ts.len() == "2026-01-02T03:04:05.678901Z".len() && ts.ends_with('Z'),
            "{ts}"
        );
        assert_eq!(
            line,
            serde_json::json!({
                "ts": null, "level": "INFO", "target": "gateway", "msg": "node online",
                "node": "alpha", "carrier": "quic", "rtt_ms": 42, "level_": 9, "error": "outer: inner",
            })
        );
    }

    #[test]
    fn a_text_line_has_the_same_parts() {
        let line = logged(LogFormat::Text, "info", node_online);
        let (_, after_time) = line.split_once(' ').unwrap();
        assert!(after_time.starts_with("INFO  gateway: node online "), "{line}");
        for part in [" node=alpha", " carrier=quic", " rtt_ms=42", " error=\"outer: inner\""] {
            assert!(after_time.contains(part), "{line}");
        }
    }

    #[test]
    fn a_peer_cannot_forge_a_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, "info", || {
                tracing::info!(
                    reason = "bye\nINFO forged\x1b[2J",
                    "closed by {}",
                    "peer\n2026 INFO forged"
                );
            });
            assert_eq!(lines.matches('\n').count(), 1, "{lines}");
            assert!(!lines.contains('\x1b'), "{lines}");
        }
    }

    #[test]
    fn a_secret_is_never_written() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, "info", || {
                tracing::info!(join_token = "hunter2", password = ?Some("hunter2"), token_id = "id7", "joined");
            });
            assert!(!lines.contains("hunter2"), "{lines}");
            assert!(lines.contains("id7"), "{lines}");
        }
    }

    #[test]
    fn the_level_filters_and_a_wrong_one_is_an_error_with_its_source() {
        assert_eq!(logged(LogFormat::Text, "warn,gateway=error", node_online), "");
        let error = filter("log.level", "gateway=loud").unwrap_err();
        assert_eq!(error.code(), "log-filter");
        assert!(
            error
                .message()
                .starts_with("log.level = \"gateway=loud\" is no log filter"),
            "{error}"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    fn node_online() {
        let _span = tracing::info_span!("session", node = "alpha", carrier = "tls", rtt_ms = 42).entered();
        let error = Outer(io::Error::other("inner"));
        let error: &dyn std::error::Error = &error;
        tracing::info!(target: "gateway", carrier = "quic", level = 9, error, "node online");
    }

    fn logged(format: LogFormat, level: &str, what: impl FnOnce()) -> String {
        let written = Written::default();
        let out = written.clone();
        let lines = Lines {
            format,
            out: move || out.clone(),
        }
        .with_filter(filter("test", level).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), what);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
