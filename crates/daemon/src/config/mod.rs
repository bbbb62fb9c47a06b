//! Configuration files: TOML in, one exact error out.
//!
//! A binary describes its file as a `Raw` type: serde with `deny_unknown_fields`, so that a misspelt key is an error
//! and not a silent default. [`load`] reads it; the binary turns the raw value into what it means and reports what it
//! cannot accept through [`Source::invalid`], which finds the line that the value came from. Every error names file,
//! line, column and key:
//!
//! ```text
//! error[config-unknown-key]: /etc/tunnel/cloud.toml:12:1: unknown key "lisen" (did you mean "listen"?)
//! ```

mod de;
mod error;

use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{CliError, Exit};
use crate::output::OutputFormat;

pub use error::{ConfigError, Position, Problem};

/// Reads and deserialises a configuration file.
pub fn load<Raw: DeserializeOwned>(path: &Path) -> Result<Raw, ConfigError> {
    Source::read(path)?.parse()
}

/// A configuration file's text, kept so that errors found later still name a line.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self {
                path: path.to_owned(),
                text,
            }),
            Err(error) => Err(ConfigError::unreadable(path, &error)),
        }
    }

    /// The file's text, where it does not come from a file. `path` is what errors call it.
    pub fn from_text(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Where the text comes from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Deserialises the text.
    pub fn parse<Raw: DeserializeOwned>(&self) -> Result<Raw, ConfigError> {
        let root = self.table()?;
        de::from_table(&root).map_err(|fault| {
            let position = fault.span.map(|span| Position::of(&self.text, span.start));
            ConfigError::in_file(&self.path, position, fault.problem, fault.key, fault.message).with_hint(fault.hint)
        })
    }

    /// An error about the value at `key`, such as `listen.proxy` or `service[1].target`, that deserialised well and
    /// yet cannot be accepted. Points to the value, or to the nearest table around it where the key was left out.
    pub fn invalid(&self, key: &str, reason: impl std::fmt::Display) -> ConfigError {
        let position = self
            .table()
            .ok()
            .map(|root| Position::of(&self.text, locate(&root, key)));
        let message = format!("key \"{key}\": {reason}");
        ConfigError::in_file(&self.path, position, Problem::InvalidValue, key.to_owned(), message)
    }

    fn table(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        DeTable::parse(&self.text).map_err(|error| {
            let position = error.span().map(|span| Position::of(&self.text, span.start));
            ConfigError::in_file(
                &self.path,
                position,
                Problem::Syntax,
                String::new(),
                error.message().to_owned(),
            )
        })
    }
}

/// The JSON schema of a configuration file, pretty-printed.
pub fn schema<Raw: JsonSchema>() -> String {
    format!("{:#}", schemars::schema_for!(Raw).as_value())
}

/// A configuration as text: TOML where a person asked, else JSON. It must hold no secret.
pub fn show<T: Serialize>(config: &T, format: OutputFormat) -> Result<String, CliError> {
    let text = match format {
        OutputFormat::Table => toml::to_string_pretty(config).map_err(|error| error.to_string()),
        OutputFormat::Json => return crate::output::to_json(config),
    };
    text.map_err(|reason| {
        CliError::new(
            Exit::Failure,
            "config-show",
            format!("cannot write the configuration as TOML: {reason}"),
        )
    })
}

/// Where the value at `key` begins, or the innermost table or list on the way to it.
fn locate(root: &Spanned<DeTable<'_>>, key: &str) -> usize {
    let mut at = root.span().start;
    let mut table = Some(root.get_ref());
    let mut rest = key;
    while let Some(current) = table {
        let step = current
            .iter()
            .find_map(|(name, value)| Some((value, after(rest, name.get_ref())?)));
        let Some((mut value, mut left)) = step else { break };
        at = value.span().start;
        while let Some((item, after_item)) = element(value, left) {
            (value, left, at) = (item, after_item, item.span().start);
        }
        table = value.get_ref().as_table();
        rest = left.strip_prefix('.').unwrap_or(left);
    }
    at
}

/// What follows `name` in a key path, if the path goes through `name`.
fn after<'k>(path: &'k str, name: &str) -> Option<&'k str> {
    path.strip_prefix(name)
        .filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn element<'a, 'i, 'k>(value: &'a Spanned<DeValue<'i>>, path: &'k str) -> Option<(&'a Spanned<DeValue<'i>>, &'k str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    let item = value.get_ref().as_array()?.get(index.parse::<usize>().ok()?)?;
    Some((item, rest))
}

impl ConfigError {
    fn unreadable(path: &Path, error: &io::Error) -> Self {
        let shown = path.display();
        let (problem, message, hint) = match error.kind() {
            io::ErrorKind::NotFound => (
                Problem::Missing,
                format!("{shown} does not exist"),
                "give the right path with --config, or make the file first",
            ),
            io::ErrorKind::PermissionDenied => (
                Problem::Unreadable,
                format!("{shown} may not be read by this user"),
                "run as its owner, or change the file's mode",
            ),
            io::ErrorKind::InvalidData => (
                Problem::Syntax,
                format!("{shown} is not UTF-8 text"),
                "save the file as UTF-8",
            ),
            _ => (
                Problem::Unreadable,
                format!("{shown} cannot be read: {error}"),
                "give the path of a readable file with --config",
            ),
        };
        Self::whole_file(path, problem, message).with_hint(Some(hint.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn a_good_file_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloud.toml");
        std::fs::write(&path, GOOD).unwrap();
        let raw: Raw = load(&path).unwrap();
        assert_eq!(raw.listen.port, 443);
        assert_eq!(raw.log, Some(Log::Json));
        assert_eq!(raw.service[1].name, "ssh");
        assert_eq!(raw.share, Some(0.5));
        assert_eq!(raw.backlog, Some(u64::MAX >> 1));
    }

    /// R6
    #[test]
    fn an_unknown_key_is_named_with_its_place_and_a_suggestion() {
        insta::assert_snapshot!(fault("[listen]\npublic = \"x\"\nport = 1\n\n  [lisen]\n"), @r#"error[config-unknown-key]: cloud.toml:5:4: unknown key "lisen" (did you mean "listen"?)"#);
        insta::assert_snapshot!(fault("[listen]\npubic = \"x\"\n"), @r#"error[config-unknown-key]: cloud.toml:2:1: unknown key "listen.pubic" (did you mean "listen.public"?)"#);
        insta::assert_snapshot!(fault("[[service]]\nname = \"a\"\n[[service]]\nwhatever = 1\n"), @r#"error[config-unknown-key]: cloud.toml:4:1: unknown key "service[1].whatever" (expected one of "name", "target")"#);
    }

    /// R6
    #[test]
    fn a_wrong_type_or_range_says_what_was_expected() {
        insta::assert_snapshot!(fault("[listen]\npublic = 7\n"), @r#"error[config-wrong-type]: cloud.toml:2:10: key "listen.public": expected a string, found integer `7`"#);
        insta::assert_snapshot!(fault("[listen]\npublic = \"x\"\nport = 70000\n"), @r#"error[config-invalid-value]: cloud.toml:3:8: key "listen.port": expected a whole number from 0 to 65535, found integer `70000`"#);
        insta::assert_snapshot!(fault("listen = 3\n"), @r#"error[config-wrong-type]: cloud.toml:1:10: key "listen": expected a table, found integer `3`"#);
        insta::assert_snapshot!(fault("log = \"jsn\"\n"), @r#"error[config-invalid-value]: cloud.toml:1:7: key "log": unknown value "jsn" (did you mean "json"?)"#);
        insta::assert_snapshot!(fault("backlog = 99999999999999999999\n"), @r#"error[config-invalid-value]: cloud.toml:1:11: key "backlog": expected a whole number below 2^64, found `99999999999999999999`"#);
    }

    /// R6
    #[test]
    fn a_missing_key_points_to_the_table_that_lacks_it() {
        insta::assert_snapshot!(fault("\n[listen]\nport = 1\n"), @r#"error[config-missing-key]: cloud.toml:2:1: key "listen.public" is missing"#);
        insta::assert_snapshot!(fault(""), @r#"error[config-missing-key]: cloud.toml:1:1: key "listen" is missing"#);
    }

    /// R6
    #[test]
    fn broken_toml_points_to_the_spot() {
        insta::assert_snapshot!(fault("[listen]\npublic = \n"), @"error[config-syntax]: cloud.toml:2:10: string values must be quoted, expected literal string");
        insta::assert_snapshot!(fault("a = 1\na = 2\n"), @"error[config-syntax]: cloud.toml:2:1: duplicate key");
        insta::assert_snapshot!(fault("a = \"é\" b\n"), @"error[config-syntax]: cloud.toml:1:9: unexpected key or value, expected newline, `#`");
    }

    /// R6
    #[test]
    fn a_missing_file_says_so_with_the_fix() {
        let error = load::<Raw>(Path::new("/nowhere/cloud.toml")).unwrap_err();
        insta::assert_snapshot!(CliError::from(error), @"error[config-missing]: /nowhere/cloud.toml does not exist (give the right path with --config, or make the file first)");
    }

    /// R6
    #[test]
    fn a_file_that_cannot_be_read_as_text_says_so_with_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let error = load::<Raw>(dir.path()).unwrap_err();
        assert_eq!(error.code(), "config-unreadable");
        assert!(error.to_string().contains(&dir.path().display().to_string()));

        let path = dir.path().join("binary");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(load::<Raw>(&path).unwrap_err().code(), "config-syntax");
    }

    #[test]
    fn a_value_refused_later_still_has_its_line() {
        let source = Source::from_text("cloud.toml", GOOD);
        for (key, place) in [
            ("listen.public", "cloud.toml:5:10"),
            ("service[0].target", "cloud.toml:10:10"),
            ("service[1].target", "cloud.toml:11:1"),
            ("service[1].name", "cloud.toml:12:8"),
            ("gateway", "cloud.toml:1:1"),
        ] {
            let error = source.invalid(key, "no");
            assert_eq!(error.to_string(), format!("{place}: key \"{key}\": no"), "{key}");
        }
    }

    #[test]
    fn the_configuration_in_effect_shows_as_toml_that_loads_again_and_as_json() {
        let raw: Raw = Source::from_text("cloud.toml", GOOD).parse().unwrap();
        let shown = show(&raw, OutputFormat::Table).unwrap();
        assert_eq!(Source::from_text("shown", shown).parse::<Raw>().unwrap(), raw);
        assert!(
            show(&raw, OutputFormat::Json)
                .unwrap()
                .starts_with(r#"{"schema":"v1","listen":"#)
        );
    }

    #[test]
    fn the_schema_names_the_keys_and_refuses_others() {
        let schema: serde_json::Value = serde_json::from_str(&schema::<Raw>()).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["properties"]["listen"].is_object());
    }

    const GOOD: &str = r#"log = "json"
share = 0.5
backlog = 0x7fff_ffff_ffff_ffff
[listen]
public = "0.0.0.0"
port = 443

[[service]]
name = "kubelet"
target = "127.0.0.1:10250"
[[service]]
name = "ssh"
"#;

    #[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        listen: Listen,
        log: Option<Log>,
        share: Option<f64>,
        backlog: Option<u64>,
        #[serde(default)]
        service: Vec<Service>,
    }

    #[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Listen {
        public: String,
        #[serde(default)]
        port: u16,
    }

    #[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Log {
        Text,
        Json,
    }

    #[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Service {
        name: String,
        target: Option<String>,
    }

    fn fault(text: &str) -> String {
        let error = Source::from_text("cloud.toml", text).parse::<Raw>().unwrap_err();
        CliError::from(error).to_string()
    }
}
