//! The rank of a stream.

use std::{borrow::Cow, fmt, str::FromStr};

/// How urgent a stream is, most urgent first. The sender of each direction orders by it.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The session's own messages.
    Control,
    /// Somebody is typing: SSH, exec, attach.
    Interactive,
    /// Requests that somebody or something waits for.
    #[default]
    Api,
    /// Scrapes and logs.
    Metrics,
    /// Transfers that take their time.
    Bulk,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 5] = [Self::Control, Self::Interactive, Self::Api, Self::Metrics, Self::Bulk];

    /// The class of a stream to this port when nobody says otherwise.
    pub fn of_port(port: u16) -> Self {
        match port {
            22 => Self::Interactive,
            9100 => Self::Metrics,
            _ => Self::Api,
        }
    }

    /// The class as text, as it stands in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Interactive => "interactive",
            Self::Api => "api",
            Self::Metrics => "metrics",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A class that somebody has chosen for a stream: any but that of the session's own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChosenClass(Class);

/// A text is no class that a stream may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no class of a stream; write interactive, api, metrics or bulk")]
pub struct ParseClassError;

impl ChosenClass {
    /// Those that there are, most urgent first.
    const ALL: [Class; 4] = [Class::Interactive, Class::Api, Class::Metrics, Class::Bulk];

    /// The class.
    pub fn get(self) -> Class {
        self.0
    }

    /// As it is written in a number of a message, where 0 is none.
    pub fn from_wire(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == number).map(Self)
    }
}

impl FromStr for ChosenClass {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|class| class.as_str() == text);
        named.map(Self).ok_or(ParseClassError)
    }
}

impl TryFrom<String> for ChosenClass {
    type Error = ParseClassError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ChosenClass> for String {
    fn from(class: ChosenClass) -> Self {
        class.to_string()
    }
}

impl fmt::Display for ChosenClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl schemars::JsonSchema for ChosenClass {
    fn schema_name() -> Cow<'static, str> {
        "ChosenClass".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "enum": Self::ALL.map(Class::as_str),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_chooses_the_class_of_the_sessions_own_messages() {
        for class in Class::ALL {
            let chosen = class.as_str().parse::<ChosenClass>().ok();
            assert_eq!(chosen.map(ChosenClass::get), (class != Class::Control).then_some(class));
            assert_eq!(ChosenClass::from_wire(class as u32), chosen);
        }
        for bad in ["", " bulk", "Bulk", "bulk,api", "3", "default"] {
            assert_eq!(bad.parse::<ChosenClass>(), Err(ParseClassError), "{bad:?}");
        }
        assert_eq!(ChosenClass::from_wire(5), None);
    }
}
