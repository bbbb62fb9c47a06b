//! Packets one way: senders at a fixed rate, and a sink that counts what arrives.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Clients, each with a port of its own.
const FLOWS: usize = 8;
/// Every packet begins with the number of its run and that of its flow, eight bytes each.
const HEADER: usize = 16;
/// How often the senders catch up with their rate.
const TURN: Duration = Duration::from_millis(1);
/// How long packets may be on their way after the last was sent.
const LATE: Duration = Duration::from_millis(300);
const UNTIL_OPEN: Duration = Duration::from_secs(10);

/// Counts the packets of one run at a time; what is late from an earlier run does not count.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    run: AtomicU64,
    packets: AtomicU64,
    /// A bit for each flow that packets of this run have come from.
    flows: AtomicU64,
}

impl Sink {
    /// Takes packets until the bench ends.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let sink = Self {
            address: socket.local_addr()?,
            counts: Arc::default(),
        };
        let counts = Arc::clone(&sink.counts);
        thread::Builder::new().name("sink".to_owned()).spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                counts.take(&buffer[..length]);
            }
        })?;
        Ok(sink)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Counts {
    fn take(&self, packet: &[u8]) {
        let Some((run, rest)) = packet.split_first_chunk() else {
            return;
        };
        if u64::from_be_bytes(*run) != self.run.load(Ordering::SeqCst) {
            return;
        }
        if let Some((flow, _)) = rest.split_first_chunk() {
            self.flows
                .fetch_or(1 << (u64::from_be_bytes(*flow) % 64), Ordering::SeqCst);
        }
        self.packets.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins the next run, and gives its number.
    fn next_run(&self) -> u64 {
        let run = self.run.fetch_add(1, Ordering::SeqCst) + 1;
        self.packets.store(0, Ordering::SeqCst);
        self.flows.store(0, Ordering::SeqCst);
        run
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// Bytes of each packet, at least those of its numbers.
    pub(crate) size: usize,
    /// Packets each second, of all flows together.
    pub(crate) rate: u32,
}

/// What became of the packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// Packets that arrived each second while they were sent.
    pub(crate) per_second: f64,
    /// The share of those sent that never arrived, in percent.
    pub(crate) loss: f64,
}

/// Offers packets to a subject for so long.
pub(crate) async fn packets(entry: SocketAddr, sink: &Sink, offer: Offer, time: Duration) -> anyhow::Result<Delivery> {
    let sink = sink.clone();
    tokio::task::spawn_blocking(move || offer_all(entry, &sink.counts, offer, time)).await?
}

fn offer_all(entry: SocketAddr, counts: &Counts, offer: Offer, time: Duration) -> anyhow::Result<Delivery> {
    let mut senders = Vec::new();
    for _ in 0..FLOWS {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(entry)?;
        senders.push(socket);
    }
    open(&senders, counts)?;

    let mut packet = vec![0x5a; offer.size.max(HEADER)];
    packet[..8].copy_from_slice(&counts.next_run().to_be_bytes());
    let (start, mut sent) = (Instant::now(), 0_usize);
    while start.elapsed() < time {
        let due = usize::try_from(start.elapsed().as_micros() * u128::from(offer.rate) / 1_000_000)?;
        while sent < due && start.elapsed() < time {
            let flow = sent % FLOWS;
            packet[8..HEADER].copy_from_slice(&(flow as u64).to_be_bytes());
            send(&senders[flow], &packet)?;
            sent += 1;
        }
        thread::sleep(TURN);
    }
    let (received, elapsed) = (counts.packets.load(Ordering::SeqCst), start.elapsed());
    thread::sleep(LATE);
    let all = counts.packets.load(Ordering::SeqCst);
    anyhow::ensure!(all > 0, "no packet arrived");
    Ok(Delivery {
        per_second: received as f64 / elapsed.as_secs_f64(),
        loss: (1.0 - all as f64 / sent as f64).max(0.0) * 100.0,
    })
}

/// Sends on every flow until the sink has heard from each, so that a run measures carrying and not opening.
fn open(senders: &[UdpSocket], counts: &Counts) -> anyhow::Result<()> {
    let run = counts.next_run().to_be_bytes();
    let deadline = Instant::now() + UNTIL_OPEN;
    loop {
        let seen = counts.flows.load(Ordering::SeqCst);
        if seen.count_ones() as usize == senders.len() {
            return Ok(());
        }
        let in_time = (Instant::now() < deadline).then_some(());
        in_time.with_context(|| format!("{} of {} flows opened", seen.count_ones(), senders.len()))?;
        for (flow, socket) in (0_u64..).zip(senders) {
            if seen & (1 << flow) == 0 {
                send(socket, &[run, flow.to_be_bytes()].concat())?;
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A packet that finds nobody listening is lost, as any other.
fn send(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    match socket.send(packet) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}
