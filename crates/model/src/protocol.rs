//! Transport protocols.

use std::fmt;

/// What a target is reached by.
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
pub enum Protocol {
    /// A byte stream.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// The protocol as text: `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The protocol that a text begins with, as in `udp:53`, and the rest of the text.
    pub(crate) fn strip(text: &str) -> (Option<Self>, &str) {
        for protocol in [Self::Tcp, Self::Udp] {
            let rest = text
                .strip_prefix(protocol.as_str())
                .and_then(|rest| rest.strip_prefix(':'));
            if let Some(rest) = rest {
                return (Some(protocol), rest);
            }
        }
        (None, text)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
