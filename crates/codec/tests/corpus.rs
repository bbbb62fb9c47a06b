//! The fuzz targets of this crate as an ordinary test: `tests/fuzz/corpus/TARGET/` holds one file per entry, and every
//! truncation of every entry is fed too. An input that once broke a decoder is added there by hand; the entries that
//! [`entries`] makes are written anew with `TUNNEL_WRITE_CORPUS=1 cargo test -p tunnel-codec --test corpus`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../../../tests/fuzz/src/codec.rs"]
#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
mod fuzz_targets;
#[path = "../../../tests/fuzz/src/replay.rs"]
#[allow(unreachable_pub, reason = "the same for every crate")]
mod replay;

use std::fs;

use bytes::BytesMut;
use fuzz_targets::{BASE, TARGETS};
use replay::{folder, replay};
use tunnel_codec::scrape::{Decoder, Encoder, Limits};
use tunnel_codec::stream;

/// B2, B17
#[test]
fn no_target_falls_over_its_corpus_or_any_truncation_of_it() {
    replay(TARGETS, 4);
}

#[test]
fn the_corpus_holds_every_kind_of_message() {
    let write = std::env::var_os("TUNNEL_WRITE_CORPUS").is_some();
    for (target, name, bytes) in entries() {
        let file = folder(target).join(name);
        if write {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(fs::read(&file).ok(), Some(bytes), "{}", file.display());
    }
}

/// Target, file name, content.
fn entries() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let text = "GET / HTTP/1.1\r\nhost: web.edge1\r\n\r\n".repeat(3).into_bytes();
    let noise: Vec<u8> = (0..700_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let zeros = vec![0; 3000];
    let mut entries = Vec::new();
    let all = [text.clone(), noise.clone(), text.clone(), zeros.clone()];
    for (name, bursts) in [
        ("text", vec![text.clone(), text.clone()]),
        ("noise", vec![noise]),
        ("zeros", vec![zeros]),
        ("all", all.to_vec()),
    ] {
        let mut wire = BytesMut::new();
        let mut encoder = stream::Encoder::default();
        for burst in &bursts {
            encoder.write(burst, &mut wire);
            encoder.flush(&mut wire);
        }
        entries.push(("stream_blocks", name, [&[5], &wire[..]].concat()));
        entries.push(("stream_bytes", name, [&[1, 2], &bursts.concat()[..]].concat()));
    }

    let base = String::from_utf8(BASE.to_vec()).unwrap();
    let numbers = base
        .replace("4096", "8192")
        .replace("0.25", "0.5")
        .replace("1790000000000", "1790000015000");
    let words = base
        .replace("NaN", "7")
        .replace("0.25", "NaN")
        .replace("1.5e+07", "+Inf");
    let lines = base.replace("e 1.5", "e 2\ng 1\ne 1.5").replace("f NaN\n", "");
    for (name, body) in [("numbers", &numbers), ("words", &words), ("lines", &lines)] {
        let (mut encoder, mut decoder) = (Encoder::new(Limits::default()), Decoder::new(Limits::default()));
        decoder.decode(&encoder.encode(BASE, None).unwrap()).unwrap();
        let message = encoder.encode(body.as_bytes(), decoder.base()).unwrap();
        // As the target takes it: what it does not know of the header, it adds.
        entries.push(("scrape_message", name, [&message[..1], &message[9..]].concat()));
    }
    let message = Encoder::new(Limits::default())
        .encode(lines.repeat(3).as_bytes(), None)
        .unwrap();
    entries.push(("scrape_message", "whole", message));
    let prefix = [
        &[2, 12][..],
        &[0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x61, 0, 0],
        b"another body",
    ]
    .concat();
    entries.push(("scrape_message", "prefix", prefix));
    let separated = |bodies: &[&str]| {
        bodies
            .join("\u{1}")
            .into_bytes()
            .iter()
            .map(|b| if *b == 1 { 0xff } else { *b })
            .collect()
    };
    entries.push((
        "scrape_bodies",
        "numbers",
        separated(&[&base, &numbers, &numbers, &base, &numbers]),
    ));
    entries.push(("scrape_bodies", "words", separated(&[&base, &words, &base, &words])));
    entries.push(("scrape_bodies", "lines", separated(&[&base, &lines, &base, &lines, ""])));
    entries.push((
        "scrape_bodies",
        "crlf",
        separated(&["a 1\r\nb 2\r\n", "a 2\r\nb 2\r\n", "a 2\nb 3\n", "a 2"]),
    ));
    entries
}
