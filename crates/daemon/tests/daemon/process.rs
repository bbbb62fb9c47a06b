//! A process from start to end: signals, exit codes, the service manager, exhausted descriptors.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::child::Running;

/// R1
#[test]
fn accepting_pauses_without_spinning_while_descriptors_are_out_and_then_resumes() {
    let mut child = Running::start("exhaust", &[]);
    let mut client = TcpStream::connect(child.hears()).unwrap();
    child.tell("connected");
    // In 10 s: after 0, 10, 30, 70, 150, 310, 630 and 1,270 ms, and then once a second.
    assert_eq!(child.hears(), "pauses 16");
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "hello");
    let (status, complaints) = child.ends();
    assert!(status.success(), "{complaints}");
}

#[test]
fn a_signal_lets_open_streams_finish() {
    let mut child = Running::start("serve", &[]);
    assert_eq!(child.hears(), "up");
    child.signal(Signal::TERM);
    assert_eq!(child.hears(), "stopping");
    child.tell("the stream ends");
    assert_eq!(child.hears(), "cut 0");
    let (status, complaints) = child.ends();
    assert!(status.success(), "{complaints}");
}

#[test]
fn a_second_signal_cuts_them() {
    let mut child = Running::start("serve", &[]);
    assert_eq!(child.hears(), "up");
    child.signal(Signal::INT);
    assert_eq!(child.hears(), "stopping");
    child.signal(Signal::TERM);
    assert_eq!(child.hears(), "cut 1");
    let (status, complaints) = child.ends();
    assert!(status.success(), "{complaints}");
}

#[test]
fn the_service_manager_hears_of_start_watchdog_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut child = Running::start(
        "serve",
        &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000")],
    );

    let heard = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut before_stop = vec![heard(), heard(), heard()];
    before_stop.sort();
    before_stop.dedup();
    assert_eq!(before_stop, ["READY=1\nSTATUS=up\n", "WATCHDOG=1\n"]);

    child.signal(Signal::TERM);
    let mut after_stop = std::iter::repeat_with(heard).filter(|text| text != "WATCHDOG=1\n");
    assert_eq!(after_stop.next().unwrap(), "STOPPING=1\nSTATUS=draining\n");
    child.tell("the stream ends");
    assert_eq!(after_stop.next().unwrap(), "STATUS=flushing\n");
    let (status, complaints) = child.ends();
    assert!(status.success(), "{complaints}");
}

#[test]
fn an_error_is_one_line_on_stderr_and_the_exit_code_tells_its_kind() {
    let (status, complaints) = Running::start("fail", &[]).ends();
    assert_eq!(status.code(), Some(4));
    assert_eq!(
        complaints,
        "{\"error\":{\"code\":\"node-offline\",\"exit\":4,\"hint\":null,\"message\":\"node alpha is offline\"}}\n"
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = Running::start("chatter", &[]);
    assert_eq!(child.hears(), "talking");
    let (status, complaints) = child.ends_unheard();
    assert_eq!((status.code(), complaints.as_str()), (Some(0), ""));
}
