use std::{net::SocketAddr, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tunnel_daemon::metrics::Metrics;
use tunnel_ingress::{DialRequest, Way};
use tunnel_model::{Class, Principal, TraceId};

use super::*;
use crate::{
    config::RawLimits,
    dial::{DialMetrics, Grants, limits::Limiter, pipe::Pipe},
};

#[tokio::test]
async fn what_passes_is_counted_in_the_table_and_leaves_it_with_the_stream() {
    let world = World::new("");
    let (mut stream, mut target) = world.open();
    stream.write_all(b"hello").await.unwrap();
    target.write_all(b"hi").await.unwrap();
    stream.read_exact(&mut [0; 2]).await.unwrap();
    let listed = world.grants.list();
    assert_eq!((listed[0].up(), listed[0].down()), (5, 2));
    assert!(
        world
            .metrics()
            .contains("open_streams{class=\"api\",way=\"connect\"} 1")
    );
    drop(stream);
    assert!(world.grants.list().is_empty());
    assert!(
        world
            .metrics()
            .contains("open_streams{class=\"api\",way=\"connect\"} 0")
    );
}

#[tokio::test]
async fn a_cut_wakes_whoever_waits_to_read_and_says_why() {
    let world = World::new("");
    let (mut stream, mut target) = world.open();
    let grant = Arc::clone(stream.lease().grant());
    let reading = tokio::spawn(async move { stream.read_u8().await.unwrap_err() });
    tokio::task::yield_now().await;
    assert!(world.grants.cut(&grant, refusal()));
    assert!(!world.grants.cut(&grant, refusal()), "it was cut already");
    let error = reading.await.unwrap();
    let why = error.get_ref().and_then(|error| error.downcast_ref::<Refusal>());
    assert_eq!(why, Some(&refusal()));
    assert_eq!(target.read(&mut [0; 1]).await.unwrap(), 0, "the far side is let go too");
    assert!(world.metrics().contains("cut_streams_total{reason=\"denied\"} 1"));
}

#[tokio::test]
async fn a_cut_wakes_whoever_waits_to_write() {
    let world = World::new("");
    let (mut stream, target) = world.open();
    let grant = Arc::clone(stream.lease().grant());
    let writing = tokio::spawn(async move { stream.write_all(&[0; 1 << 20]).await.unwrap_err() });
    tokio::task::yield_now().await;
    world.grants.cut(&grant, refusal());
    assert_eq!(writing.await.unwrap().kind(), io::ErrorKind::ConnectionReset);
    drop(target);
}

#[tokio::test]
async fn a_cut_is_found_out_by_whoever_neither_reads_nor_writes() {
    let world = World::new("");
    let (mut stream, _target) = world.open();
    let cut = tokio::spawn(stream.cut());
    tokio::task::yield_now().await;
    world.grants.cut(stream.lease().grant(), refusal());
    cut.await.unwrap();
    assert_eq!(stream.established().await, Err(refusal()));
    assert!(stream.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn bytes_wait_where_they_are_limited_in_both_directions() {
    let world = World::new("principal_bytes_per_second = 10000");
    let (mut stream, mut target) = world.open();
    let started = tokio::time::Instant::now();
    let (mut sent, mut got) = (vec![1; 20_000], vec![0; 20_000]);
    let echo = async {
        let mut all = vec![0; 20_000];
        target.read_exact(&mut all).await.unwrap();
        target.write_all(&all).await.unwrap();
        target
    };
    let caller = async {
        stream.write_all(&sent).await.unwrap();
        stream.read_exact(&mut got).await.unwrap();
    };
    let (_target, ()) = tokio::join!(echo, caller);
    sent.clear();
    // Of 40,000 bytes the first 10,000 are free, and the wait after the last portion is nobody's.
    let seconds = started.elapsed().as_secs_f64();
    assert!((2.8..=3.1).contains(&seconds), "{seconds}");
    assert!(got.iter().all(|byte| *byte == 1));
}

struct World {
    grants: Arc<Grants>,
    limiter: Limiter,
    metrics: Metrics,
}

impl World {
    fn new(limits: &str) -> Self {
        let limits: RawLimits = toml::from_str(limits).unwrap();
        let metrics = Metrics::new("test");
        Self {
            grants: Arc::new(Grants::new(DialMetrics::new(&metrics))),
            limiter: Limiter::new(&limits),
            metrics,
        }
    }

    fn open(&self) -> (Granted<Pipe>, DuplexStream) {
        let request = DialRequest {
            principal: Principal::user("alice".parse().unwrap(), Vec::new()),
            destination: "edge1:22".parse().unwrap(),
            class: Class::Api,
            way: Way::Connect,
            trace: TraceId::from_bytes([1; 16]),
            client: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        let room = self
            .limiter
            .admit(&request.principal, &request.destination.node)
            .unwrap();
        let (near, far) = tokio::io::duplex(4096);
        (Granted::new(Pipe(near), self.grants.enter(&request, room)), far)
    }

    fn metrics(&self) -> String {
        self.metrics.encode().unwrap()
    }
}

fn refusal() -> Refusal {
    Refusal::new(Reason::Denied, "alice may not")
}
