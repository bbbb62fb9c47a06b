use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

use super::*;
use crate::audit::{clock::Clock, verify::verify_dir};

const SIZE: Size = Size { file: 2000, files: 3 };

#[test]
fn a_log_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    for expected in 1..=4 {
        let (mut log, torn) = open(dir.path());
        assert!(torn.is_empty());
        append(&mut log, "x");
        assert_eq!(log.head().seq, expected);
    }
    assert!(is_good(dir.path()));
}

#[test]
fn files_are_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("audit"));
    append(&mut log, "x");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(log.dir()), 0o700);
    assert_eq!(mode(&files::list(log.dir()).unwrap()[0].path), 0o600);
}

#[test]
fn a_full_file_is_followed_by_the_next_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for number in 0..100 {
        append(&mut log, &format!("record {number}"));
        assert!(is_good(dir.path()), "{number}");
    }
    let files = files::list(dir.path()).unwrap();
    assert_eq!(files.len(), SIZE.files);
    assert!(
        files
            .iter()
            .all(|file| fs::metadata(&file.path).unwrap().len() <= SIZE.file)
    );
    let report = verify_dir(dir.path(), Some(log.head().hash)).unwrap();
    assert!(report.findings.is_empty());
    assert_eq!((report.first, report.last), (Some(files[0].first), Some(100)));
}

/// R3
#[test]
fn wherever_the_end_was_torn_the_chain_goes_on_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for what in ["a", "b", "c"] {
        append(&mut log, what);
    }
    let path = files::list(dir.path()).unwrap().remove(0).path;
    let whole = fs::read(&path).unwrap();
    let ends: BTreeSet<_> = (0..whole.len())
        .filter(|&at| whole[at] == b'\n')
        .map(|at| at + 1)
        .collect();
    // Every byte of the last record, and the beginning of the first.
    for cut in (0..5).chain(ends.iter().rev().nth(1).copied().unwrap() - 1..=whole.len()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(path.file_name().unwrap()), &whole[..cut]).unwrap();
        let (mut log, torn) = open(dir.path());
        let records = ends.iter().filter(|&&end| end <= cut).count();
        let end = ends.range(..=cut).next_back().copied().unwrap_or(0);
        assert_eq!(log.head().seq, records as u64, "cut at {cut}");
        assert_eq!(torn.is_empty(), cut == end, "cut at {cut}");
        for piece in &torn {
            // Until it is on record it is found again.
            assert_eq!(recover::recover(dir.path()).unwrap().torn.len(), 1);
            piece.recorded().unwrap();
            assert_eq!(fs::read(dir.path().join(piece.name())).unwrap(), &whole[end..cut]);
            assert!(recover::recover(dir.path()).unwrap().torn.is_empty());
        }
        append(&mut log, "after");
        assert!(is_good(dir.path()), "cut at {cut}");
    }
}

/// R3
#[test]
fn zeros_and_nonsense_at_the_end_are_put_aside_and_damage_further_up_is_left_to_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, "a");
    let path = files::list(dir.path()).unwrap().remove(0).path;
    for tail in [&b"\0\0\0\0"[..], b"nonsense\n", b"{}\n\0\0", b"\n"] {
        let before = fs::read(&path).unwrap();
        fs::write(&path, [&before, tail].concat()).unwrap();
        let (mut log, torn) = open(dir.path());
        assert_eq!(torn.len(), 1);
        assert_eq!(fs::read(&path).unwrap(), before);
        torn[0].recorded().unwrap();
        append(&mut log, "b");
        assert!(is_good(dir.path()));
    }
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("schema", "shcema", 1)).unwrap();
    let (_, torn) = open(dir.path());
    assert!(torn.is_empty());
    assert!(!is_good(dir.path()));
}

/// R3
#[test]
fn a_process_killed_while_it_began_a_file_is_followed_by_one_that_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, "a");
    fs::write(LogFile::in_dir(dir.path(), 2).path, "").unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, "b");
    assert_eq!(log.head().seq, 2);
    assert!(is_good(dir.path()));
    assert_eq!(files::list(dir.path()).unwrap().len(), 2);
}

#[test]
fn a_write_that_failed_half_way_leaves_nothing_behind_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, "a");
    (&*log.file).write_all(b"half a rec").unwrap();
    log.torn = true;
    append(&mut log, "b");
    assert!(is_good(dir.path()));
}

fn open(dir: &Path) -> (Log, Vec<Torn>) {
    Log::open(dir, SIZE).unwrap()
}

fn append(log: &mut Log, what: &str) {
    let event = Event::Recovered {
        moved_to: what.to_owned(),
        bytes: 0,
        sha256: log.head().hash,
    };
    let time = Clock::new().now();
    log.append([(time, &event)].into_iter()).unwrap();
}

fn is_good(dir: &Path) -> bool {
    verify_dir(dir, None).unwrap().findings.is_empty()
}
