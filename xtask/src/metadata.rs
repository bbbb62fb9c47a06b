//! What `cargo metadata` knows: packages, their dependencies and licences.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::shell;

/// The workspace and everything it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
    pub(crate) resolve: Resolve,
}

/// A crate of some version.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
}

/// The dependency graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A package in the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

/// An edge in the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DepKind>,
}

/// Why an edge is there: `None` is an ordinary dependency, else `dev` or `build`.
#[derive(Debug, Deserialize)]
pub(crate) struct DepKind {
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let text = shell::read(shell::cargo().args(["metadata", "--format-version", "1"]))?;
        serde_json::from_str(&text).context("cannot read what `cargo metadata` wrote")
    }

    /// The workspace's own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| self.workspace_members.contains(&p.id))
    }

    /// The package of this id.
    pub(crate) fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|p| p.id == id)
    }

    /// The packages that a package uses directly, but for its tests.
    pub(crate) fn uses<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a str> {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        let edges = node.map(|node| node.deps.as_slice()).unwrap_or_default();
        let shipped = |edge: &&Edge| edge.dep_kinds.iter().any(|d| d.kind.as_deref() != Some("dev"));
        edges.iter().filter(shipped).map(|edge| edge.pkg.as_str())
    }

    /// Every package that ends up in what is built of a package, each with the package that brought it in.
    pub(crate) fn closure<'a>(&'a self, id: &'a str) -> HashMap<&'a str, &'a str> {
        let mut brought_by = HashMap::new();
        let mut seen = BTreeSet::from([id]);
        let mut open = vec![id];
        while let Some(user) = open.pop() {
            for used in self.uses(user) {
                if seen.insert(used) {
                    brought_by.insert(used, user);
                    open.push(used);
                }
            }
        }
        brought_by
    }
}

impl Package {
    /// The package's folder, from the top of the workspace, with forward slashes.
    pub(crate) fn folder(&self, root: &Path) -> String {
        let folder = self.manifest_path.parent().unwrap_or(Path::new(""));
        folder
            .strip_prefix(root)
            .unwrap_or(folder)
            .to_string_lossy()
            .replace('\\', "/")
    }
}

/// A workspace as tests draw it: members with their folders, and who uses whom.
#[cfg(test)]
pub(crate) fn fixture(members: &[(&str, &str)], others: &[&str], uses: &[(&str, &str)]) -> Metadata {
    let package = |name: &str, folder: &str| Package {
        id: name.to_owned(),
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        license: Some("MIT".to_owned()),
        manifest_path: PathBuf::from(format!("/w/{folder}/Cargo.toml")),
    };
    let packages: Vec<_> = members
        .iter()
        .map(|(name, folder)| package(name, folder))
        .chain(others.iter().map(|name| package(name, name)))
        .collect();
    let edges_of = |user: &str| {
        let used = uses.iter().filter(|(from, _)| *from == user);
        used.map(|(_, to)| Edge {
            pkg: (*to).to_owned(),
            dep_kinds: vec![DepKind { kind: None }],
        })
        .collect()
    };
    Metadata {
        resolve: Resolve {
            nodes: packages
                .iter()
                .map(|p| Node {
                    id: p.id.clone(),
                    deps: edges_of(&p.name),
                })
                .collect(),
        },
        packages,
        workspace_members: members.iter().map(|(name, _)| (*name).to_owned()).collect(),
        workspace_root: "/w".into(),
        target_directory: "/w/target".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_follows_what_is_used_through_others() {
        let metadata = fixture(&[("a", "a")], &["b", "c", "d"], &[("a", "b"), ("b", "c"), ("d", "a")]);
        let closure = metadata.closure("a");
        assert_eq!(closure.get("c"), Some(&"b"));
        assert!(!closure.contains_key("d"));
    }
}
