use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until, timeout},
};
use tunnel_carrier::quic::{Dialer, Limits, LinkRate, Server};
use tunnel_identity::tls::Alpn;
use tunnel_linkem::{LinkConfig, relay::UdpRelay};
use tunnel_model::Class;
use tunnel_proto::{Packets, Rate, ScheduleConfig, Scheduler, StreamId, Turn};

use crate::cluster::{Cluster, noise, soon};

const ROUND_TRIP: Duration = Duration::from_millis(60);
const MBIT: u64 = 1_000_000;

/// Both ends of a connection across a link, and what they stand on.
struct Across {
    near: Connection,
    far: Connection,
    relay: UdpRelay,
    _stand: (Dialer, Server),
}

impl Across {
    async fn link(link: &str) -> Self {
        let cluster = Cluster::new();
        let mut server = cluster.serve(&Limits::gateway());
        let link: LinkConfig = link.parse().unwrap();
        let relay = UdpRelay::start(server.local_addr().unwrap(), link.into(), 1)
            .await
            .unwrap();
        let dialer = Dialer::bind(0, Limits::edge()).unwrap();
        let addresses = [relay.local_addr()];
        let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
        let (dialled, accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
        Self {
            near: dialled.unwrap(),
            far: accepted.unwrap().connection,
            relay,
            _stand: (dialer, server),
        }
    }
}

/// What a stream sends.
enum Source {
    /// So many bytes.
    Bulk(usize),
    /// A byte for each of these.
    Keys(mpsc::Receiver<()>),
}

/// One end's sender, as the scheduler wants it: asks before it hands anything to the connection, and keeps to the pacing.
async fn send(connection: Connection, mut streams: Vec<(SendStream, Class, Source)>) {
    let link = LinkRate::of(&connection).unwrap();
    let mut scheduler = Scheduler::new(ScheduleConfig::default(), Instant::now().into_std());
    let data = noise(64 * 1024);
    let (mut buffer, mut lost) = (0, link.lost());
    let mut waiting = vec![false; streams.len()];
    let mut typed = vec![0; streams.len()];
    loop {
        let now = Instant::now().into_std();
        scheduler.set_packets(Packets::of_quic(connection.stats().path.current_mtu));
        scheduler.set_rate(link.pacing(), now);
        scheduler.spend(link.lost() - lost, now);
        lost = link.lost();
        if buffer != link.send_buffer() {
            buffer = link.send_buffer();
            connection.set_send_window(buffer);
        }
        scheduler.handle_timeout(now);
        let mut turns = Vec::new();
        let mut more = false;
        for (number, (_, class, source)) in streams.iter_mut().enumerate() {
            let want = match source {
                Source::Bulk(left) => *left,
                Source::Keys(keys) => {
                    while keys.try_recv().is_ok() {
                        typed[number] += 1;
                    }
                    typed[number]
                }
            };
            more |= matches!(source, Source::Keys(_)) || want > 0;
            if want == 0 || waiting[number] {
                continue;
            }
            match scheduler.request(StreamId(number as u64), *class, want.min(data.len()), now) {
                Turn::Granted(bytes) => turns.push((number, bytes)),
                Turn::Queued => waiting[number] = true,
            }
        }
        while let Some((id, bytes)) = scheduler.poll_ready() {
            let number = usize::try_from(id.0).unwrap();
            waiting[number] = false;
            turns.push((number, bytes));
        }
        let idle = turns.is_empty();
        for (number, bytes) in turns {
            let (stream, _, source) = &mut streams[number];
            if stream.write_all(&data[..bytes]).await.is_err() {
                return;
            }
            scheduler.sent(StreamId(number as u64), bytes);
            match source {
                Source::Bulk(left) => {
                    *left -= bytes;
                    if *left == 0 {
                        stream.finish().unwrap();
                    }
                }
                Source::Keys(_) => typed[number] -= bytes,
            }
        }
        if !more {
            return;
        }
        if idle {
            // Keys are looked at each millisecond, which is as fine as timers are.
            let tick = Instant::now() + Duration::from_millis(1);
            let due = scheduler.poll_timeout().map_or(tick, Instant::from_std);
            sleep_until(due.min(tick)).await;
        }
    }
}

async fn read_all(mut stream: RecvStream) -> usize {
    let mut all = 0;
    while let Some(chunk) = stream.read_chunk(64 * 1024, true).await.unwrap() {
        all += chunk.bytes.len();
    }
    all
}

fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort();
    values[values.len() * percent / 100]
}

/// Transfers both ways and somebody who types, over the real thing. The bounds leave room for a machine that is busy with
/// other tests; the simulations in the protocol's tests hold the tight ones, and the bench those of the whole tunnel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thin_link_is_found_out_and_its_queue_stays_short() {
    const BULK: usize = 5 * 1024 * 1024;
    let across = Across::link("3mbit,60ms,64kb").await;
    let (near, far) = (across.near.clone(), across.far.clone());
    let (keys, typed) = mpsc::channel(64);
    let (echo, echoed) = mpsc::channel(64);

    let (near_bulk, _) = near.open_bi().await.unwrap();
    let (near_keys, mut echoes) = near.open_bi().await.unwrap();
    let (far_bulk, _) = far.open_bi().await.unwrap();
    let near_sends = vec![
        (near_bulk, Class::Api, Source::Bulk(BULK)),
        (near_keys, Class::Interactive, Source::Keys(typed)),
    ];
    let near_sender = tokio::spawn(send(near.clone(), near_sends));
    keys.send(()).await.unwrap();
    let (_, up) = soon("the upload", far.accept_bi()).await.unwrap();
    let (far_keys, mut keystrokes) = soon("the keys", far.accept_bi()).await.unwrap();
    let far_sends = vec![
        (far_bulk, Class::Api, Source::Bulk(BULK)),
        (far_keys, Class::Interactive, Source::Keys(echoed)),
    ];
    let far_sender = tokio::spawn(send(far.clone(), far_sends));
    tokio::spawn(async move {
        let mut byte = [0; 64];
        while let Ok(Some(n)) = keystrokes.read(&mut byte).await {
            for _ in 0..n {
                echo.send(()).await.unwrap();
            }
        }
    });
    let (_, down) = soon("the download", near.accept_bi()).await.unwrap();

    let began = Instant::now();
    let typing = async {
        echoes.read_exact(&mut [0]).await.unwrap();
        let mut every = interval(Duration::from_millis(100));
        let (mut took, mut queues) = (Vec::new(), Vec::new());
        loop {
            every.tick().await;
            let now = Instant::now();
            keys.send(()).await.unwrap();
            echoes.read_exact(&mut [0]).await.unwrap();
            // Until then the link was still being found out.
            if began.elapsed() > Duration::from_secs(6) {
                took.push(now.elapsed());
                queues.push(across.relay.stats().up.queued_bytes);
            }
            if began.elapsed() > Duration::from_secs(13) {
                return (took, queues);
            }
        }
    };
    let transfers = async { tokio::join!(read_all(up), read_all(down)) };
    let ((mut took, mut queues), transferred) =
        timeout(Duration::from_secs(40), async { tokio::join!(typing, transfers) })
            .await
            .unwrap();
    let whole = began.elapsed();
    near_sender.abort();
    far_sender.abort();

    assert_eq!(transferred, (BULK, BULK));
    let estimate = LinkRate::of(&near).unwrap().estimate().unwrap();
    queues.sort_unstable();
    let queue = queues[queues.len() / 2];
    let (p50, p90) = (percentile(&mut took, 50), percentile(&mut took, 90));
    let figures = format!("{estimate}, queue {queue}, echo {p50:?} {p90:?}, transfers {whole:?}");
    println!("{figures}");
    let between = |low, high| Rate::from_bits_per_second(low).unwrap()..Rate::from_bits_per_second(high).unwrap();
    assert!(between(23 * MBIT / 10, 33 * MBIT / 10).contains(&estimate), "{figures}");
    assert!(queue <= 9_000, "{figures}");
    assert!(p50 <= ROUND_TRIP + Duration::from_millis(25), "{figures}");
    // What 75 % of the link takes.
    assert!(whole <= Duration::from_secs(19), "{figures}");
}

/// Cubic alone, which takes each loss for a full link, gets a tenth of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_on_a_long_link_do_not_close_the_window() {
    const BULK: usize = 5 * 1024 * 1024;
    let across = Across::link("3mbit,400ms,64kb,2%").await;
    let (bulk, _) = across.near.open_bi().await.unwrap();
    let began = Instant::now();
    let sender = tokio::spawn(send(across.near.clone(), vec![(bulk, Class::Api, Source::Bulk(BULK))]));
    let (_, stream) = soon("the stream", across.far.accept_bi()).await.unwrap();
    let received = timeout(Duration::from_secs(60), read_all(stream)).await.unwrap();
    assert_eq!(received, BULK);
    sender.await.unwrap();
    let took = began.elapsed();
    println!("{took:?}");
    // At the link's rate it takes 14 s.
    assert!(took <= Duration::from_secs(24), "{took:?}");
}

#[tokio::test]
async fn a_fast_link_is_left_alone() {
    let across = Across::link("0ms").await;
    let (bulk, _) = across.near.open_bi().await.unwrap();
    let link = LinkRate::of(&across.near).unwrap();
    let sender = tokio::spawn(send(
        across.near.clone(),
        vec![(bulk, Class::Api, Source::Bulk(8 << 20))],
    ));
    let (_, stream) = soon("the stream", across.far.accept_bi()).await.unwrap();
    soon("the data", read_all(stream)).await;
    sender.await.unwrap();
    assert_eq!(link.pacing(), None);
}

#[tokio::test]
async fn a_rate_that_is_given_is_kept_to_at_once() {
    let across = Across::link("0ms").await;
    let link = LinkRate::of(&across.near).unwrap();
    let rate = Rate::from_bits_per_second(8 * MBIT).unwrap();
    link.give(Some(rate));
    assert_eq!(link.pacing(), Some(rate));
    let (bulk, _) = across.near.open_bi().await.unwrap();
    let began = Instant::now();
    let sender = tokio::spawn(send(
        across.near.clone(),
        vec![(bulk, Class::Api, Source::Bulk(1 << 20))],
    ));
    let (_, stream) = soon("the stream", across.far.accept_bi()).await.unwrap();
    soon("the data", read_all(stream)).await;
    sender.await.unwrap();
    let least = Duration::from_millis(950);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}
