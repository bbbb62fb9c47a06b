//! The rank of a stream.

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

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
