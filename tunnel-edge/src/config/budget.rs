//! What the link may carry in a day: `[link.budget]`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tunnel_model::Class;

use super::amount;

/// The `[link.budget]` table: bytes of both ways in a day of UTC. What is not written has no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinkBudget {
    /// All packets of the link, such as "500MB"; once it is spent, only interactive streams are let through
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub all: Option<Bytes>,
    /// Streams of class interactive: port 22
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub interactive: Option<Bytes>,
    /// Streams of class api: what is of no other
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub api: Option<Bytes>,
    /// Streams of class metrics: port 9100
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub metrics: Option<Bytes>,
    /// Streams of class bulk
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub bulk: Option<Bytes>,
}

impl LinkBudget {
    /// What streams of a class may carry.
    pub fn of(&self, class: Class) -> Option<Bytes> {
        match class {
            Class::Control => None,
            Class::Interactive => self.interactive,
            Class::Api => self.api,
            Class::Metrics => self.metrics,
            Class::Bulk => self.bulk,
        }
    }
}

/// A number of bytes as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = amount::read(text, &UNITS).map(Self);
        read.ok_or_else(|| format!("{text:?} is no number of bytes; write one like \"200MB\" or \"1.5GiB\""))
    }
}

/// The form that [`FromStr`] reads.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&amount::write(self.0, &UNITS))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_are_read_as_people_write_them() {
        for (text, bytes, shown) in [
            ("200MB", 200_000_000, "200MB"),
            ("1.5 gib", 1_610_612_736, "1536MiB"),
            ("0B", 0, "0B"),
            ("1234B", 1234, "1234B"),
        ] {
            let read: Bytes = text.parse().unwrap();
            assert_eq!((read.0, read.to_string().as_str()), (bytes, shown), "{text}");
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        for text in ["", "MB", "200", "-1MB", "1e3MB", "200 MB a day", "1..5MB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
    }
}
