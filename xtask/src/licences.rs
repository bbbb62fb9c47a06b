//! The licence and the lowest allowed version of every dependency, by the lists in `deny.toml`.
//!
//! The file is the one that cargo-deny reads; this needs no tool but cargo itself.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::metadata::Metadata;
use crate::{shell, spdx};

/// What is read of `deny.toml`.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    /// `name`, or `name:<version` for every version below.
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

/// Checks every package that any member of the workspace uses, on any platform.
pub(crate) fn run() -> Result<()> {
    let file = shell::root().join("deny.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let metadata = Metadata::load()?;
    let findings = findings(&metadata, &toml::from_str(&text).context("deny.toml")?)?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} dependencies are not allowed; the rules are in deny.toml",
            findings.len()
        );
    }
    println!(
        "licences and versions of {} packages are allowed",
        metadata.packages.len()
    );
    Ok(())
}

fn findings(metadata: &Metadata, rules: &Rules) -> Result<Vec<String>> {
    let allowed = |name: &str| rules.licenses.allow.iter().any(|a| a == name);
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let who = format!("{} {}", package.name, package.version);
        match package.license.as_deref() {
            None => findings.push(format!("{who}: names no licence")),
            Some(expression) => match spdx::allows(expression, &allowed) {
                Some(true) => {}
                Some(false) => findings.push(format!("{who}: its licence {expression:?} is not on the list")),
                None => findings.push(format!("{who}: its licence {expression:?} is no SPDX expression")),
            },
        }
        for ban in &rules.bans.deny {
            if ban.covers(&package.name, &package.version)? {
                findings.push(format!("{who}: is banned as {:?}: {}", ban.spec, ban.reason));
            }
        }
    }
    Ok(findings)
}

impl Ban {
    fn covers(&self, name: &str, version: &str) -> Result<bool> {
        let Some((banned, below)) = self.spec.split_once(":<") else {
            return Ok(self.spec == name);
        };
        Ok(banned == name && numbers(version)? < numbers(below)?)
    }
}

/// The three numbers of a version. A pre-release counts as its release: no dependency here is one.
fn numbers(version: &str) -> Result<[u64; 3]> {
    let release = version.split(['-', '+']).next().unwrap_or(version);
    let mut numbers = [0; 3];
    for (i, part) in release.split('.').enumerate() {
        let slot = numbers
            .get_mut(i)
            .with_context(|| format!("{version:?} is no version"))?;
        *slot = part.parse().with_context(|| format!("{version:?} is no version"))?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fixture;

    #[test]
    fn licences_off_the_list_and_versions_below_the_floor_are_found() {
        let mut metadata = fixture(&[], &["good", "copyleft", "none", "odd", "quinn-proto", "rsa"], &[]);
        for package in &mut metadata.packages {
            match package.name.as_str() {
                "copyleft" => package.license = Some("GPL-3.0-only".to_owned()),
                "none" => package.license = None,
                "odd" => package.license = Some("MIT or so".to_owned()),
                "quinn-proto" => package.version = "0.11.9".to_owned(),
                _ => {}
            }
        }
        let found = findings(&metadata, &rules()).unwrap();
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.iter().all(|f| !f.starts_with("good")));
        assert!(found[3].contains("advisory"), "{found:#?}");
    }

    #[test]
    fn the_floor_itself_is_allowed() {
        let ban = &rules().bans.deny[0];
        for (version, banned) in [
            ("0.11.14", true),
            ("0.11.15", false),
            ("0.12.0", false),
            ("0.9.99", true),
        ] {
            assert_eq!(ban.covers("quinn-proto", version).unwrap(), banned, "{version}");
        }
        assert!(ban.covers("quinn-proto", "one").is_err());
    }

    #[test]
    fn the_workspaces_own_list_can_be_read() {
        let text = fs::read_to_string(shell::root().join("deny.toml")).unwrap();
        let rules: Rules = toml::from_str(&text).unwrap();
        assert!(!rules.licenses.allow.iter().any(|name| name.contains("GPL")));
        assert!(
            rules
                .bans
                .deny
                .iter()
                .any(|ban| ban.covers("rustls", "0.23.17").unwrap())
        );
    }

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [licenses]
            allow = ["MIT"]
            [bans]
            deny = [
                { crate = "quinn-proto:<0.11.15", reason = "an advisory" },
                { crate = "rsa", reason = "leaks by timing" },
            ]
            "#,
        )
        .unwrap()
    }
}
