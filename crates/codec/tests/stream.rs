//! Both ends of a compressed stream together.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use bytes::BytesMut;
use proptest::prelude::*;
use support::Noise;
use tunnel_codec::stream::{
    DECODER_MEMORY, DecodeError, Decoder, ENCODER_MEMORY, Encoder, HEADER, MAX_BLOCK, MAX_RATIO,
};
use zstd_safe::{CCtx, CParameter};

#[test]
fn ends_may_move_between_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Encoder>();
    assert_send::<Decoder>();
}

#[test]
fn what_repeats_over_an_hour_shrinks_as_a_whole() {
    let mut encoder = Encoder::default();
    let mut decoder = Decoder::default();
    let mut noise = Noise(7);
    let (mut before, mut after) = (0, 0);
    for event in 0..500 {
        let text = format!(
            "{{\"type\":\"MODIFIED\",\"object\":{{\"kind\":\"Pod\",\"metadata\":{{\"name\":\"web-{}\",\"resourceVersion\":\"{}\"}}}}}}\n",
            noise.below(20),
            10_000 + event
        );
        let wire = send(&mut encoder, text.as_bytes());
        assert_eq!(receive(&mut decoder, &wire).unwrap(), text.as_bytes());
        before += text.len();
        after += wire.len();
    }
    assert!(after * 3 < before, "{before} became {after}");
}

#[test]
fn noise_costs_a_header_for_each_block_and_a_few_probes() {
    let mut encoder = Encoder::default();
    let noise = Noise(3).bytes(16 << 20);
    let mut wire = BytesMut::new();
    encoder.write(&noise, &mut wire);
    encoder.flush(&mut wire);
    let blocks = noise.len() / MAX_BLOCK;
    let more = wire.len() - noise.len();
    assert!(more <= blocks * HEADER + 6 * 16, "{more} for {blocks} blocks");
    assert_eq!(receive(&mut Decoder::default(), &wire).unwrap(), noise);
}

#[test]
fn noise_in_the_pieces_of_an_ssh_session_soon_costs_a_header_each() {
    let mut encoder = Encoder::default();
    let mut noise = Noise(4);
    let costs: Vec<usize> = (0..200)
        .map(|_| send(&mut encoder, &noise.bytes(60)).len() - 60)
        .collect();
    assert!(costs[..50].iter().all(|&cost| cost <= 16), "{costs:?}");
    assert!(costs[50..].iter().all(|&cost| cost == HEADER), "{costs:?}");
}

#[test]
fn text_among_noise_is_compressed() {
    let mut encoder = Encoder::default();
    let mut wire = BytesMut::new();
    encoder.write(&Noise(5).bytes(1 << 20), &mut wire);
    encoder.flush(&mut wire);
    let text = "a line of a log that is like all the others\n".repeat(1000);
    assert!(send(&mut encoder, text.as_bytes()).len() * 20 < text.len());
}

/// Zeros are legal, however many. B17
#[test]
fn nothing_is_compressed_by_more_than_the_decoder_takes() {
    let zeros = vec![0; 4 << 20];
    let wire = send(&mut Encoder::default(), &zeros);
    assert!(wire.len() * MAX_RATIO >= zeros.len());
    assert!(wire.len() < zeros.len() / 400, "{}", wire.len());
    assert_eq!(receive(&mut Decoder::default(), &wire).unwrap(), zeros);
}

/// B17
#[test]
fn a_bomb_is_refused_before_memory_is_spent() {
    for megabytes in [1, 64] {
        let frame = zstd_frame(&vec![0; megabytes << 20], 16);
        assert!(frame.len() * 1000 < megabytes << 20);
        let mut decoder = Decoder::default();
        decoder.push(&block(&frame));
        assert_eq!(decoder.next_block(), Err(DecodeError::TooLarge));
        assert_eq!(decoder.next_block(), Err(DecodeError::TooLarge), "an error stays");
        assert!(decoder.memory() < 1024);
    }
}

/// B17
#[test]
fn a_block_of_a_hundred_bytes_may_not_become_a_whole_one() {
    let mut frame = zstd_frame(&[0; MAX_BLOCK], 16);
    frame.truncate(100);
    let mut decoder = Decoder::default();
    decoder.push(&block(&frame));
    assert_eq!(decoder.next_block(), Err(DecodeError::TooLarge));
}

#[test]
fn a_window_beyond_ours_is_refused() {
    let mut frame = zstd_frame(&Noise(6).bytes(1 << 20), 27);
    frame.truncate(1000);
    let mut decoder = Decoder::default();
    decoder.push(&block(&frame));
    assert_eq!(decoder.next_block(), Err(DecodeError::Window));
}

#[test]
fn headers_that_no_encoder_writes_are_refused() {
    for header in [
        [0, 0, 0],
        [0x80, 0, 0],
        [0, 0xff, 0xff],
        [1, 0, 1],
        [0x81, 1, 1],
        [0x40, 0, 1],
    ] {
        let mut decoder = Decoder::default();
        decoder.push(&header);
        let read = decoder.next_block();
        match header {
            // As long as a block may be, so that it waits for the rest.
            [0, 0xff, 0xff] => assert_eq!(read, Ok(None)),
            _ => assert_eq!(read, Err(DecodeError::Header), "{header:?}"),
        }
    }
}

#[test]
fn what_is_no_piece_of_the_frame_is_refused() {
    let text = "text ".repeat(100);
    let whole = zstd_frame(text.as_bytes(), 16);
    for wrong in [&b"not a frame"[..], &whole, &[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7]] {
        let mut decoder = Decoder::default();
        decoder.push(&block(wrong));
        assert_eq!(decoder.next_block(), Err(DecodeError::Zstd));
    }
}

#[test]
fn a_stream_that_ends_within_a_block_is_cut_and_not_ended() {
    let mut encoder = Encoder::default();
    let wire = [
        send(&mut encoder, b"hello hello hello"),
        send(&mut encoder, b"again hello hello"),
    ]
    .concat();
    let mut whole_at = 0;
    for end in 0..=wire.len() {
        let mut decoder = Decoder::default();
        decoder.push(&wire[..end]);
        while decoder.next_block().unwrap().is_some() {}
        match decoder.finish() {
            Ok(()) => whole_at += 1,
            Err(error) => assert_eq!(error, DecodeError::Truncated),
        }
    }
    assert_eq!(whole_at, 3, "before, between and behind the two blocks");
}

#[test]
fn memory_stays_below_what_is_said() {
    let mut encoder = Encoder::default();
    let mut decoder = Decoder::default();
    assert!(encoder.memory() < 1024 && decoder.memory() < 1024);
    let mut noise = Noise(8);
    let mut most = (0, 0);
    for _ in 0..40 {
        let text: Vec<u8> = noise
            .bytes(100_000)
            .iter()
            .map(|byte| b"0123456789abcdef"[usize::from(byte & 15)])
            .collect();
        let mut wire = BytesMut::new();
        encoder.write(&text, &mut wire);
        most.0 = most.0.max(encoder.memory());
        encoder.flush(&mut wire);
        for piece in wire.chunks(16_384) {
            decoder.push(piece);
            while decoder.next_block().unwrap().is_some() {}
            most.1 = most.1.max(decoder.memory());
        }
    }
    assert!(most.0 <= ENCODER_MEMORY, "encoder {}", most.0);
    assert!(most.1 <= DECODER_MEMORY, "decoder {}", most.1);
}

#[derive(Debug, Clone)]
enum Step {
    Text(usize),
    Noise(usize),
    Zeros(usize),
    Bytes(Vec<u8>),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = || prop_oneof![4 => 0..300_usize, 1 => 0..200_000_usize, 1 => 65_400..65_700_usize];
    let step = prop_oneof![
        3 => len().prop_map(Step::Text),
        2 => len().prop_map(Step::Noise),
        1 => len().prop_map(Step::Zeros),
        1 => prop::collection::vec(any::<u8>(), 0..50).prop_map(Step::Bytes),
        4 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_that_was_flushed_can_be_read_however_it_was_cut(
        steps in steps(),
        seed in any::<u64>(),
        piece in prop_oneof![1..50_usize, 50..100_000_usize],
    ) {
        let mut noise = Noise(seed);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let (mut written, mut read) = (Vec::new(), Vec::new());
        let mut wire = BytesMut::new();
        for step in steps.into_iter().chain([Step::Flush]) {
            let bytes = match step {
                Step::Text(len) => noise.bytes(len).iter().map(|byte| b"etaoin shrdlu\n"[usize::from(byte % 14)]).collect(),
                Step::Noise(len) => noise.bytes(len),
                Step::Zeros(len) => vec![0; len],
                Step::Bytes(bytes) => bytes,
                Step::Flush => {
                    encoder.flush(&mut wire);
                    for chunk in wire.split().chunks(piece) {
                        decoder.push(chunk);
                        while let Some(block) = decoder.next_block().unwrap() {
                            prop_assert!(!block.is_empty() && block.len() <= MAX_BLOCK);
                            read.extend_from_slice(&block);
                        }
                    }
                    prop_assert!(read == written, "{} of {} bytes", read.len(), written.len());
                    continue;
                }
            };
            encoder.write(&bytes, &mut wire);
            written.extend_from_slice(&bytes);
        }
        prop_assert_eq!(decoder.finish(), Ok(()));
    }

    /// B2, B17
    #[test]
    fn no_flipped_bit_breaks_a_limit(bits in prop::collection::vec(any::<prop::sample::Index>(), 1..8), seed in any::<u64>()) {
        let mut noise = Noise(seed);
        let mut encoder = Encoder::default();
        let mut wire = Vec::new();
        for _ in 0..8 {
            let len = noise.below(3000) as usize;
            let text: Vec<u8> = noise.bytes(len).iter().map(|byte| byte & 7).collect();
            wire.extend(send(&mut encoder, &text));
        }
        for bit in bits {
            let bit = bit.index(wire.len() * 8);
            wire[bit / 8] ^= 1 << (bit % 8);
        }
        let mut decoder = Decoder::default();
        decoder.push(&wire);
        let mut read = 0;
        while let Ok(Some(block)) = decoder.next_block() {
            prop_assert!(block.len() <= MAX_BLOCK);
            read += block.len();
        }
        prop_assert!(read <= wire.len() * MAX_RATIO);
        prop_assert!(decoder.memory() <= DECODER_MEMORY);
    }
}

fn send(encoder: &mut Encoder, bytes: &[u8]) -> Vec<u8> {
    let mut wire = BytesMut::new();
    encoder.write(bytes, &mut wire);
    encoder.flush(&mut wire);
    wire.to_vec()
}

fn receive(decoder: &mut Decoder, wire: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut read = Vec::new();
    for piece in wire.chunks(1400) {
        decoder.push(piece);
        while let Some(block) = decoder.next_block()? {
            read.extend_from_slice(&block);
        }
    }
    Ok(read)
}

/// A whole zstd frame with this window.
fn zstd_frame(content: &[u8], window_log: u32) -> Vec<u8> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::WindowLog(window_log)).unwrap();
    context.set_parameter(CParameter::ContentSizeFlag(false)).unwrap();
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    // Without a known size zstd keeps the window that it was told.
    let mut input = zstd_safe::InBuffer::around(content);
    let mut output = zstd_safe::OutBuffer::around(&mut frame);
    let end = zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_continue;
    context.compress_stream2(&mut output, &mut input, end).unwrap();
    let end = zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_end;
    assert_eq!(context.compress_stream2(&mut output, &mut input, end), Ok(0));
    frame
}

/// A zstd block with this payload.
fn block(payload: &[u8]) -> Vec<u8> {
    let header = (1 << 23 | payload.len() as u32).to_be_bytes();
    [&header[1..], payload].concat()
}
