//! Deserialises a parsed TOML document with errors that are data: kind, key path, span.
//!
//! The toml crate's own deserialiser reports serde's errors as text, from which the kind of a mistake could only be
//! guessed. This one walks the same tree and keeps what serde says.

use std::fmt::{self, Display};
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::Problem;

/// How alike two keys must be (Jaro-Winkler, 0 to 1) for one to be suggested for the other.
const ALIKE: f64 = 0.8;

/// Deserialises a document.
pub(super) fn from_table<'de, T: Deserialize<'de>>(root: &'de Spanned<DeTable<'de>>) -> Result<T, Box<Detail>> {
    let table = Table {
        entries: root.get_ref().iter(),
        value: None,
    };
    T::deserialize(MapAccessDeserializer::new(table)).map_err(|fault| fault.at(root.span()).finish())
}

/// An error with its key path, which grows at the front as the error travels outwards.
#[derive(Debug)]
pub(super) struct Fault(Box<Detail>);

#[derive(Debug)]
pub(super) struct Detail {
    pub(super) problem: Problem,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) span: Option<Range<usize>>,
    /// For an unknown key: how long its own name is, and what its table may hold instead.
    siblings: Option<(usize, &'static [&'static str])>,
}

impl Fault {
    fn new(problem: Problem, key: &str, message: String) -> Self {
        Self(Box::new(Detail {
            problem,
            key: key.to_owned(),
            message,
            hint: None,
            span: None,
            siblings: None,
        }))
    }

    /// Sets the place, unless a place further in is known.
    fn at(mut self, span: Range<usize>) -> Self {
        self.0.span.get_or_insert(span);
        self
    }

    /// Puts a table's key or a list's index in front of the path.
    fn under(mut self, outer: impl Display) -> Self {
        let dot = if self.0.key.is_empty() || self.0.key.starts_with('[') {
            ""
        } else {
            "."
        };
        self.0.key = format!("{outer}{dot}{}", self.0.key);
        self
    }

    /// Writes the message, now that the path is whole.
    fn finish(mut self) -> Box<Detail> {
        let key = &self.0.key;
        self.0.message = match self.0.problem {
            Problem::UnknownKey => format!("unknown key \"{key}\""),
            Problem::MissingKey => format!("key \"{key}\" is missing"),
            _ if key.is_empty() => self.0.message,
            _ => format!("key \"{key}\": {}", self.0.message),
        };
        if let Some((own, siblings)) = self.0.siblings {
            let (table, name) = key.split_at(key.len() - own);
            self.0.hint = suggest(name, siblings, table);
        }
        self.0
    }
}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Problem::InvalidValue, "", message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let message = format!("expected {}, found {found}", plain(&expected.to_string()));
        Self::new(Problem::WrongType, "", message)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let mut fault = Self::invalid_type(found, expected);
        fault.0.problem = Problem::InvalidValue;
        fault
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut fault = Self::new(Problem::InvalidValue, "", format!("unknown value \"{variant}\""));
        fault.0.hint = suggest(variant, expected, "");
        fault
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut fault = Self::new(Problem::UnknownKey, field, String::new());
        fault.0.siblings = Some((field.len(), expected));
        fault
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::MissingKey, field, String::new())
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Fault {}

/// The name closest to `found`, or all of them where none is close.
fn suggest(found: &str, known: &[&str], prefix: &str) -> Option<String> {
    let alike = known.iter().map(|name| (strsim::jaro_winkler(found, name), name));
    match alike.max_by(|a, b| a.0.total_cmp(&b.0)) {
        None => None,
        Some((likeness, name)) if likeness >= ALIKE => Some(format!("did you mean \"{prefix}{name}\"?")),
        Some(_) => {
            let names: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
            Some(format!("expected one of {}", names.join(", ")))
        }
    }
}

/// Rust's names for what a value may be, in the words of a configuration file.
fn plain(expected: &str) -> String {
    match expected {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        _ if expected.starts_with("struct ") || expected == "a map" => "a table".to_owned(),
        _ => expected.to_owned(),
    }
}

/// One value of the document.
#[derive(Clone, Copy)]
struct Value<'de>(&'de Spanned<DeValue<'de>>);

impl<'de> Value<'de> {
    fn table(entries: &'de DeTable<'de>) -> Table<'de> {
        Table {
            entries: entries.iter(),
            value: None,
        }
    }

    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_borrowed_str(text),
            DeValue::Integer(number) => visit_integer(number, visitor),
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(Fault::invalid_value(Unexpected::Other(number.as_str()), &"a number")),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(time) => visitor.visit_string(time.to_string()),
            DeValue::Array(items) => visitor.visit_seq(List {
                items: items.iter(),
                next: 0,
            }),
            DeValue::Table(entries) => visitor.visit_map(Self::table(entries)),
        }
    }
}

fn visit_integer<'de, V: Visitor<'de>>(number: &DeInteger<'_>, visitor: V) -> Result<V::Value, Fault> {
    if let Ok(number) = i64::from_str_radix(number.as_str(), number.radix()) {
        return visitor.visit_i64(number);
    }
    match u64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => visitor.visit_u64(number),
        Err(_) => Err(Fault::invalid_value(
            Unexpected::Other(&format!("`{number}`")),
            &"a whole number below 2^64",
        )),
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor).map_err(|fault| fault.at(self.0.span()))
    }

    // TOML has no null: a key that is there has a value.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self).map_err(|fault| fault.at(self.0.span()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|fault| fault.at(self.0.span()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let outcome = match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_enum(text.as_ref().into_deserializer()),
            DeValue::Table(entries) => visitor.visit_enum(MapAccessDeserializer::new(Self::table(entries))),
            _ => self.visit(visitor),
        };
        outcome.map_err(|fault| fault.at(self.0.span()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// The entries of a table; `value` is the one whose key was read last.
struct Table<'de> {
    entries: toml::map::Iter<'de, Spanned<toml::de::DeString<'de>>, Spanned<DeValue<'de>>>,
    value: Option<(&'de str, Value<'de>)>,
}

impl<'de> MapAccess<'de> for Table<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        let name = key.get_ref().as_ref();
        self.value = Some((name, Value(value)));
        let key_read = seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(name));
        key_read.map(Some).map_err(|fault: Fault| fault.at(key.span()))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((name, value)) = self.value.take() else {
            return Err(Fault::custom("a value was read before its key"));
        };
        seed.deserialize(value)
            .map_err(|fault| fault.at(value.0.span()).under(name))
    }
}

/// The items of a list.
struct List<'de> {
    items: std::slice::Iter<'de, Spanned<DeValue<'de>>>,
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Value(item))
            .map(Some)
            .map_err(|fault| fault.at(item.span()).under(format_args!("[{index}]")))
    }
}
