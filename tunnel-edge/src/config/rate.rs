//! What the link carries, as somebody knows who has it: `rate = "3mbit"`, or one for each direction.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tunnel_proto::Rate;

/// The key `link.rate`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkRate {
    /// From this edge to the gateway.
    pub up: Option<Rate>,
    /// From the gateway to this edge.
    pub down: Option<Rate>,
}

/// It is written so where the directions differ.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Directions {
    /// What the link carries from this edge to the gateway, such as "1mbit"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    up: Option<Written>,
    /// What it carries from the gateway to this edge
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    down: Option<Written>,
}

/// A rate as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written(Rate);

/// Each stands before those that it ends in.
const UNITS: [(&str, u64); 4] = [
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no rate; write one like \"3mbit\", \"2.5mbit\" or \"512kbit\"");
        let lower = text.trim().to_ascii_lowercase();
        let unit = UNITS
            .iter()
            .find_map(|(unit, size)| Some((lower.strip_suffix(unit)?, *size)));
        let (amount, size) = unit.ok_or_else(wrong)?;
        let amount = amount.trim();
        let plain = amount.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let amount: f64 = Some(amount)
            .filter(|_| plain)
            .and_then(|a| a.parse().ok())
            .ok_or_else(wrong)?;
        // A cast of a float saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bits = (amount * size as f64).round() as u64;
        let rate = Rate::from_bits_per_second(bits).filter(|rate| *rate >= Rate::LEAST);
        rate.map(Self)
            .ok_or_else(|| format!("{text:?} is too little to be a link; the least is \"8kbit\""))
    }
}

/// The form that [`FromStr`] reads.
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.bits_per_second();
        let whole = UNITS.iter().find(|(_, size)| bits.is_multiple_of(*size));
        let (unit, size) = whole.copied().unwrap_or(("bit", 1));
        write!(f, "{}{unit}", bits / size)
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for LinkRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.up, self.down) {
            (Some(up), Some(down)) if up == down => Written(up).serialize(serializer),
            (up, down) => Directions {
                up: up.map(Written),
                down: down.map(Written),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LinkRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = LinkRate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate like \"3mbit\", or a table with `up` and `down`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LinkRate, E> {
                let Written(rate) = text.parse().map_err(E::custom)?;
                Ok(LinkRate {
                    up: Some(rate),
                    down: Some(rate),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LinkRate, A::Error> {
                let Directions { up, down } = Directions::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LinkRate {
                    up: up.map(|Written(rate)| rate),
                    down: down.map(|Written(rate)| rate),
                })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for LinkRate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LinkRate".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let directions = generator.subschema_for::<Directions>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, directions] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Link {
        rate: LinkRate,
    }

    fn bits(bits: u64) -> Option<Rate> {
        Rate::from_bits_per_second(bits)
    }

    #[test]
    fn a_rate_is_for_both_directions_or_for_each() {
        for (text, up, down) in [
            ("rate = \"3mbit\"", bits(3_000_000), bits(3_000_000)),
            ("rate = \"2.5Mbit\"", bits(2_500_000), bits(2_500_000)),
            (
                "rate = { up = \"512kbit\", down = \"1 gbit\" }",
                bits(512_000),
                bits(1_000_000_000),
            ),
            ("rate = { up = \"1mbit\" }", bits(1_000_000), None),
        ] {
            let link: Link = toml::from_str(text).unwrap();
            assert_eq!(link.rate, LinkRate { up, down }, "{text}");
            let shown = toml::to_string(&link).unwrap();
            assert_eq!(toml::from_str::<Link>(&shown).unwrap(), link, "{shown}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        for text in [
            "\"3\"",
            "\"mbit\"",
            "\"-3mbit\"",
            "\"1e9bit\"",
            "\"3mbit/s\"",
            "\"7kbit\"",
            "\"0mbit\"",
            "3",
            "{ upp = \"1mbit\" }",
        ] {
            let error = toml::from_str::<Link>(&format!("rate = {text}")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("kbit\"") || error.contains("`up`"), "{text}: {error}");
        }
    }
}
