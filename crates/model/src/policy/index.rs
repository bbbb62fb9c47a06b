//! Finds what is about a node without looking at what is not.

use std::collections::HashMap;

use super::{Glob, NodeSelector};
use crate::{Labels, NodeName};

/// Entries by the nodes that they are about.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeIndex {
    all: Vec<u32>,
    names: HashMap<NodeName, Vec<u32>>,
    /// By the rarest of its labels, key and value, an entry and all labels that it wants.
    labels: HashMap<String, HashMap<String, Vec<(Labels, u32)>>>,
    /// By what is before the first gap.
    globs: HashMap<String, Vec<(Glob, u32)>>,
    /// The lengths of the keys of `globs`, each once.
    prefixes: Vec<usize>,
}

/// How often each label, key and value, stands in selectors.
pub(super) type LabelCounts<'a> = HashMap<(&'a str, &'a str), usize>;

impl NodeIndex {
    /// Adds an entry that is about these nodes.
    pub(super) fn insert(&mut self, selector: &NodeSelector, entry: u32, counts: &LabelCounts<'_>) {
        match selector {
            NodeSelector::All => self.all.push(entry),
            NodeSelector::Name(name) => self.names.entry(name.clone()).or_default().push(entry),
            NodeSelector::Labels(labels) => {
                let rarest = labels
                    .iter()
                    .min_by_key(|pair| counts.get(pair).copied().unwrap_or_default());
                if let Some((key, value)) = rarest {
                    let values = self.labels.entry(key.to_owned()).or_default();
                    values
                        .entry(value.to_owned())
                        .or_default()
                        .push((labels.clone(), entry));
                }
            }
            NodeSelector::Glob(glob) => {
                let prefix = glob.prefix();
                if !self.prefixes.contains(&prefix.len()) {
                    self.prefixes.push(prefix.len());
                }
                self.globs
                    .entry(prefix.to_owned())
                    .or_default()
                    .push((glob.clone(), entry));
            }
        }
    }

    /// Tells each entry that is about the node; one with several selectors perhaps several times.
    pub(super) fn of_node(&self, name: &NodeName, labels: &Labels, mut tell: impl FnMut(u32)) {
        if let Some(entries) = self.names.get(name) {
            entries.iter().copied().for_each(&mut tell);
        }
        if name.is_reserved() {
            return;
        }
        self.all.iter().copied().for_each(&mut tell);
        if !self.labels.is_empty() {
            for (key, value) in labels.iter() {
                let found = self.labels.get(key).and_then(|values| values.get(value));
                for (wanted, entry) in found.into_iter().flatten() {
                    if wanted.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                        tell(*entry);
                    }
                }
            }
        }
        for &length in &self.prefixes {
            let found = name.as_str().get(..length).and_then(|prefix| self.globs.get(prefix));
            for (glob, entry) in found.into_iter().flatten() {
                if glob.matches(name.as_str()) {
                    tell(*entry);
                }
            }
        }
    }
}
