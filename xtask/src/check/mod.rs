//! The rules of the tree that a compiler does not know.
//!
//! Each check takes the files, or what cargo knows of the crates, and returns findings; its tests draw small trees in
//! which it must find something.

mod book;
mod codes;
mod crates;
mod house;
pub(crate) mod markdown;
mod paths;
mod purity;
mod rust;

use std::fmt;

use anyhow::{Result, bail};

use crate::metadata::Metadata;
use crate::tree;

/// Something that breaks a rule: where, and the rule in a sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Runs every check and prints what was found.
pub(crate) fn run() -> Result<()> {
    let metadata = Metadata::load()?;
    let files = tree::read(&metadata.workspace_root)?;
    let sources = rust::read(&files);
    let mut findings = purity::sources(&sources);
    findings.extend(purity::dependencies(&metadata));
    findings.extend(crates::dependency_rule(&metadata));
    findings.extend(crates::inheritance(&metadata, &files));
    findings.extend(crates::architecture(&metadata, &files));
    findings.extend(house::check(&sources));
    findings.extend(house::open_ends(&files));
    findings.extend(book::check(&files));
    findings.extend(codes::check(&files));
    findings.extend(paths::check(&files));
    findings.sort_by(|a, b| (&a.path, a.line, &a.what).cmp(&(&b.path, b.line, &b.what)));
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("{} files keep the rules", files.len());
    Ok(())
}

/// The findings as `path:line`, for tests.
#[cfg(test)]
fn places(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|f| format!("{}:{}", f.path, f.line)).collect()
}
