//! Every error code that a program may print is explained, and no other.

use std::collections::BTreeSet;

use super::{Finding, rust};
use crate::tree::TextFile;

/// The page that explains every code.
const PAGE: &str = "docs/reference/error-codes.md";

/// Checks the page against the sources of the programs. Codes are found where they stand as literals: as the second
/// argument of an error's constructor, as the argument for a parameter named `code`, and in what `code()` returns or a
/// variable `code` is set to.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return Vec::new();
    };
    let explained: Vec<(usize, &str)> = page
        .text
        .lines()
        .zip(1..)
        .filter_map(|(row, line)| Some((line, row.strip_prefix("| `")?.split(" | ").next()?)))
        .flat_map(|(line, cell)| cell.split('`').step_by(2).map(move |code| (line, code)))
        .filter(|(_, code)| !code.is_empty())
        .collect();
    let known: BTreeSet<&str> = explained.iter().map(|(_, code)| *code).collect();

    let sources = rust::read(files);
    let programs = || {
        let others = ["tests/", "xtask/"];
        sources
            .iter()
            .filter(move |source| !others.iter().any(|other| source.path.starts_with(other)))
    };
    let takers: BTreeSet<String> = programs().flat_map(takers).collect();
    let mut findings = Vec::new();
    let mut written = BTreeSet::new();
    for source in programs() {
        let choices = choices(source);
        for literal in literals(source) {
            let is_code = literal.is_argument(&takers) || choices.contains(&literal.line) && literal.is_arm();
            if is_code && !known.contains(literal.text.as_str()) {
                let what = format!("the code `{}` is not in {PAGE}", literal.text);
                findings.push(Finding::new(source.path, literal.line, what));
            }
            written.insert(literal.text);
        }
    }
    let unknown = explained.iter().filter(|(_, code)| !written.contains(*code));
    findings.extend(unknown.map(|(line, code)| Finding::new(PAGE, *line, format!("no program has the code `{code}`"))));
    findings
}

/// A string in the code, and what stands before it.
struct Literal {
    /// Counted from 1.
    line: usize,
    /// Without the blanks between it and the literal.
    before: String,
    text: String,
}

impl Literal {
    fn is_argument(&self, takers: &BTreeSet<String>) -> bool {
        let (function, arguments) = self.before.rsplit_once('(').unwrap_or_default();
        match arguments.strip_suffix(',') {
            Some(exit) => function.ends_with("::new") && exit.contains("Exit::") && !exit.contains(','),
            None => arguments.is_empty() && takers.contains(last_word(function)),
        }
    }

    /// The result of an arm of a `match`, or the first of a pair that is.
    fn is_arm(&self) -> bool {
        self.before.trim_end_matches('(').trim_end().ends_with("=>")
    }
}

fn last_word(code: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    &code[code.trim_end_matches(is_part).len()..]
}

/// The strings outside of tests.
fn literals(source: &rust::Source<'_>) -> Vec<Literal> {
    let mut literals = Vec::new();
    let mut before = String::new();
    for (line, code) in source.product() {
        // Blanked out one for one.
        let mut raw = source.raw[line - 1].chars();
        let mut text: Option<String> = None;
        for c in code.chars() {
            let written = raw.next().unwrap_or(c);
            match (&mut text, c) {
                (Some(_), '"') => {
                    let before = before.trim_end().to_owned();
                    literals.extend(text.take().map(|text| Literal { line, before, text }));
                }
                (Some(text), _) => text.push(written),
                (None, '"') => text = Some(String::new()),
                (None, _) => before.push(c),
            }
        }
        // A string over several lines is no code; statements seldom reach further back than this.
        let from = before.len().saturating_sub(200);
        before = before[before.ceil_char_boundary(from)..].trim_end().to_owned();
        before.push(' ');
    }
    literals
}

/// The functions whose first parameter is a code.
fn takers(source: &rust::Source<'_>) -> Vec<String> {
    let declared = source
        .product()
        .filter_map(|(_, code)| code.split_once("(code: &'static str"));
    declared
        .filter_map(|(function, _)| Some(function.rsplit_once("fn ")?.1.to_owned()))
        .collect()
}

/// The lines, counted from 1, of what chooses a code.
fn choices(source: &rust::Source<'_>) -> BTreeSet<usize> {
    let begins = |code: &str| {
        ["fn code(", "let code = match", "let (code, "]
            .iter()
            .any(|begin| code.contains(begin))
    };
    source
        .product()
        .filter(|(_, code)| begins(code))
        .filter_map(|(line, _)| rust::block(&source.code, line - 1))
        .flat_map(|(first, last)| first + 1..=last + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;
    use crate::tree::file;

    #[test]
    fn a_code_that_is_not_explained_is_found_wherever_it_is_made() {
        let code = concat!(
            "fn a() { CliError::new(Exit::Failure, \"a-told\", \"x\") }\n",
            "fn b() { CliError::new(\n    Exit::Failure,\n    \"a-new\",\n    \"x\",\n) }\n",
            "pub fn code(&self) -> &str {\n    match self {\n        Self::A => \"b-told\",\n        _ => \"b-new\",\n    }\n}\n",
            "fn c() {\n    let (code, hint) = match x {\n        A => (\"c-new\", \"y\"),\n    };\n}\n",
            "fn refused(code: &'static str, why: X) {}\n",
            "fn d() { refused(\"d-new\", x); unrefused(\"e\", \"f\") }\n",
            "#[cfg(test)]\nmod tests {\n    fn a() { CliError::new(Exit::Failure, \"g\", \"x\") }\n}\n",
        );
        let found = check(&[file("a/src/a.rs", code), file(PAGE, "| `a-told`, `b-told` | x |\n")]);
        assert_eq!(
            places(&found),
            ["a/src/a.rs:4", "a/src/a.rs:10", "a/src/a.rs:15", "a/src/a.rs:19"]
        );
    }

    #[test]
    fn a_code_that_no_program_has_is_found() {
        let code = "fn a() { CliError::new(Exit::Failure, \"a\", \"x\") }\n";
        let found = check(&[
            file("a/src/a.rs", code),
            file(PAGE, "| code | x |\n| `a` | `y` |\n| `b` | x |\n"),
        ]);
        assert_eq!(places(&found), [format!("{PAGE}:3")]);
    }
}
