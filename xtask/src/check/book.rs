//! What is written for people: links lead somewhere, examples say whose they are, lists are whole, translations keep step.

use std::collections::BTreeSet;

use super::{Finding, markdown, rust};
use crate::tree::TextFile;

/// Where the reasons of refusals are declared, and the page that explains each.
const REASONS: [&str; 2] = ["crates/model/src/reason.rs", "docs/reference/error-codes.md"];

/// The page that explains every metric.
const METRICS: &str = "docs/reference/metrics.md";

/// Checks every page.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in files.iter().filter(|file| file.is_markdown()) {
        findings.extend(links(page, files));
        findings.extend(examples(page));
    }
    findings.extend(index(files));
    findings.extend(reasons(files));
    findings.extend(metrics(files));
    findings.extend(translation(files));
    findings
}

/// Every link to a file leads to one, and its anchor to a heading there.
fn links(page: &TextFile, files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, prose) in markdown::prose(&page.text) {
        for link in markdown::links(&prose).filter(|link| !link.contains(':')) {
            let (path, anchor) = link
                .split_once('#')
                .map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() {
                page.path.clone()
            } else {
                resolve(page.folder(), path)
            };
            let folder = format!("{target}/");
            let found = files.iter().find(|file| file.path == target);
            if found.is_none() && !files.iter().any(|file| file.path.starts_with(&folder)) {
                findings.push(Finding::new(
                    &page.path,
                    line,
                    format!("the link {link:?} leads nowhere"),
                ));
            } else if let Some((anchor, file)) = anchor.zip(found)
                && !markdown::anchors(&file.text).iter().any(|a| a == anchor)
            {
                findings.push(Finding::new(
                    &page.path,
                    line,
                    format!("{target} has no heading #{anchor}"),
                ));
            }
        }
    }
    findings
}

/// A TOML example is TOML, and says whose file it shows, so that `cargo xtask test` can have its owner read it.
fn examples(page: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for fence in markdown::fences(&page.text)
        .iter()
        .filter(|fence| fence.info.split(' ').next() == Some("toml"))
    {
        if !matches!(fence.info.as_str(), "toml cloud" | "toml edge") {
            let what = "a TOML example does not say whose it is; write ```toml cloud or ```toml edge";
            findings.push(Finding::new(&page.path, fence.line, what));
        }
        if let Err(error) = fence.text.parse::<toml::Table>() {
            let what = format!("the example is not TOML: {}", error.message());
            findings.push(Finding::new(&page.path, fence.line, what));
        }
    }
    findings
}

/// Every page of the book is linked from its index.
fn index(files: &[TextFile]) -> Vec<Finding> {
    const INDEX: &str = "docs/README.md";
    let Some(index) = files.iter().find(|file| file.path == INDEX) else {
        return Vec::new();
    };
    let prose = markdown::prose(&index.text);
    let linked: BTreeSet<String> = prose
        .iter()
        .flat_map(|(_, line)| markdown::links(line))
        .map(|link| resolve("docs", link.split('#').next().unwrap_or_default()))
        .collect();
    files
        .iter()
        .filter(|file| file.is_markdown() && file.path.starts_with("docs/") && file.path != INDEX)
        .filter(|file| !linked.contains(&file.path))
        .map(|file| Finding::new(INDEX, 1, format!("does not link to {}", file.path)))
        .collect()
}

/// Every reason that the tunnel knows is explained, and no other.
fn reasons(files: &[TextFile]) -> Vec<Finding> {
    let [code, page] = REASONS.map(|path| files.iter().find(|file| file.path == path));
    let (Some(code), Some(page)) = (code, page) else {
        return Vec::new();
    };
    let declared: BTreeSet<&str> = code
        .text
        .lines()
        .map(str::trim)
        .filter(|line| line.ends_with(';') && line.contains(" = "))
        .filter_map(|line| line.split_once(", \"")?.1.split_once("\", ").map(|(code, _)| code))
        .collect();
    let rows: Vec<(usize, &str)> = markdown::section(&page.text, "## Reasons")
        .filter(|(_, row)| row.starts_with("| `"))
        .filter_map(|(line, row)| Some((line, row.split('`').nth(1)?)))
        .collect();
    let explained: BTreeSet<&str> = rows.iter().map(|(_, code)| *code).collect();
    let missing = declared
        .difference(&explained)
        .map(|c| Finding::new(&page.path, 1, format!("the reason `{c}` is missing")));
    let unknown = rows.iter().filter(|(_, code)| !declared.contains(code));
    missing
        .chain(unknown.map(|(line, c)| Finding::new(&page.path, *line, format!("there is no reason `{c}`"))))
        .collect()
}

/// Every metric that a program registers is explained.
fn metrics(files: &[TextFile]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == METRICS) else {
        return Vec::new();
    };
    let sources = rust::read(files);
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !source.path.starts_with("tests/") && !source.path.starts_with("xtask/"))
    {
        for (line, code) in source.product().filter(|(_, code)| code.contains("metrics.register(")) {
            // The name stands behind the bracket, or on the next line.
            let here = source.raw[line - 1]
                .split("metrics.register(")
                .nth(1)
                .unwrap_or_default();
            let text = if code.trim_end().ends_with('(') {
                source.raw.get(line).copied().unwrap_or_default()
            } else {
                here
            };
            if let Some(name) = text.split('"').nth(1).filter(|name| !page.text.contains(*name)) {
                findings.push(Finding::new(
                    source.path,
                    line,
                    format!("the metric `{name}` is not in {METRICS}"),
                ));
            }
        }
    }
    findings
}

/// The commands of the Chinese README are commands of the English one.
fn translation(files: &[TextFile]) -> Vec<Finding> {
    const TRANSLATION: &str = "README.zh-CN.md";
    let [original, translation] = ["README.md", TRANSLATION].map(|path| files.iter().find(|file| file.path == path));
    let (Some(original), Some(translation)) = (original, translation) else {
        return Vec::new();
    };
    let original_fences = markdown::fences(&original.text);
    let known: BTreeSet<&str> = original_fences.iter().flat_map(|fence| fence.text.lines()).collect();
    markdown::fences(&translation.text)
        .iter()
        .flat_map(|fence| {
            fence
                .text
                .lines()
                .enumerate()
                .map(|(i, line)| (fence.line + i + 1, line))
        })
        .filter(|(_, line)| !known.contains(line) && !line.trim_start().starts_with('#'))
        .map(|(at, _)| {
            Finding::new(
                TRANSLATION,
                at,
                "this command is not in README.md; keep the two in step",
            )
        })
        .collect()
}

/// A relative path as seen from a folder, without `.` and `..`.
fn resolve(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;
    use crate::tree::file;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let files = [
            file(
                "docs/README.md",
                "# Book\n[a](a.md#there)\n[b](../LICENSE)\n[c](b.md)\n[d](a.md#gone)\n[e](../src)\n[f](#book)\n",
            ),
            file("docs/a.md", "# There\n"),
            file("LICENSE", ""),
            file("src/lib.rs", ""),
        ];
        assert_eq!(places(&check(&files)), ["docs/README.md:4", "docs/README.md:5"]);
    }

    #[test]
    fn an_example_that_nobody_owns_or_reads_is_found() {
        let page = "```toml\na = 1\n```\n\n```toml edge\na = \n```\n\n```toml cloud\na = 1\n```\n";
        assert_eq!(places(&check(&[file("a.md", page)])), ["a.md:1", "a.md:5"]);
    }

    #[test]
    fn a_page_that_the_index_forgot_is_found() {
        let files = [
            file("docs/README.md", "[a](x/a.md)\n"),
            file("docs/x/a.md", ""),
            file("docs/x/b.md", ""),
        ];
        assert_eq!(places(&check(&files)), ["docs/README.md:1"]);
    }

    #[test]
    fn a_reason_that_is_not_explained_or_made_up_is_found() {
        let code = "    Internal = 1, \"internal\", Gateway;\n    Denied = 4, \"denied\", Caller;\n";
        let page = "# Errors\n| `other` | x |\n## Reasons\n| `internal` | x |\n| `made-up` | x |\n";
        let found = check(&[file(REASONS[0], code), file(REASONS[1], page)]);
        assert_eq!(
            places(&found),
            ["docs/reference/error-codes.md:1", "docs/reference/error-codes.md:5"]
        );
    }

    #[test]
    fn a_metric_that_is_not_explained_is_found() {
        let code = "let a = metrics.register(\"joins\", \"x\", y);\nlet b = metrics.register(\n    \"leaves\",\n);\n\
                    let c = metrics.register(\"told\", z);\n";
        let found = check(&[file("a/src/a.rs", code), file(METRICS, "| `told_total` |\n")]);
        assert_eq!(places(&found), ["a/src/a.rs:1", "a/src/a.rs:2"]);
    }

    #[test]
    fn a_translation_out_of_step_is_found() {
        let files = [
            file("README.md", "```sh\n# run\ncargo run\n```\n"),
            file("README.zh-CN.md", "```sh\n# 运行\ncargo run\ncargo rnu\n```\n"),
        ];
        assert_eq!(places(&check(&files)), ["README.zh-CN.md:4"]);
    }
}
