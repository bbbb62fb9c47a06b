//! The crates: who may use whom, what each inherits from the workspace, and that ARCHITECTURE.md lists them.

use std::collections::BTreeSet;

use super::{Finding, markdown};
use crate::metadata::Metadata;
use crate::tree::TextFile;

/// Which crates of the workspace a crate may use.
enum MayUse {
    These(&'static [&'static str]),
    Everything,
}

/// The dependency rule. A crate that is not here may not be in the workspace either.
const RULE: [(&str, MayUse); 14] = [
    ("crates/model", MayUse::These(&[])),
    ("crates/linkem", MayUse::These(&[])),
    ("crates/codec", MayUse::These(&["crates/model"])),
    ("crates/identity", MayUse::These(&["crates/model"])),
    ("crates/proto", MayUse::These(&["crates/model"])),
    (
        "crates/carrier",
        MayUse::These(&["crates/proto", "crates/identity", "crates/codec", "crates/model"]),
    ),
    ("crates/encoding", MayUse::These(&["crates/codec", "crates/model"])),
    ("crates/daemon", MayUse::These(&["crates/model"])),
    (
        "crates/ingress",
        MayUse::These(&["crates/model", "crates/identity", "crates/daemon"]),
    ),
    (
        "tunnel-edge",
        MayUse::These(&[
            "crates/model",
            "crates/codec",
            "crates/identity",
            "crates/proto",
            "crates/carrier",
            "crates/daemon",
            "crates/encoding",
            "crates/ingress",
        ]),
    ),
    // The one exception: `lab` runs edges and links inside the gateway's process.
    (
        "tunnel-cloud",
        MayUse::These(&[
            "crates/model",
            "crates/codec",
            "crates/identity",
            "crates/proto",
            "crates/carrier",
            "crates/daemon",
            "crates/encoding",
            "crates/ingress",
            "crates/linkem",
            "tunnel-edge",
        ]),
    ),
    ("tests/e2e", MayUse::Everything),
    ("tests/bench", MayUse::Everything),
    ("xtask", MayUse::These(&[])),
];

/// What each manifest takes from the workspace.
const INHERITED: [[&str; 2]; 5] = [
    ["lints", "workspace"],
    ["version", "workspace"],
    ["edition", "workspace"],
    ["license", "workspace"],
    ["publish", "workspace"],
];

/// Checks every use of one member by another, but for those of tests.
pub(super) fn dependency_rule(metadata: &Metadata) -> Vec<Finding> {
    let root = &metadata.workspace_root;
    let mut findings = Vec::new();
    for member in metadata.members() {
        let user = member.folder(root);
        let manifest = format!("{user}/Cargo.toml");
        let allowed = match RULE.iter().find(|(folder, _)| *folder == user) {
            None => {
                findings.push(Finding::new(
                    &manifest,
                    1,
                    "the dependency rule does not know this crate",
                ));
                continue;
            }
            Some((_, MayUse::Everything)) => continue,
            Some((_, MayUse::These(allowed))) => allowed,
        };
        for id in metadata.uses(&member.id) {
            let used = metadata
                .members()
                .find(|other| other.id == id)
                .map(|other| other.folder(root));
            if let Some(used) = used.filter(|used| !allowed.contains(&used.as_str())) {
                findings.push(Finding::new(&manifest, 1, format!("`{user}` may not use `{used}`")));
            }
        }
    }
    findings
}

/// Checks that every member takes lints, version, edition, licence and `publish = false` from the workspace.
pub(super) fn inheritance(metadata: &Metadata, files: &[TextFile]) -> Vec<Finding> {
    let manifest_of = |folder: &str| files.iter().find(|file| file.path == format!("{folder}/Cargo.toml"));
    let mut findings = Vec::new();
    for member in metadata.members() {
        let folder = member.folder(&metadata.workspace_root);
        let Some(file) = manifest_of(&folder) else { continue };
        let Ok(manifest) = file.text.parse::<toml::Table>() else {
            continue;
        };
        for key in INHERITED {
            let from = if key[0] == "lints" {
                Some(&manifest)
            } else {
                manifest.get("package").and_then(|p| p.as_table())
            };
            let value = from.and_then(|table| table.get(key[0])?.get(key[1]));
            if value.and_then(toml::Value::as_bool) != Some(true) {
                let what = format!("`{}` is not inherited; write `{0}.workspace = true`", key[0]);
                findings.push(Finding::new(&file.path, 1, what));
            }
        }
    }
    let Some(workspace) = files.iter().find(|file| file.path == "Cargo.toml") else {
        return findings;
    };
    let publish = workspace
        .text
        .parse::<toml::Table>()
        .ok()
        .and_then(|table| table.get("workspace")?.get("package")?.get("publish")?.as_bool());
    if publish != Some(false) {
        findings.push(Finding::new(
            &workspace.path,
            1,
            "`workspace.package.publish` is not false",
        ));
    }
    findings
}

/// Checks that the crate table of ARCHITECTURE.md has a row for every member, and for nothing else.
pub(super) fn architecture(metadata: &Metadata, files: &[TextFile]) -> Vec<Finding> {
    const PATH: &str = "ARCHITECTURE.md";
    let Some(file) = files.iter().find(|file| file.path == PATH) else {
        return vec![Finding::new(PATH, 1, "is missing")];
    };
    let heading = file
        .text
        .lines()
        .position(|line| line == "## Crates")
        .map_or(1, |i| i + 1);
    let mut members: BTreeSet<String> = metadata.members().map(|m| m.folder(&metadata.workspace_root)).collect();
    let mut findings = Vec::new();
    for (line, row) in markdown::section(&file.text, "## Crates").filter(|(_, row)| row.starts_with("| `")) {
        let listed = row.split('`').nth(1).unwrap_or_default();
        if !members.remove(listed) {
            findings.push(Finding::new(
                PATH,
                line,
                format!("`{listed}` is listed twice, or no crate of the workspace"),
            ));
        }
    }
    findings.extend(
        members
            .iter()
            .map(|m| Finding::new(PATH, heading, format!("the crate `{m}` is not listed"))),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;
    use crate::metadata::fixture;
    use crate::tree::file;

    #[test]
    fn a_use_against_the_rule_is_found() {
        let metadata = fixture(
            &[
                ("model", "crates/model"),
                ("proto", "crates/proto"),
                ("edge", "tunnel-edge"),
                ("cloud", "tunnel-cloud"),
            ],
            &["serde"],
            &[
                ("proto", "model"),
                ("cloud", "edge"),
                ("model", "serde"),
                ("edge", "cloud"),
                ("model", "proto"),
            ],
        );
        let found = dependency_rule(&metadata);
        let said: Vec<_> = found.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(
            said,
            [
                "`crates/model` may not use `crates/proto`",
                "`tunnel-edge` may not use `tunnel-cloud`"
            ]
        );
    }

    #[test]
    fn a_crate_that_the_rule_does_not_know_is_found() {
        let metadata = fixture(&[("new", "crates/new"), ("e2e", "tests/e2e")], &[], &[("e2e", "new")]);
        assert_eq!(places(&dependency_rule(&metadata)), ["crates/new/Cargo.toml:1"]);
    }

    #[test]
    fn a_manifest_of_its_own_mind_is_found() {
        let metadata = fixture(&[("a", "a"), ("b", "b")], &[], &[]);
        let good = "[package]\nname = \"a\"\nversion.workspace = true\nedition.workspace = true\n\
                    license.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n";
        let bad = good
            .replace("edition.workspace = true", "edition = \"2021\"")
            .replace("[lints]\nworkspace = true\n", "");
        let top = "[workspace.package]\npublish = false\n";
        let found = inheritance(
            &metadata,
            &[
                file("Cargo.toml", top),
                file("a/Cargo.toml", good),
                file("b/Cargo.toml", &bad),
            ],
        );
        assert_eq!(places(&found), ["b/Cargo.toml:1", "b/Cargo.toml:1"]);
        let published = file("Cargo.toml", "[workspace.package]\npublish = true\n");
        assert_eq!(places(&inheritance(&metadata, &[published])), ["Cargo.toml:1"]);
    }

    #[test]
    fn a_crate_missing_from_the_list_or_only_there_is_found() {
        let metadata = fixture(&[("a", "crates/a"), ("b", "crates/b")], &[], &[]);
        let text = "# A\n\n| `x` | elsewhere |\n\n## Crates\n\n| crate | what |\n|---|---|\n| `crates/a` | a |\n| `crates/c` | c |\n\n## More\n";
        let found = architecture(&metadata, &[file("ARCHITECTURE.md", text)]);
        assert_eq!(places(&found), ["ARCHITECTURE.md:10", "ARCHITECTURE.md:5"]);
        assert_eq!(places(&architecture(&metadata, &[])), ["ARCHITECTURE.md:1"]);
    }
}
