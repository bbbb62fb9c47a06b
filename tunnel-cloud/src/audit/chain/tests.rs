use proptest::prelude::*;

use super::*;

#[derive(Serialize)]
struct Said {
    event: &'static str,
    what: String,
}

#[test]
fn a_record_is_one_line_with_its_number_and_the_hash_of_the_one_before() {
    let lines = chain(&["a", "b"]);
    let none = "0".repeat(64);
    assert_eq!(
        lines[0],
        format!(r#"{{"schema":"v1","seq":1,"time":"T","event":"said","what":"a","prev":"{none}"}}"#).into_bytes()
    );
    // As `head -1 FILE | tr -d '\n' | sha256sum` has it.
    let first = RecordHash::of(&lines[0]);
    assert!(String::from_utf8_lossy(&lines[1]).ends_with(&format!(r#""prev":"{first}"}}"#)));
    assert_eq!(first.to_string().parse(), Ok(first));
    assert_eq!(
        RecordHash::of(b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    for bad in ["", "0", &none[1..], &none.replace('0', "A"), &"é".repeat(32)] {
        assert!(bad.parse::<RecordHash>().is_err(), "{bad}");
    }
}

#[test]
fn what_stands_in_an_event_cannot_break_the_line_or_pose_as_the_chain() {
    let lines = chain(&["a\n{\"schema\":\"v1\",\"seq\":9}", "\",\"seq\":7,\"x\":\"\u{0}"]);
    assert!(lines.iter().all(|line| !line.contains(&b'\n')));
    assert_eq!(faults(&lines), []);
    assert_eq!(Link::read(br#"{"schema":"v1","seq":1,"seq":2,"prev":""}"#), None);
}

#[test]
fn a_log_whose_oldest_files_are_gone_is_good_and_a_forged_beginning_is_not() {
    let lines = chain(&["a", "b", "c"]);
    assert_eq!(faults(&lines[1..]), []);
    let forged = String::from_utf8(lines[0].clone())
        .unwrap()
        .replace(":\"0000", ":\"1000");
    assert_eq!(faults(&[forged.into_bytes()]), [(0, Fault::Changed)]);
}

#[test]
fn each_damage_is_one_finding_that_says_which() {
    let good = chain(&["a", "b", "c", "d", "e"]);
    let damaged = |damage: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines = good.clone();
        damage(&mut lines);
        faults(&lines)
    };
    let missing = |first, last| Fault::Missing { first, last };
    assert_eq!(damaged(&|l| l[1] = changed(&l[1])), [(2, Fault::Changed)]);
    assert_eq!(damaged(&|l| drop(l.drain(1..3))), [(1, missing(2, 3))]);
    assert_eq!(damaged(&|l| l[2] = b"x".to_vec()), [(2, Fault::NotARecord)]);
    let again = Fault::OutOfOrder { seq: 2, expected: 3 };
    assert_eq!(damaged(&|l| l.insert(2, l[1].clone())), [(2, again)]);
    assert!(!damaged(&|l| l.swap(1, 3)).is_empty());
}

proptest! {
    /// T7
    #[test]
    fn no_change_before_the_last_record_goes_unseen(
        what in prop::collection::vec(".{0,20}", 3..12),
        at in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let texts: Vec<_> = what.iter().map(String::as_str).collect();
        let good = chain(&texts);
        prop_assert_eq!(faults(&good), []);
        let last = good.len() - 1;
        let at = at.index(last);

        let mut flipped = good.clone();
        let place = byte.index(flipped[at].len());
        flipped[at][place] ^= flip;
        prop_assert!(!faults(&flipped).is_empty(), "a byte was changed");

        let mut cut = good.clone();
        cut[at].truncate(place);
        prop_assert!(!faults(&cut).is_empty(), "a line was cut");

        // The first record may be missing because it was rotated out; then the file's name tells.
        let mut removed = good.clone();
        removed.remove(at.max(1).min(last - 1));
        prop_assert!(last == 1 || !faults(&removed).is_empty(), "a record was removed");

        let with = other.index(last);
        if with != at {
            let mut swapped = good.clone();
            swapped.swap(at, with);
            prop_assert!(!faults(&swapped).is_empty(), "records were reordered");
        }

        let mut repeated = good.clone();
        repeated.insert(at + 1, good[at].clone());
        prop_assert!(!faults(&repeated).is_empty(), "a record was repeated");
    }

    /// What a chain alone cannot show, and why the head is worth noting elsewhere.
    #[test]
    fn a_cut_end_is_seen_only_by_who_knows_the_head(what in prop::collection::vec(".{0,20}", 2..12)) {
        let texts: Vec<_> = what.iter().map(String::as_str).collect();
        let good = chain(&texts);
        let noted = head(&good);
        let cut = &good[..good.len() - 1];
        prop_assert_eq!(faults(cut), []);
        prop_assert!(head(cut) != noted);
        let mut rewritten = good.clone();
        let last = rewritten.last_mut().unwrap();
        *last = changed(last);
        prop_assert_eq!(faults(&rewritten), []);
        prop_assert!(head(&rewritten) != noted);
    }

    #[test]
    fn no_line_surprises_the_verifier(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
        let mut verifier = Verifier::new();
        for line in &lines {
            verifier.line(line);
        }
        prop_assert!(verifier.records() <= lines.len() as u64);
    }
}

fn chain(what: &[&str]) -> Vec<Vec<u8>> {
    let mut head = Head::EMPTY;
    let record = |what: &&str| {
        let event = Said {
            event: "said",
            what: (*what).to_owned(),
        };
        let mut line = Vec::new();
        head = head.next("T", &event, &mut line).unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        line
    };
    what.iter().map(record).collect()
}

/// The same record saying something else.
fn changed(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(line.to_vec()).unwrap();
    text.replace("\"said\"", "\"sang\"").into_bytes()
}

fn faults(lines: &[Vec<u8>]) -> Vec<(usize, Fault)> {
    let mut verifier = Verifier::new();
    let fault = |(at, line): (usize, &Vec<u8>)| Some((at, verifier.line(line)?));
    lines.iter().enumerate().filter_map(fault).collect()
}

fn head(lines: &[Vec<u8>]) -> Option<Head> {
    let mut verifier = Verifier::new();
    for line in lines {
        verifier.line(line);
    }
    verifier.head()
}
