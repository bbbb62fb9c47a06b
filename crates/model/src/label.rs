//! Labels: what an operator says about a node, as `key=value`.

use std::{collections::BTreeMap, fmt};

/// A label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLabelError {
    /// There is no `=` between key and value.
    #[error("a label is written key=value, got {0:?}")]
    NoEqualsSign(String),
    /// The key is not usable.
    #[error("a label's key is 1 to 63 of a-z, 0-9, '-', '_', '.' and '/', got {0:?}")]
    BadKey(String),
    /// The value is not usable.
    #[error("a label's value is up to 63 of a-z, A-Z, 0-9, '-', '_' and '.', got {0:?}")]
    BadValue(String),
    /// The node would have too many labels.
    #[error("a node has at most {} labels", Labels::MAX)]
    TooMany,
}

/// The labels of a node, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// How many labels a node may have.
    pub const MAX: usize = 32;

    /// Reads `key=value` pairs; a later pair wins over an earlier one of the same key.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, ParseLabelError> {
        let mut labels = Self::default();
        for pair in pairs {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| ParseLabelError::NoEqualsSign(pair.to_owned()))?;
            labels.set(key, value)?;
        }
        Ok(labels)
    }

    /// Sets one label.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ParseLabelError> {
        let key_ok = (1..=63).contains(&key.len())
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_./".contains(&b));
        if !key_ok {
            return Err(ParseLabelError::BadKey(key.to_owned()));
        }
        let value_ok = value.len() <= 63 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !value_ok {
            return Err(ParseLabelError::BadValue(value.to_owned()));
        }
        if self.0.len() == Self::MAX && !self.0.contains_key(key) {
            return Err(ParseLabelError::TooMany);
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Takes one label away; says whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = ParseLabelError;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let mut labels = Self::default();
        for (key, value) in &map {
            labels.set(key, value)?;
        }
        Ok(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// `a=1,b=2`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_written_in_order() {
        let labels = Labels::parse(["site=hz", "arch=arm64", "site=sh"]).unwrap();
        assert_eq!(labels.to_string(), "arch=arm64,site=sh");
        assert_eq!(labels.get("site"), Some("sh"));
    }

    #[test]
    fn labels_that_no_selector_could_name_are_refused() {
        for bad in ["site", "=x", "a b=c", "A=b", "a=b c", "a=ü", "a=b=c"] {
            assert!(Labels::parse([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_cannot_collect_labels_without_end() {
        let pairs: Vec<String> = (0..=Labels::MAX).map(|i| format!("k{i}=v")).collect();
        let read = Labels::parse(pairs.iter().map(String::as_str));
        assert_eq!(read, Err(ParseLabelError::TooMany));
    }
}
