//! Rules of the house for Rust source.

use super::Finding;
use super::rust::{Source, block, word};
use crate::tree::TextFile;

/// The longest file, without its tests.
const MAX_LINES: usize = 500;

/// The longest `select!`: it fits on one screen.
const MAX_SELECT: usize = 40;

/// Checks every Rust file.
pub(super) fn check(sources: &[Source<'_>]) -> Vec<Finding> {
    sources.iter().flat_map(one_file).collect()
}

fn one_file(source: &Source<'_>) -> Vec<Finding> {
    let found = |line, what: String| Finding::new(source.path, line, what);
    let mut findings = Vec::new();
    let lines = source.product().count();
    if lines > MAX_LINES {
        findings.push(found(
            MAX_LINES,
            format!("{lines} lines before its tests, more than {MAX_LINES}; split by subject"),
        ));
    }
    let paused = source
        .code
        .iter()
        .any(|line| line.contains("start_paused") || line.contains("time::pause("));
    for (line, code) in source.tests() {
        if word(code, "sleep(").is_some() && !paused {
            findings.push(found(
                line,
                "a test sleeps; wait for the event, or pause the runtime's time".to_owned(),
            ));
        }
        // The inside of the literal is blank here.
        let reason = source.raw.get(line - 1).copied().unwrap_or_default();
        if code.contains("#[ignore") && !reason.contains("\"the child process of") {
            findings.push(found(
                line,
                "a test is ignored; mend it, or let it skip aloud by what it needs".to_owned(),
            ));
        }
    }
    for (i, code) in source.code.iter().enumerate() {
        if code.contains("unbounded") {
            findings.push(found(
                i + 1,
                "a queue has no bound; give it a capacity and a policy when full".to_owned(),
            ));
        }
        if word(code, "select!").is_some()
            && let Some((first, last)) = block(&source.code, i)
            && last - first + 1 > MAX_SELECT
        {
            let long = last - first + 1;
            findings.push(found(
                i + 1,
                format!("a `select!` of {long} lines, more than {MAX_SELECT}; let it make one event"),
            ));
        }
    }
    findings
}

/// Finds work left open with nobody to do it, in any text file: such a note names its owner in brackets.
pub(super) fn open_ends(files: &[TextFile]) -> Vec<Finding> {
    // In two parts, for this file is checked too.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path != "Cargo.lock") {
        for (i, line) in file.text.lines().enumerate() {
            for mark in marks {
                let rest = word(line, mark).map(|at| &line[at + mark.len()..]);
                if rest.is_some_and(|rest| !owned(rest)) {
                    findings.push(Finding::new(
                        &file.path,
                        i + 1,
                        format!("{mark} without an owner; write {mark}(name)"),
                    ));
                }
            }
        }
    }
    findings
}

fn owned(rest: &str) -> bool {
    rest.strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(owner, _)| !owner.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::{places, rust};
    use super::*;
    use crate::tree::file;

    fn check_text(text: &str) -> Vec<String> {
        let files = [file("a/src/a.rs", text)];
        places(&check(&rust::read(&files)))
    }

    fn in_tests(body: &str) -> String {
        format!("#[cfg(test)]\nmod tests {{\n{body}\n}}\n")
    }

    #[test]
    fn a_test_that_sleeps_is_found_but_not_under_paused_time() {
        assert_eq!(check_text(&in_tests("fn t() { thread::sleep(d); }")), ["a/src/a.rs:3"]);
        assert_eq!(
            check_text(&in_tests(
                "#[tokio::test(start_paused = true)]\nasync fn t() { sleep(d).await; }"
            )),
            [""; 0]
        );
        assert_eq!(check_text("fn f() { sleep(d); }\n"), [""; 0]);
    }

    #[test]
    fn an_ignored_test_is_found_but_not_the_child_of_another() {
        assert_eq!(check_text(&in_tests("#[ignore]")), ["a/src/a.rs:3"]);
        assert_eq!(check_text(&in_tests("#[ignore = \"slow\"]")), ["a/src/a.rs:3"]);
        assert_eq!(
            check_text(&in_tests("#[ignore = \"the child process of the kill test\"]")),
            [""; 0]
        );
    }

    #[test]
    fn a_queue_without_bound_is_found() {
        assert_eq!(
            check_text("\nlet (a, b) = mpsc::unbounded_channel();\n"),
            ["a/src/a.rs:2"]
        );
        assert_eq!(check_text("// unbounded_channel\n"), [""; 0]);
    }

    #[test]
    fn a_long_file_is_found_by_what_is_not_a_test() {
        let long = "fn f() {}\n".repeat(MAX_LINES + 1);
        assert_eq!(check_text(&long), ["a/src/a.rs:500"]);
        assert_eq!(check_text(&in_tests(&long)), [""; 0]);
        assert_eq!(check_text(&"fn f() {}\n".repeat(MAX_LINES)), [""; 0]);
    }

    #[test]
    fn a_select_beyond_a_screen_is_found() {
        let select = |arms: usize| format!("tokio::select! {{\n{}}}\n", "    _ = f() => {}\n".repeat(arms));
        assert_eq!(check_text(&select(MAX_SELECT)), ["a/src/a.rs:1"]);
        assert_eq!(check_text(&select(MAX_SELECT - 2)), [""; 0]);
    }

    #[test]
    fn open_work_needs_an_owner() {
        let mark = concat!("TO", "DO");
        let text = format!("# {mark}: later\n# {mark}(ann): later\n# {mark}(): later\n");
        assert_eq!(places(&open_ends(&[file("a.toml", &text)])), ["a.toml:1", "a.toml:3"]);
    }
}
