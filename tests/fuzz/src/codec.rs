//! What a peer compresses, and the bodies that a target behind an edge may give to be compressed.

use bytes::BytesMut;
use tunnel_codec::{scrape, stream};

/// A decoder's name and what to feed.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this module.
pub const TARGETS: &[Target] = &[
    ("stream_blocks", stream_blocks),
    ("stream_bytes", stream_bytes),
    ("scrape_message", scrape_message),
    ("scrape_bodies", scrape_bodies),
];

/// The body that a decoder has when a message arrives.
pub const BASE: &[u8] =
    b"# HELP a Things.\n# TYPE a counter\na{b=\"c\"} 4096\na{b=\"d\"} 0.25\ne 1.5e+07 1790000000000\nf NaN\n";

const LIMITS: scrape::Limits = scrape::Limits {
    max_body: 64 << 10,
    history: 2,
};

/// Blocks come out the same however the bytes were cut, and none is longer than allowed. The first byte chooses the size
/// of the pieces.
pub fn stream_blocks(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let whole = blocks_in(data, data.len().max(1));
    assert_eq!(whole, blocks_in(data, usize::from(piece).max(1)));
    let read: usize = whole.0.iter().map(Vec::len).sum();
    assert!(read <= data.len() * stream::MAX_RATIO);
}

fn blocks_in(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<stream::DecodeError>) {
    let mut decoder = stream::Decoder::default();
    let mut blocks = Vec::new();
    for chunk in data.chunks(piece) {
        decoder.push(chunk);
        loop {
            match decoder.next_block() {
                Ok(Some(block)) => {
                    assert!((1..=stream::MAX_BLOCK).contains(&block.len()));
                    blocks.push(block.to_vec());
                }
                Ok(None) => break,
                Err(error) => return (blocks, Some(error)),
            }
        }
        assert!(decoder.memory() <= stream::DECODER_MEMORY + data.len());
    }
    (blocks, decoder.finish().err())
}

/// Whatever is written is read. The first byte chooses the size of the bursts, the second how often it is all said again.
pub fn stream_bytes(data: &[u8]) {
    let [burst, repeats, data @ ..] = data else { return };
    let (mut encoder, mut decoder) = (stream::Encoder::default(), stream::Decoder::default());
    let mut wire = BytesMut::new();
    for _ in 0..=*repeats % 8 {
        for burst in data.chunks(usize::from(*burst) * 64 + 1) {
            encoder.write(burst, &mut wire);
            encoder.flush(&mut wire);
            decoder.push(&wire.split());
            let mut read = Vec::new();
            while let Ok(Some(block)) = decoder.next_block() {
                read.extend_from_slice(&block);
            }
            assert_eq!(read, burst);
        }
    }
    assert_eq!(decoder.finish(), Ok(()));
}

/// A message as it is, and with a header that names the decoder's base, which no fuzzer would guess. The first byte of the
/// second kind is the method.
pub fn scrape_message(data: &[u8]) {
    let mut decoder = scrape::Decoder::new(LIMITS);
    let Ok(first) = scrape::Encoder::new(LIMITS).encode(BASE, None) else {
        panic!("the body is small");
    };
    assert_eq!(decoder.decode(&first).as_deref(), Ok(BASE));
    let base = decoder.base();
    let mut named = Vec::new();
    if let (Some((method, rest)), Some(base)) = (data.split_first(), base) {
        named = [&[*method, 0, 0, 0, 0][..], &base.to_bytes()[..4], rest].concat();
    }
    for message in [data, &named] {
        match decoder.decode(message) {
            Ok(body) => assert!(body.len() <= LIMITS.max_body),
            Err(error) => assert!(!error.to_string().contains(char::is_control)),
        }
    }
}

/// Bodies, with 0xff between them, come out as they are, by what came before, and with every third lost.
pub fn scrape_bodies(data: &[u8]) {
    let (mut encoder, mut decoder) = (scrape::Encoder::new(LIMITS), scrape::Decoder::new(LIMITS));
    for (at, body) in data.split(|&byte| byte == 0xff).enumerate() {
        match encoder.encode(body, decoder.base()) {
            Ok(message) => {
                assert!(message.len() <= body.len() + 5);
                if at % 3 != 2 {
                    assert_eq!(decoder.decode(&message).as_deref(), Ok(body));
                }
            }
            Err(scrape::EncodeError::TooLarge { .. }) => assert!(body.len() > LIMITS.max_body),
        }
    }
}
