//! Adding up what many test binaries print.

use std::fmt;

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    /// What did not run, each as `NAME: needs WHAT`.
    skipped: Vec<String>,
    /// How many of the skipped the test runner called passed.
    skipped_as_passed: usize,
}

impl Tally {
    /// Reads one line that cargo or a test printed.
    pub(super) fn feed(&mut self, line: &str) {
        let line = line.trim_end();
        // Somewhere in the line: a test that runs alone has its name printed before.
        if let Some(skipped) = line.split("SKIPPED ").nth(1).filter(|rest| rest.contains(": needs ")) {
            self.skipped.push(skipped.to_owned());
            self.skipped_as_passed += 1;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            match outcome
                .split_once(',')
                .map_or((outcome, ""), |(outcome, why)| (outcome, why.trim()))
            {
                ("FAILED", _) => self.failures.push(name.to_owned()),
                // Another test starts it.
                ("ignored", why) if why.starts_with("the child process") => {}
                // An example in the documentation that is shown and not run.
                ("ignored", "") if name.contains(" (line ") => {}
                ("ignored", why) => self
                    .skipped
                    .push(format!("{name}: ignored {why}").trim_end().to_owned()),
                _ => {}
            }
        }
    }

    /// Counts a test that is not of a test binary.
    pub(super) fn add(&mut self, name: &str, passed: bool) {
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Whether any test failed.
    pub(super) fn failed(&self) -> bool {
        self.failed > 0 || !self.failures.is_empty()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for name in &self.failures {
            writeln!(f, "FAILED {name}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "SKIPPED {skipped}")?;
        }
        let passed = self.passed.saturating_sub(self.skipped_as_passed);
        writeln!(
            f,
            "{passed} passed, {} failed, {} skipped",
            self.failed,
            self.skipped.len()
        )
    }
}

/// The number before `what` in `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, what: &str) -> usize {
    let words: Vec<&str> = counts.split([' ', ';']).collect();
    let pair = words.windows(2).find(|pair| pair[1] == what);
    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.feed(line));
        tally
    }

    #[test]
    fn binaries_are_added_up_and_skips_are_not_passes() {
        let tally = tally(
            "running 3 tests\n\
             test a ... ok\n\
             SKIPPED clients::b: needs root\n\
             test clients::b ... ok\n\
             test c ... ok\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             test d ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.01s\n",
        );
        assert_eq!(
            tally.to_string(),
            "\nFAILED d\nSKIPPED clients::b: needs root\n3 passed, 1 failed, 1 skipped\n"
        );
        assert!(tally.failed());
    }

    #[test]
    fn a_skip_in_the_middle_of_a_line_counts() {
        let tally = tally("test x ... SKIPPED x: needs the program curl\nok\n");
        assert_eq!(tally.skipped, ["x: needs the program curl"]);
    }

    #[test]
    fn an_ignored_test_is_named_but_not_the_child_of_another() {
        let tally = tally(
            "test kill::child ... ignored, the child process of the kill test\n\
             test slow ... ignored, slow\n\
             test src/lib.rs - f (line 3) ... ignored\n",
        );
        assert_eq!(tally.skipped, ["slow: ignored slow"]);
        assert!(!tally.failed());
    }
}
