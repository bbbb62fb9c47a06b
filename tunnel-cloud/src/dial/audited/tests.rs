use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tunnel_daemon::metrics::Metrics;
use tunnel_model::{Class, Principal, TraceId};

use super::*;
use crate::{
    audit::{AuditConfig, AuditOutput, tail::Tail},
    config::RawLimits,
    dial::{DialMetrics, Granted, Grants, limits::Limiter, pipe::Pipe},
};

#[tokio::test]
async fn a_stream_is_on_record_from_grant_to_end_with_its_bytes() {
    let world = World::new();
    let (mut stream, mut target) = world.open();
    assert_eq!(world.on_file().len(), 1, "before a byte has passed");
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    target.write_all(b"hi").await.unwrap();
    drop(target);
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    drop(stream);
    let records = world.records();
    assert_eq!(
        (&records[0]["event"], &records[0]["principal"], &records[0]["way"]),
        (&"dial-granted".into(), &"user:alice".into(), &"connect".into())
    );
    let ended = &records[1];
    assert_eq!(
        (&ended["event"], &ended["reason"], &ended["id"]),
        (&"dial-ended".into(), &"ok".into(), &records[0]["id"])
    );
    assert_eq!(
        (&ended["bytes_to_target"], &ended["bytes_to_caller"]),
        (&5.into(), &2.into())
    );
}

#[tokio::test]
async fn the_end_says_who_ended_it() {
    let world = World::new();
    let (stream, _target) = world.open();
    drop(stream);
    assert_eq!(world.last_reason(), "closed");

    let (stream, _target) = world.open();
    world
        .grants
        .cut(stream.lease().grant(), Refusal::new(Reason::Denied, "no rule"));
    drop(stream);
    assert_eq!(world.last_reason(), "denied");

    let (stream, _target) = world.open();
    stream.lease().audited.refused(Reason::TargetRefused);
    stream.lease().audited.broke(&io::ErrorKind::ConnectionReset.into());
    drop(stream);
    assert_eq!(world.last_reason(), "target-refused", "the first reason is the one");

    let (stream, _target) = world.open();
    let error = io::Error::other(Refusal::new(Reason::TargetReset, "gone"));
    stream.lease().audited.broke(&error);
    drop(stream);
    assert_eq!(world.last_reason(), "target-reset");
}

#[test]
fn refusals_are_on_record_but_not_those_that_an_administrator_tries_out() {
    let world = World::new();
    let refusal = Refusal::new(Reason::Denied, "user:alice may not");
    refuse(&world.audit, &request(Way::Explain), &refusal);
    assert!(world.records().is_empty());
    refuse(&world.audit, &request(Way::Socks5), &refusal);
    let records = world.records();
    assert_eq!(
        (&records[0]["event"], &records[0]["reason"], &records[0]["detail"]),
        (&"dial-refused".into(), &"denied".into(), &"user:alice may not".into())
    );
}

struct World {
    dir: TempDir,
    audit: Arc<Audit>,
    grants: Arc<Grants>,
    limiter: Limiter,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(&AuditConfig {
            path: dir.path().to_owned(),
            max_mib: 1,
            keep: 2,
            outputs: vec![AuditOutput::File],
        });
        Self {
            dir,
            audit: Arc::new(audit.unwrap()),
            grants: Arc::new(Grants::new(DialMetrics::new(&Metrics::new("test")))),
            limiter: Limiter::new(&RawLimits::default()),
        }
    }

    fn open(&self) -> (Granted<Pipe>, DuplexStream) {
        let request = request(Way::Connect);
        let node = &request.destination.node;
        let room = self.limiter.admit(&request.principal, node).unwrap();
        let mut lease = self.grants.enter(&request, room);
        lease.audited = Audited::grant(&self.audit, &request, lease.grant()).unwrap();
        let (near, far) = tokio::io::duplex(4096);
        (Granted::new(Pipe(near), lease), far)
    }

    fn records(&self) -> Vec<Value> {
        self.audit.sync().unwrap();
        self.on_file()
    }

    fn on_file(&self) -> Vec<Value> {
        let (_, lines) = Tail::open(self.dir.path(), usize::MAX).unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn last_reason(&self) -> String {
        self.records().pop().unwrap()["reason"].as_str().unwrap().to_owned()
    }
}

fn request(way: Way) -> DialRequest {
    DialRequest {
        principal: Principal::user("alice".parse().unwrap(), Vec::new()),
        destination: "edge1:22".parse().unwrap(),
        class: Class::Api,
        way,
        trace: TraceId::from_bytes([1; 16]),
        client: SocketAddr::from(([127, 0, 0, 1], 1)),
    }
}
