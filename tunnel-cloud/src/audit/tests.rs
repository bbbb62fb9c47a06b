//! What a test prints is what it measured, or why it skips.
#![allow(clippy::print_stderr)]

use std::{fs, os::unix::net::UnixDatagram, process::Command, time::Instant as Clock};

use tempfile::TempDir;
use tunnel_daemon::readiness::Readiness;

use super::*;
use crate::audit::{
    record::{Dial, Ended, Why},
    verify::verify_dir,
};

const SIZE: Size = Size {
    file: 1 << 20,
    files: 4,
};

#[test]
fn records_carry_schema_number_time_and_event() {
    let log = Opened::new();
    log.audit.note(Event::GatewayStarted { version: "1.2.3" });
    log.audit.grant(&Event::DialGranted(dial())).unwrap();
    log.audit.note(ended(10, 20, 1500));
    let records = log.records();
    assert_eq!(records[0]["schema"], "v1");
    assert_eq!(
        (&records[0]["seq"], &records[0]["event"]),
        (&1.into(), &"gateway-started".into())
    );
    let time = records[0]["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).unwrap();
    assert_eq!(records[1]["principal"], "user:alice");
    assert_eq!(records[1]["id"], records[2]["id"]);
    assert_eq!(
        (
            &records[2]["bytes_to_target"],
            &records[2]["bytes_to_caller"],
            &records[2]["duration_ms"]
        ),
        (&10.into(), &20.into(), &1500.into())
    );
}

#[test]
fn a_flood_of_refusals_is_counted_and_leaves_others_their_room() {
    let log = Opened::new();
    let event = Event::AuthenticationRefused {
        client: "192.0.2.1:4000".parse().unwrap(),
        why: why(),
    };
    for _ in 0..5000 {
        log.audit.refusal(Refused::Authentication, &event);
    }
    log.audit.refusal(
        Refused::Dial,
        &Event::DialRefused {
            dial: dial(),
            why: why(),
        },
    );
    log.audit.sync().unwrap();
    let records = log.records();
    let of = |event: &str| records.iter().filter(|record| record["event"] == event).count();
    assert!((1000..4000).contains(&of("authentication-refused")));
    assert_eq!(of("dial-refused"), 1);
    let suppressed = records.iter().find(|record| record["event"] == "suppressed").unwrap();
    let counted = suppressed["authentications"].as_u64().unwrap();
    assert_eq!(of("authentication-refused") as u64 + counted, 5000);
}

#[test]
fn copies_go_to_the_machines_log_and_those_that_cannot_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("log");
    let reader = UnixDatagram::bind(&socket).unwrap();
    let copies = vec![
        Copies::to(AuditOutput::Syslog, &socket).unwrap(),
        Copies::to(AuditOutput::Journald, &dir.path().join("nobody")).unwrap(),
    ];
    let audit = Audit::with(&dir.path().join("audit"), SIZE, copies).unwrap();
    let metrics = Metrics::new("t");
    audit.attach(&metrics, Readiness::new().check("audit log"));
    audit.note(Event::GatewayStopped {});
    let mut buf = [0; 2048];
    let len = reader.recv(&mut buf).unwrap();
    assert!(String::from_utf8_lossy(&buf[..len]).contains(r#""event":"gateway-stopped""#));
    let text = metrics.encode().unwrap();
    assert!(
        text.contains("t_audit_copies_lost_total{output=\"journald\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("t_audit_records_total 1") && text.contains("t_audit_writable 1"),
        "{text}"
    );
}

/// R2
#[test]
fn a_full_disk_stops_grants_keeps_what_happened_and_mends_itself() {
    let Some(disk) = Disk::mount() else { return };
    let audit = Audit::with(&disk.path().join("audit"), SIZE, Vec::new()).unwrap();
    let (metrics, readiness) = (Metrics::new("t"), Readiness::new());
    audit.attach(&metrics, readiness.check("audit log"));
    audit.grant(&Event::DialGranted(dial())).unwrap();

    disk.fill();
    // The page that is begun has room for some.
    let refusal = (0..1000)
        .find_map(|_| audit.grant(&Event::DialGranted(dial())).err())
        .unwrap();
    assert_eq!(refusal.reason, Reason::Overloaded);
    assert!(
        refusal.message.starts_with("the audit log cannot be written: "),
        "{refusal}"
    );
    assert_eq!(audit.available(), Err(refusal));
    audit.note_soon(ended(1, 2, 3));
    audit.refusal(
        Refused::Dial,
        &Event::DialRefused {
            dial: dial(),
            why: why(),
        },
    );
    audit.sync().unwrap();
    assert!(audit.available().is_err(), "still full");
    assert!(!readiness.report().ready);
    assert!(metrics.encode().unwrap().contains("t_audit_writable 0"));

    disk.free();
    audit.sync().unwrap();
    audit.available().unwrap();
    assert!(readiness.report().ready);
    audit.grant(&Event::DialGranted(dial())).unwrap();
    let records = records(&disk.path().join("audit"));
    let events: Vec<_> = records.iter().rev().take(3).map(|record| &record["event"]).collect();
    assert_eq!(events, ["dial-granted", "resumed", "dial-ended"]);
    assert_eq!(records[records.len() - 2]["lost"], 1);
    assert!(
        verify_dir(&disk.path().join("audit"), None)
            .unwrap()
            .findings
            .is_empty()
    );
}

#[test]
fn ends_go_with_the_next_record_or_when_there_are_many_or_with_the_next_sync() {
    let log = Opened::new();
    let grant = || log.audit.grant(&Event::DialGranted(dial())).unwrap();
    grant();
    log.audit.note_soon(ended(1, 2, 3));
    assert_eq!(log.records().len(), 1);
    grant();
    let events: Vec<_> = log
        .records()
        .into_iter()
        .map(|record| record["event"].clone())
        .collect();
    assert_eq!(events, ["dial-granted", "dial-ended", "dial-granted"], "in order");

    log.audit.note_soon(ended(1, 2, 3));
    log.audit.sync().unwrap();
    assert_eq!(log.records().len(), 4);

    (0..MOST_SOON).for_each(|_| log.audit.note_soon(ended(1, 2, 3)));
    assert_eq!(log.records().len(), 4 + MOST_SOON);
    assert_eq!(log.audit.head().seq as usize, 4 + MOST_SOON);

    log.audit.note_soon(ended(1, 2, 3));
    let Opened { dir, audit } = log;
    drop(audit);
    assert_eq!(
        records(dir.path()).len(),
        5 + MOST_SOON,
        "an end in order loses nothing"
    );
    assert!(verify_dir(dir.path(), None).unwrap().findings.is_empty());
}

#[test]
fn a_torn_end_is_on_record_with_where_it_went() {
    let dir = tempfile::tempdir().unwrap();
    drop(Audit::with(dir.path(), SIZE, Vec::new()).unwrap());
    let path = files::list(dir.path()).unwrap().remove(0).path;
    fs::write(path, "half a rec").unwrap();
    drop(Audit::with(dir.path(), SIZE, Vec::new()).unwrap());
    let records = records(dir.path());
    assert_eq!(
        (&records[0]["event"], &records[0]["bytes"]),
        (&"recovered".into(), &10.into())
    );
    let aside = dir.path().join(records[0]["moved_to"].as_str().unwrap());
    assert_eq!(fs::read_to_string(aside).unwrap(), "half a rec");
}

/// Printed, not judged: other tests keep the machine busy.
#[test]
fn what_the_two_records_of_a_dial_cost() {
    let log = Opened::new();
    const DIALS: u32 = 2000;
    let start = Clock::now();
    for _ in 0..DIALS {
        log.audit.grant(&Event::DialGranted(dial())).unwrap();
        log.audit.note_soon(ended(1, 2, 3));
    }
    eprintln!("one record: {:?}", start.elapsed() / (2 * DIALS));
    assert_eq!(log.audit.head().seq, u64::from(2 * DIALS));
}

struct Opened {
    dir: TempDir,
    audit: Audit,
}

impl Opened {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::with(dir.path(), SIZE, Vec::new()).unwrap();
        Self { dir, audit }
    }

    fn records(&self) -> Vec<serde_json::Value> {
        records(self.dir.path())
    }
}

fn records(dir: &Path) -> Vec<serde_json::Value> {
    let (_, lines) = tail::Tail::open(dir, usize::MAX).unwrap();
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn dial() -> Dial {
    Dial {
        id: Some(7),
        principal: "user:alice".to_owned(),
        node: "edge1".to_owned(),
        target: "port:22".to_owned(),
        class: "interactive",
        way: "connect",
        client: "192.0.2.1:4000".parse().unwrap(),
        trace: "00112233445566778899aabbccddeeff".to_owned(),
    }
}

fn ended(bytes_to_target: u64, bytes_to_caller: u64, duration_ms: u64) -> Event {
    let dial = dial();
    Event::DialEnded(Ended {
        id: 7,
        principal: dial.principal,
        node: dial.node,
        target: dial.target,
        reason: "ok",
        bytes_to_target,
        bytes_to_caller,
        duration_ms,
        trace: dial.trace,
    })
}

fn why() -> Why {
    (&Refusal::new(Reason::Denied, "no")).into()
}

/// A disk of 256 KiB.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                eprintln!("skipped: a small disk cannot be mounted, which takes root: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn fill(&self) {
        fs::write(self.path().join("ballast"), vec![1; 1 << 20]).unwrap_err();
    }

    fn free(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}
