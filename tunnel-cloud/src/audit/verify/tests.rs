use std::fs;

use super::*;
use crate::audit::chain::Fault;

#[test]
fn findings_name_the_file_and_the_line() {
    let log = Written::new();
    assert_eq!(log.found(), [""; 0]);
    log.edit(1, |text| text.replacen("\"two\"", "\"2\"", 1));
    assert_eq!(log.found(), [format!("1:3: {}", Fault::Changed)]);
}

#[test]
fn a_file_that_is_gone_or_shortened_is_found_by_the_next() {
    let log = Written::new();
    log.edit(4, |text| text.lines().next().unwrap().to_owned() + "\n");
    assert_eq!(log.found(), ["7:1: records 5 to 6 are missing before this one"]);
    fs::remove_file(LogFile::in_dir(log.dir.path(), 4).path).unwrap();
    assert_eq!(log.found(), ["7:1: records 4 to 6 are missing before this one"]);
}

#[test]
fn the_oldest_files_may_be_gone_but_not_the_beginning_of_one() {
    let log = Written::new();
    fs::remove_file(LogFile::in_dir(log.dir.path(), 1).path).unwrap();
    assert_eq!(log.found(), [""; 0]);
    log.edit(4, |text| text.split_once('\n').unwrap().1.to_owned());
    assert_eq!(log.found(), ["4:1: the file's name says that it begins with record 4"]);
}

#[test]
fn a_line_that_was_never_finished_is_found() {
    let log = Written::new();
    log.edit(7, |text| text + "{\"schema\":");
    assert_eq!(log.found(), ["7:4: the line is cut off, or was never finished"]);
}

#[test]
fn a_cut_end_is_found_by_its_noted_head_only() {
    let log = Written::new();
    let noted = verify_dir(log.dir.path(), None).unwrap().head;
    log.edit(7, |text| text.lines().take(2).map(|line| format!("{line}\n")).collect());
    assert_eq!(log.found(), [""; 0]);
    let report = verify_dir(log.dir.path(), noted).unwrap();
    assert!(
        report.findings[0].what.starts_with("no record has the hash"),
        "{report:?}"
    );
    // A log that has grown since still has the record.
    let older = report.head;
    assert!(verify_dir(log.dir.path(), older).unwrap().findings.is_empty());
}

#[test]
fn a_log_of_nonsense_has_an_end_to_its_findings() {
    let log = Written::new();
    log.edit(7, |_| "x\n".repeat(LISTED + 5));
    let report = verify_dir(log.dir.path(), None).unwrap();
    assert_eq!((report.findings.len(), report.more), (LISTED, 5));
}

/// Nine records in three files.
struct Written {
    dir: tempfile::TempDir,
}

impl Written {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut head = Head::EMPTY;
        for first in [1, 4, 7] {
            let mut text = Vec::new();
            for what in ["one", "two", "three"] {
                head = head
                    .next("T", &serde_json::json!({ "event": what }), &mut text)
                    .unwrap();
            }
            fs::write(LogFile::in_dir(dir.path(), first).path, text).unwrap();
        }
        Self { dir }
    }

    fn edit(&self, first: u64, edit: impl FnOnce(String) -> String) {
        let path = LogFile::in_dir(self.dir.path(), first).path;
        fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// What is found, with the files as their first records.
    fn found(&self) -> Vec<String> {
        let findings = verify_dir(self.dir.path(), None).unwrap().findings;
        let short = |finding: Finding| {
            let file = LogFile::named(finding.file).unwrap();
            format!("{}:{}: {}", file.first, finding.line, finding.what)
        };
        findings.into_iter().map(short).collect()
    }
}
