//! How the bytes of a stream travel between the two ends of the tunnel.

/// What both ends of a stream do with its bytes, so that they become fewer on the way. Nobody outside sees any of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    #[default]
    Raw,
    /// Compressed.
    Compressed,
    /// Answers to scrapes as differences.
    Scrapes,
}
