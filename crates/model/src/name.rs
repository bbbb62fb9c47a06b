//! Names of nodes, services, users, groups and zones.
//!
//! Node and service names are single DNS labels (RFC 1123 section 2.1) in lower case, so that they can stand in host
//! names, file names and metrics without ever being escaped. What is not such a label is refused at the door.

use std::{fmt, str::FromStr};

use crate::ADMINS;

/// A name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// The name has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// The name, or one of its labels, is longer than DNS allows.
    #[error("a name must be at most {max} bytes long, this one has {len}")]
    TooLong {
        /// Bytes in the name.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name holds something other than `a-z`, `0-9` and inner hyphens.
    #[error("a name is made of a-z, 0-9 and inner hyphens; {found:?} at byte {at} is not")]
    BadCharacter {
        /// The first offending character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
    /// The name would read as a number, and so as an IP address.
    #[error("a name must not be a number, decimal or hexadecimal: it would read as an IP address")]
    Number,
}

/// The longest DNS label, in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

fn check_label(s: &str) -> Result<(), ParseNameError> {
    if s.is_empty() {
        return Err(ParseNameError::Empty);
    }
    if s.len() > MAX_LABEL {
        return Err(ParseNameError::TooLong {
            len: s.len(),
            max: MAX_LABEL,
        });
    }
    for (at, found) in s.char_indices() {
        let edge = at == 0 || at + found.len_utf8() == s.len();
        let ok = found.is_ascii_lowercase() || found.is_ascii_digit() || (found == '-' && !edge);
        if !ok {
            return Err(ParseNameError::BadCharacter { found, at });
        }
    }
    Ok(())
}

fn check_name(s: &str) -> Result<(), ParseNameError> {
    check_label(s)?;
    if is_number(s) {
        return Err(ParseNameError::Number);
    }
    Ok(())
}

/// Whether a label is a number in the eyes of those who read hosts liberally: digits alone, or `0x` and hexadecimal
/// digits or nothing (WHATWG URL, "ends-in-a-number checker"). A host whose last label is one is an address or nothing.
pub(crate) fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

macro_rules! label_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                check_name(s)?;
                Ok(Self(s.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseNameError;

            fn try_from(s: String) -> Result<Self, Self::Error> {
                check_name(&s)?;
                Ok(Self(s))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "maxLength": MAX_LABEL,
                    "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
                })
            }
        }
    };
}

label_name! {
    /// The name of an enrolled edge, unique in its cluster, or [`CLOUD`].
    NodeName
}

/// The name that stands where a node's would and means the cloud side: its services are `SERVICE.cloud`. No node may be
/// enrolled under it.
pub const CLOUD: &str = "cloud";

impl NodeName {
    /// The name of the cloud side.
    pub fn cloud() -> Self {
        Self(CLOUD.to_owned())
    }

    /// Whether it is the cloud side's, and so no node's.
    pub fn is_reserved(&self) -> bool {
        self.0 == CLOUD
    }
}

/// A name that no node may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name {0} is reserved for services of the cloud side; choose another")]
pub struct ReservedName(pub NodeName);

label_name! {
    /// The name of a service that an edge declares, unique on that edge.
    ServiceName
}
label_name! {
    /// The name of a user of the gateway.
    UserName
}
label_name! {
    /// The name of a group of users.
    GroupName
}

impl GroupName {
    /// The group [`ADMINS`].
    pub fn admins() -> Self {
        Self(ADMINS.to_owned())
    }
}

/// The DNS suffix under which a cluster's names stand, such as `tunnel` or `edge.example.com`, without a trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

/// The longest DNS name in its textual form (RFC 1035 section 2.3.4, less the length bytes of the root).
const MAX_NAME: usize = 253;

impl Zone {
    /// The zone as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self("tunnel".to_owned())
    }
}

impl FromStr for Zone {
    type Err = ParseNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() > MAX_NAME {
            return Err(ParseNameError::TooLong {
                len: s.len(),
                max: MAX_NAME,
            });
        }
        s.split('.').try_for_each(check_label)?;
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for Zone {
    type Error = ParseNameError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl schemars::JsonSchema for Zone {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": MAX_NAME})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B13
    #[test]
    fn names_that_are_paths_escapes_look_alikes_or_empty_are_refused() {
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "%2e%2e",
            "a/b",
            "a\\b",
            "a b",
            "a\0",
            "a,b",
            "*",
            "A",
            "Edge1",
            "-a",
            "a-",
            "_a",
            "a_b",
            "a.b",
            "еdge1",
            "edge１",
            "a\u{200b}b",
            "a\n",
            &long,
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was taken for a node name");
            assert!(
                bad.parse::<ServiceName>().is_err(),
                "{bad:?} was taken for a service name"
            );
        }
    }

    #[test]
    fn a_label_of_63_bytes_is_a_name() {
        let longest = "a".repeat(63);
        assert_eq!(longest.parse::<NodeName>().unwrap().as_str(), longest);
        for good in ["a", "edge1", "0a", "a-b", "x--y"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
    }

    /// B14
    #[test]
    fn what_reads_as_a_number_is_no_name() {
        for bad in ["0", "127", "2130706433", "0177", "0x7f000001", "0x", "0xa"] {
            assert_eq!(bad.parse::<NodeName>(), Err(ParseNameError::Number), "{bad}");
        }
        for good in ["0a", "0x7g", "x0", "1e9", "a0x1"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
    }

    #[test]
    fn the_cloud_has_a_name_that_no_node_may_have() {
        assert_eq!("cloud".parse(), Ok(NodeName::cloud()));
        assert!(NodeName::cloud().is_reserved());
        assert!(!"cloud1".parse::<NodeName>().unwrap().is_reserved());
    }

    #[test]
    fn a_zone_is_labels_with_dots_between() {
        assert!("tunnel".parse::<Zone>().is_ok());
        assert!("edge.example.com".parse::<Zone>().is_ok());
        for bad in ["", ".", "a.", ".a", "a..b", "A.b"] {
            assert!(bad.parse::<Zone>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_name_in_json_is_an_error_and_not_a_name() {
        assert!(serde_json::from_str::<NodeName>("\"../x\"").is_err());
        assert_eq!(serde_json::from_str::<NodeName>("\"edge1\"").unwrap().as_str(), "edge1");
    }
}
