//! Both ends of a target's scrapes together.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::io::Write as _;
use support::{Noise, bodies, containers, histograms};
use tunnel_codec::scrape::{BaseId, Corrupt, DecodeError, Decoder, EncodeError, Encoder, Limits};
use zstd_safe::{CCtx, CParameter};

#[test]
fn ends_may_move_between_threads() {
    fn assert_send<T: Send + Sync>() {}
    assert_send::<Encoder>();
    assert_send::<Decoder>();
}

/// The bar of the thin link: a twenty-second of gzip.
#[test]
fn a_busy_node_exporter_costs_less_than_a_twenty_second_of_gzip() {
    let sizes = sizes(&bodies("node-exporter-busy"));
    let (sent, gzip) = sums(&sizes[1..]);
    assert!(sent * 22 <= gzip, "{sent} of {gzip}");
    // The first difference has nothing to learn from.
    assert!(sizes[1].sent * 22 <= sizes[1].gzip, "{:?}", sizes[1]);
}

#[test]
fn a_node_exporter_beside_builds_costs_less_than_a_twenty_second_of_gzip() {
    let sizes = sizes(&bodies("node-exporter-builds"));
    let (sent, gzip) = sums(&sizes[1..]);
    assert!(sent * 22 <= gzip, "{sent} of {gzip}");
}

#[test]
fn nothing_is_longer_than_by_zstd_with_the_last_body_as_prefix() {
    for bodies in [
        bodies("node-exporter-busy"),
        bodies("node-exporter-builds"),
        bodies("process-exporter"),
        bodies("prometheus"),
        containers(12),
        histograms(12),
        (0..6).map(|i| Noise(i).bytes(5000)).collect(),
    ] {
        for size in &sizes(&bodies)[1..] {
            assert!(size.sent <= size.prefix + 16, "{size:?}");
        }
    }
}

#[test]
fn a_lost_message_costs_nothing_and_a_lost_base_one_whole_body() {
    let bodies = bodies("node-exporter-builds");
    let (mut encoder, mut decoder) = ends();
    let talk = |encoder: &mut Encoder, decoder: &mut Decoder, body: &[u8], arrives: bool| {
        let message = encoder.encode(body, decoder.base()).unwrap();
        if arrives {
            assert_eq!(decoder.decode(&message).unwrap(), body);
        }
        message.len()
    };
    let whole = talk(&mut encoder, &mut decoder, &bodies[0], true);
    let difference = talk(&mut encoder, &mut decoder, &bodies[1], true);
    assert!(difference * 20 < whole);
    talk(&mut encoder, &mut decoder, &bodies[2], false);
    let after_loss = talk(&mut encoder, &mut decoder, &bodies[3], true);
    assert!(after_loss < difference * 2);

    // The edge was restarted.
    let mut encoder = Encoder::new(Limits::default());
    assert!(talk(&mut encoder, &mut decoder, &bodies[4], true) * 2 > whole);
    assert!(talk(&mut encoder, &mut decoder, &bodies[5], true) * 20 < whole);
    // The gateway was.
    let mut decoder = Decoder::new(Limits::default());
    assert!(talk(&mut encoder, &mut decoder, &bodies[6], true) * 2 > whole);
    assert!(talk(&mut encoder, &mut decoder, &bodies[7], true) * 20 < whole);
}

#[test]
fn a_message_whose_base_is_gone_is_not_guessed_at() {
    let (mut encoder, mut decoder) = ends();
    let first = encoder.encode(b"a 1\nb 2\nc 3\n", None).unwrap();
    decoder.decode(&first).unwrap();
    let second = encoder.encode(b"a 2\nb 2\nc 3\n", decoder.base()).unwrap();
    let mut stranger = Decoder::new(Limits::default());
    assert_eq!(stranger.decode(&second), Err(DecodeError::UnknownBase));
    assert_eq!(stranger.base(), None);
    assert_eq!(decoder.decode(&second).unwrap(), &b"a 2\nb 2\nc 3\n"[..]);
}

#[test]
fn only_so_many_bodies_are_kept() {
    let limits = Limits {
        history: 2,
        ..Limits::default()
    };
    let mut encoder = Encoder::new(limits);
    let mut bases: Vec<Option<BaseId>> = Vec::new();
    let mut decoder = Decoder::new(limits);
    let body = |i: usize| format!("{}{i}\n", "a_name_that_repeats 1\n".repeat(50));
    for i in 0..4 {
        let message = encoder.encode(body(i).as_bytes(), decoder.base()).unwrap();
        decoder.decode(&message).unwrap();
        bases.push(decoder.base());
    }
    let memory = encoder.memory();
    let by =
        |encoder: &mut Encoder, base| Decoder::new(limits).decode(&encoder.encode(body(9).as_bytes(), base).unwrap());
    assert!(
        by(&mut encoder, bases[0]).is_ok(),
        "the first is forgotten, so this stands by itself"
    );
    assert_eq!(by(&mut encoder, bases[3]), Err(DecodeError::UnknownBase));
    assert!(encoder.memory() <= memory + 100);
}

#[test]
fn odd_bodies_come_out_as_they_are() {
    let odd: [&[u8]; 14] = [
        b"",
        b"\n",
        b"\n\n\n",
        b"a 1",
        b"a 1\r\nb 2\r\n",
        b"a NaN\nb +Inf\nc -Inf\nd 1e+300\ne -0\nf 007\n",
        b"a +Inf\nb NaN\nc 5\nd 1e-300\ne 0\nf 7\n",
        b"\xff\xfe 1\n\x00 2\n",
        b"\xff\xfe 2\n\x00 NaN\n",
        b"a  1  2 3 4 5 6 7 8 9 10 11 12\n",
        b"a  1  2 4 4 5 6 7 8 9 10 11 13\n",
        b"a 123456789012345678901234567890123456789012345678901234567890\n",
        b"a 999999999999999999\nb -999999999999999999\n",
        b"a -999999999999999999\nb 999999999999999999\n",
    ];
    let (mut encoder, mut decoder) = ends();
    for _ in 0..2 {
        for body in odd {
            let message = encoder.encode(body, decoder.base()).unwrap();
            assert_eq!(decoder.decode(&message).unwrap(), body);
        }
    }
}

#[test]
fn a_body_beyond_the_limit_is_not_said_and_not_read() {
    let small = Limits {
        max_body: 1000,
        ..Limits::default()
    };
    let body = Noise(1).bytes(1001);
    let refused = Encoder::new(small).encode(&body, None);
    assert_eq!(
        refused,
        Err(EncodeError::TooLarge {
            length: 1001,
            limit: 1000
        })
    );
    for body in [body, vec![b'a'; 1001]] {
        let message = Encoder::new(Limits::default()).encode(&body, None).unwrap();
        let read = Decoder::new(small).decode(&message);
        assert_eq!(read, Err(DecodeError::Corrupt(Corrupt::TooLarge)));
    }
}

/// B17
#[test]
fn a_bomb_is_refused_before_memory_is_spent() {
    let zeros = vec![0; 16 << 20];
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(zeros.len()));
    zstd_safe::compress(&mut frame, &zeros, 3).unwrap();
    assert!(frame.len() * 1000 < zeros.len());
    // By zstd, with the length as it is, and with a length that looks harmless.
    for length in [&[0x80, 0x80, 0x80, 0x08][..], &[0x80, 0x08]] {
        let message = [&[1, 0, 0, 0, 0], length, &frame].concat();
        let mut decoder = Decoder::new(Limits::default());
        assert!(matches!(
            decoder.decode(&message),
            Err(DecodeError::Corrupt(Corrupt::TooLarge | Corrupt::Frame))
        ));
        assert_eq!(decoder.memory(), 0);
    }
}

/// The same, by the list of lines. B17
#[test]
fn lines_that_are_copied_again_and_again_are_refused() {
    let (mut encoder, mut decoder) = ends();
    let body = "some_metric_of_a_long_name{with=\"labels\"} 1\n".repeat(1000);
    decoder.decode(&encoder.encode(body.as_bytes(), None).unwrap()).unwrap();
    let base = decoder.base().unwrap().to_bytes();
    let mut plan = vec![100];
    for _ in 0..100 {
        // All 1001 lines, from the first: that is 1001 back but for the first time.
        plan.extend([0xe9, 0x07]);
        plan.extend(if plan.len() == 3 { vec![0] } else { vec![0xd3, 0x0f] });
        plan.push(0);
    }
    let mut message = vec![4, 0, 0, 0, 0];
    message.extend_from_slice(&base[..4]);
    for _ in 0..2 {
        message.extend([plan.len() as u8 & 0x7f | 0x80, (plan.len() >> 7) as u8]);
    }
    message.extend_from_slice(&plan);
    assert_eq!(decoder.decode(&message), Err(DecodeError::Corrupt(Corrupt::TooLarge)));
}

#[test]
fn bodies_that_compress_beyond_the_ratio_are_sent_all_the_same() {
    let (mut encoder, mut decoder) = ends();
    for len in [1 << 20, 1 << 20, 3 << 20] {
        let body = vec![b'a'; len];
        let message = encoder.encode(&body, decoder.base()).unwrap();
        assert_eq!(decoder.decode(&message).unwrap(), body);
    }
}

#[test]
fn memory_of_a_target_is_a_few_times_its_bodies() {
    let bodies = bodies("node-exporter-busy");
    let (mut encoder, mut decoder) = ends();
    for body in &bodies {
        let message = encoder.encode(body, decoder.base()).unwrap();
        decoder.decode(&message).unwrap();
    }
    let most = 4 * Limits::default().history * bodies[0].len();
    assert!(
        encoder.memory() <= most && decoder.memory() <= most,
        "{} {}",
        encoder.memory(),
        decoder.memory()
    );
}

#[test]
fn containers_that_come_and_go_cost_what_is_new() {
    let bodies = containers(12);
    let sizes = sizes(&bodies);
    let (sent, gzip) = sums(&sizes[1..]);
    assert!(sent * 5 < gzip, "{sent} of {gzip}");
}

#[derive(Debug)]
struct Size {
    sent: usize,
    gzip: usize,
    prefix: usize,
}

/// Sends bodies one after the other, and measures beside it.
fn sizes(bodies: &[Vec<u8>]) -> Vec<Size> {
    let (mut encoder, mut decoder) = ends();
    let mut last: &[u8] = &[];
    let mut sizes = Vec::new();
    for body in bodies {
        let message = encoder.encode(body, decoder.base()).unwrap();
        assert_eq!(decoder.decode(&message).unwrap(), body);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
        gzip.write_all(body).unwrap();
        sizes.push(Size {
            sent: message.len(),
            gzip: gzip.finish().unwrap().len(),
            prefix: zstd_with_prefix(body, last),
        });
        last = body;
    }
    sizes
}

fn sums(sizes: &[Size]) -> (usize, usize) {
    sizes
        .iter()
        .fold((0, 0), |(sent, gzip), size| (sent + size.sent, gzip + size.gzip))
}

fn zstd_with_prefix(body: &[u8], prefix: &[u8]) -> usize {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(9)).unwrap();
    context.set_parameter(CParameter::WindowLog(20)).unwrap();
    context.ref_prefix(prefix).unwrap();
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
    context.compress2(&mut out, body).unwrap()
}

fn ends() -> (Encoder, Decoder) {
    (Encoder::new(Limits::default()), Decoder::new(Limits::default()))
}

/// A metric: its name and labels, and how its values look.
#[derive(Debug, Clone)]
struct Metric {
    name: String,
    value: f64,
    style: u8,
    step: f64,
}

impl Metric {
    fn line(&self, now: u64) -> String {
        let Self { name, value, style, .. } = self;
        match style % 7 {
            0 => format!("{name} {}", value.trunc()),
            1 => format!("{name} {value:?}"),
            2 => format!("{name} {value:e}"),
            3 => format!("{name} {value:.3} {now}"),
            4 => format!("{name} {} # {{trace_id=\"{now}\"}} 0.5 {now}.125", value.trunc()),
            5 => format!("# HELP {name} Of {value} things."),
            _ => format!(
                "{name} {}",
                ["NaN", "+Inf", "-Inf", "0", "1e+06"][(value.abs() as usize) % 5]
            ),
        }
    }
}

fn metric() -> impl Strategy<Value = Metric> {
    let value = prop_oneof![
        Just(0.0),
        -10.0..10.0,
        -1e6..1e6,
        0.0..1e17,
        Just(f64::NAN),
        Just(f64::INFINITY),
        any::<f64>()
    ];
    let step = prop_oneof![Just(0.0), Just(1.0), 0.0..0.1, -4096.0..1e6];
    ("[a-c]{1,3}(\\{x=\"[0-9 ]{0,3}\"\\})?", value, any::<u8>(), step).prop_map(|(name, value, style, step)| Metric {
        name,
        value,
        style,
        step,
    })
}

#[derive(Debug, Clone)]
enum Change {
    Drift,
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, Metric),
    Swap(prop::sample::Index, prop::sample::Index),
    Lose,
    Forget,
    LineEnd(&'static str),
    Splice(prop::sample::Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Change::Drift),
        1 => index().prop_map(Change::Remove),
        1 => (index(), metric()).prop_map(|(at, metric)| Change::Insert(at, metric)),
        1 => (index(), index()).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => Just(Change::Lose),
        1 => Just(Change::Forget),
        1 => prop::sample::select(vec!["\n", "\r\n", " \n", ""]).prop_map(Change::LineEnd),
        1 => (index(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(at, bytes)| Change::Splice(at, bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_body_comes_out_byte_by_byte(
        mut metrics in prop::collection::vec(metric(), 0..30),
        changes in prop::collection::vec(change(), 1..20),
    ) {
        let (mut encoder, mut decoder) = ends();
        let mut end = "\n";
        for (at, change) in changes.into_iter().enumerate() {
            let (mut arrives, mut splice) = (true, None);
            match change {
                Change::Drift => metrics.iter_mut().for_each(|metric| metric.value += metric.step),
                Change::Remove(at) if !metrics.is_empty() => drop(metrics.remove(at.index(metrics.len()))),
                Change::Insert(at, metric) => metrics.insert(at.index(metrics.len() + 1), metric),
                Change::Swap(a, b) if !metrics.is_empty() => {
                    let (a, b) = (a.index(metrics.len()), b.index(metrics.len()));
                    metrics.swap(a, b);
                }
                Change::Lose => arrives = false,
                Change::Forget => decoder = Decoder::new(Limits::default()),
                Change::LineEnd(other) => end = other,
                Change::Splice(at, bytes) => splice = Some((at, bytes)),
                Change::Remove(_) | Change::Swap(..) => {}
            }
            let now = 1_790_000_000_000 + 15_000 * at as u64;
            let mut body: Vec<u8> = metrics.iter().map(|metric| metric.line(now) + end).collect::<String>().into();
            if let Some((at, bytes)) = splice {
                let at = at.index(body.len() + 1);
                body.splice(at..at, bytes);
            }
            let message = encoder.encode(&body, decoder.base()).unwrap();
            prop_assert!(message.len() <= body.len() + 5);
            if arrives {
                prop_assert_eq!(decoder.decode(&message).unwrap(), body);
            }
        }
    }

    /// B2, B17
    #[test]
    fn no_flipped_bit_passes(bits in prop::collection::vec(any::<prop::sample::Index>(), 1..6), inserted in any::<bool>()) {
        let (mut encoder, mut decoder) = ends();
        let mut body = b"# HELP a Help.\na{b=\"c\"} 1\na{b=\"d\"} 20000\ne 1.5e+07 1790000000000\n".repeat(5);
        decoder.decode(&encoder.encode(&body, None).unwrap()).unwrap();
        if inserted {
            body.extend_from_slice(b"f 77777\n");
        }
        let body = String::from_utf8(body).unwrap().replace(" 2", " 7").replace("1.5", "1.25").replace(" 1", " NaN");
        let message = encoder.encode(body.as_bytes(), decoder.base()).unwrap();
        let mut flipped = message.clone();
        for bit in bits {
            let bit = bit.index(flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        let base = decoder.base();
        match decoder.decode(&flipped) {
            // Two flips may undo each other, and bits behind the last number are never read.
            Ok(read) => prop_assert_eq!(read, body.into_bytes()),
            Err(_) => prop_assert_eq!(decoder.base(), base),
        }
    }
}
