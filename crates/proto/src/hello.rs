//! The first words: who is there, and what both speak.

use std::time::Duration;

use tunnel_model::{Reason, Refusal, SessionId};

/// The versions of the protocol that this library speaks, lowest and highest.
pub const VERSIONS: (u32, u32) = (1, 1);

/// What a peer says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version it speaks.
    pub min_version: u32,
    /// The highest version it speaks.
    pub max_version: u32,
    /// What it can do beyond the version; what only one peer can do is not done.
    pub features: Vec<String>,
    /// The session that the edge means. The gateway says it after the edge.
    pub session: SessionId,
    /// Which of the session's carriers this is, from 1 on; each that the edge dials has a higher number.
    pub carrier: u64,
    /// From the gateway: it has the session, so that its streams go on. Else the session is a new one.
    pub continues: bool,
    /// How long the sender keeps the session's streams while there is no carrier.
    pub resume_for: Duration,
    /// Name and version of the program.
    pub software: String,
    /// From the gateway, the node's name; from the edge, its host name.
    pub name: String,
    /// The time by the sender's clock, in milliseconds since 1970-01-01 UTC.
    pub unix_millis: u64,
}

/// What the peers agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The version both speak.
    pub version: u32,
    /// The features that both have.
    pub features: Vec<String>,
    /// How long streams wait for another carrier: as long as both keep them.
    pub resume_for: Duration,
    /// The peer's own words.
    pub peer: Hello,
}

impl Negotiated {
    /// The highest version both speak and the features both have; refused where there is no such version.
    pub fn between(ours: &Hello, peer: Hello) -> Result<Self, Refusal> {
        let version = ours.max_version.min(peer.max_version);
        if version < ours.min_version.max(peer.min_version) {
            let message = format!(
                "this end speaks protocol versions {} to {}, the other {} to {}; upgrade the older one",
                ours.min_version, ours.max_version, peer.min_version, peer.max_version
            );
            return Err(Refusal::new(Reason::UnsupportedVersion, message));
        }
        let features = ours
            .features
            .iter()
            .filter(|f| peer.features.contains(f))
            .cloned()
            .collect();
        Ok(Self {
            version,
            features,
            resume_for: ours.resume_for.min(peer.resume_for),
            peer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_meet_at_the_highest_version_and_the_features_that_both_have() {
        let agreed = Negotiated::between(&hello(1, 3, &["a", "b"]), hello(2, 5, &["c", "b"])).unwrap();
        assert_eq!((agreed.version, agreed.features), (3, vec!["b".to_owned()]));
    }

    /// B4
    #[test]
    fn peers_without_a_common_version_part_with_a_reason() {
        for (ours, theirs) in [((1, 1), (2, 2)), ((2, 3), (1, 1)), ((1, 1), (3, 2))] {
            let refusal = Negotiated::between(&hello(ours.0, ours.1, &[]), hello(theirs.0, theirs.1, &[])).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnsupportedVersion);
        }
    }

    fn hello(min_version: u32, max_version: u32, features: &[&str]) -> Hello {
        Hello {
            min_version,
            max_version,
            features: features.iter().map(|&f| f.to_owned()).collect(),
            session: SessionId::from_bytes([0; 16]),
            carrier: 1,
            continues: false,
            resume_for: Duration::ZERO,
            software: String::new(),
            name: String::new(),
            unix_millis: 0,
        }
    }
}
