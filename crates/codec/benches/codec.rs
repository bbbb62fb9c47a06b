//! Sizes and times beside gzip and zstd: `cargo bench -p tunnel-codec`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::Write as _;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::GzEncoder};
use support::{Noise, bodies, containers, histograms};
use tunnel_codec::scrape::{Decoder, Encoder, Limits};
use tunnel_codec::stream;
use zstd_safe::{CCtx, CParameter};

fn scrapes(c: &mut Criterion) {
    println!("\nmean bytes of a scrape after the first");
    println!(
        "| bodies | body | gzip -6 | zstd -3 | zstd -9, last body as prefix | message | gzip / message | memory of an end |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, bodies) in [
        ("node_exporter, busy host", bodies("node-exporter-busy")),
        ("node_exporter, beside builds", bodies("node-exporter-builds")),
        ("process-exporter", bodies("process-exporter")),
        ("Prometheus of itself", bodies("prometheus")),
        ("containers (made)", containers(24)),
        ("histograms, OpenMetrics (made)", histograms(24)),
    ] {
        table_row(name, &bodies);
    }
    println!();

    let bodies = bodies("node-exporter-busy");
    let mut group = c.benchmark_group("scrape");
    group.throughput(Throughput::Bytes(bodies[1].len() as u64));
    group.bench_function("encode", |b| {
        let (mut encoder, mut decoder) = warm(&bodies[..10]);
        let base = decoder.base();
        decoder.decode(&encoder.encode(&bodies[10], base).unwrap()).unwrap();
        b.iter(|| encoder.encode(black_box(&bodies[11]), base).unwrap());
    });
    group.bench_function("encode whole", |b| {
        let mut encoder = Encoder::new(Limits::default());
        b.iter(|| encoder.encode(black_box(&bodies[1]), None).unwrap());
    });
    group.bench_function("decode", |b| {
        let (mut encoder, mut decoder) = warm(&bodies[..10]);
        let message = encoder.encode(&bodies[10], decoder.base()).unwrap();
        // The base stays, for only its place among the kept ones changes.
        b.iter(|| decoder.decode(black_box(&message)).unwrap());
    });
    group.bench_function("gzip -6", |b| b.iter(|| gzip(black_box(&bodies[1]))));
    group.bench_function("zstd -9, last body as prefix", |b| {
        b.iter(|| zstd(black_box(&bodies[1]), &bodies[0], 9))
    });
    group.finish();
}

fn streams(c: &mut Criterion) {
    let watch: Vec<u8> = bodies("node-exporter-busy").concat();
    let noise = Noise(1).bytes(1 << 20);
    println!("\nstreams, in bursts of 4 KiB");
    for (name, data) in [("text", &watch[..1 << 20]), ("noise", &noise)] {
        let wire = send(data);
        println!("{name}: {} bytes became {}", data.len(), wire.len());
        let mut group = c.benchmark_group(format!("stream of {name}"));
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.sample_size(20);
        group.bench_function("encode", |b| b.iter(|| send(black_box(data))));
        group.bench_function("decode", |b| {
            b.iter(|| {
                let mut decoder = stream::Decoder::default();
                let mut read = 0;
                for piece in wire.chunks(4096) {
                    decoder.push(piece);
                    while let Some(block) = decoder.next_block().unwrap() {
                        read += block.len();
                    }
                }
                assert_eq!(read, data.len());
            });
        });
        group.finish();
    }
}

fn send(data: &[u8]) -> BytesMut {
    let mut encoder = stream::Encoder::default();
    let mut wire = BytesMut::new();
    for burst in data.chunks(4096) {
        encoder.write(burst, &mut wire);
        encoder.flush(&mut wire);
    }
    wire
}

fn table_row(name: &str, bodies: &[Vec<u8>]) {
    let (mut encoder, mut decoder) = warm(&bodies[..1]);
    let mut sums = [0; 5];
    for pair in bodies.windows(2) {
        let message = encoder.encode(&pair[1], decoder.base()).unwrap();
        assert_eq!(decoder.decode(&message).unwrap(), pair[1]);
        let sizes = [
            pair[1].len(),
            gzip(&pair[1]),
            zstd(&pair[1], &[], 3),
            zstd(&pair[1], &pair[0], 9),
            message.len(),
        ];
        for (sum, size) in sums.iter_mut().zip(sizes) {
            *sum += size;
        }
    }
    let [body, gzip, zstd, prefix, message] = sums.map(|sum| sum / (bodies.len() - 1));
    let factor = sums[1] as f64 / sums[4] as f64;
    let memory = encoder.memory();
    println!("| {name} | {body} | {gzip} | {zstd} | {prefix} | {message} | {factor:.1} | {memory} |");
}

/// Both ends, after these bodies.
fn warm(bodies: &[Vec<u8>]) -> (Encoder, Decoder) {
    let (mut encoder, mut decoder) = (Encoder::new(Limits::default()), Decoder::new(Limits::default()));
    for body in bodies {
        let message = encoder.encode(body, decoder.base()).unwrap();
        decoder.decode(&message).unwrap();
    }
    (encoder, decoder)
}

fn gzip(body: &[u8]) -> usize {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    gzip.write_all(body).unwrap();
    gzip.finish().unwrap().len()
}

fn zstd(body: &[u8], prefix: &[u8], level: i32) -> usize {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(level)).unwrap();
    context.set_parameter(CParameter::WindowLog(18)).unwrap();
    context.ref_prefix(prefix).unwrap();
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
    context.compress2(&mut out, body).unwrap()
}

criterion_group!(benches, scrapes, streams);
criterion_main!(benches);
