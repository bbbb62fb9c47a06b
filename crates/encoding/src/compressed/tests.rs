use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tunnel_model::Reason;

use super::*;

const ROOM: usize = 64 << 20;

#[tokio::test]
async fn what_is_written_at_once_can_be_read_at_once() {
    let (mut near, mut far) = pair(ROOM);
    for text in ["GET / HTTP/1.1\r\n\r\n", "x", "and another request"] {
        near.write_all(text.as_bytes()).await.unwrap();
        let mut read = vec![0; text.len()];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(read, text.as_bytes());
        far.write_all(&read).await.unwrap();
        near.read_exact(&mut read).await.unwrap();
    }
}

#[tokio::test]
async fn text_takes_less_of_the_wire_and_noise_hardly_more() {
    let text = "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 1234.5\n"
        .repeat(20_000)
        .into_bytes();
    assert!(through(ROOM, &text).await < text.len() / 20);
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    });
    let noise: Vec<u8> = noise.take(1 << 20).collect();
    assert!(through(ROOM, &noise).await < noise.len() + noise.len() / 100);
}

#[tokio::test]
async fn without_room_a_stream_goes_on_in_blocks_as_they_are() {
    let text = vec![b'x'; 1 << 20];
    let wire = through(0, &text).await;
    assert!(wire > text.len() && wire < text.len() + text.len() / 100, "{wire}");
}

#[tokio::test]
async fn room_comes_back_with_the_end_of_a_stream() {
    let budget = Budget::new(ENCODER_MEMORY + DECODER_MEMORY);
    let (near, far) = duplex(100);
    let first = Compressed::new(near, &budget);
    assert!(first.encoder.is_some() && !budget.has_room());
    assert!(Compressed::new(far, &budget).encoder.is_none());
    drop(first);
    assert!(budget.has_room());
}

/// B17
#[tokio::test]
async fn b17_what_is_no_block_breaks_the_stream_and_is_no_end() {
    for (what, said) in [
        ("a block of nothing", &[0, 0, 0][..]),
        ("a block that is too long", &[0x7f, 0xff, 0xff]),
        ("no frame", &[0x80, 0, 4, 1, 2, 3, 4]),
        ("a cut block", &[0, 0, 9, b'x']),
    ] {
        let (near, mut far) = duplex(100);
        far.write_all(said).await.unwrap();
        far.shutdown().await.unwrap();
        let mut near = Compressed::new(near, &Budget::new(ROOM));
        let error = near.read_to_end(&mut Vec::new()).await.expect_err(what);
        let refusal = error.into_inner().unwrap().downcast::<Refusal>().unwrap();
        assert_eq!(refusal.reason, Reason::Protocol, "{what}");
    }
}

#[tokio::test]
async fn a_target_and_its_stream_end_by_themselves() {
    let (mut caller, mut far) = pair(ROOM);
    let (mut target, mut server) = duplex(1 << 20);
    let relayed = async {
        let mut moved = Moved::default();
        (relay(&mut target, &mut far, &mut moved).await, moved)
    };
    let talk = async {
        caller.write_all(b"question").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        server
            .write_all(asked.replace("question", "answers").as_bytes())
            .await
            .unwrap();
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let ((end, moved), answer) = tokio::join!(relayed, talk);
    assert_eq!((end, answer.as_str()), (Ok(()), "answers"));
    assert_eq!((moved.from_target, moved.to_target), (7, 8));
}

fn pair(room: usize) -> (Compressed<tokio::io::DuplexStream>, Compressed<tokio::io::DuplexStream>) {
    let (near, far) = duplex(1 << 20);
    let budget = Budget::new(room);
    (Compressed::new(near, &budget), Compressed::new(far, &budget))
}

/// How many bytes the wire takes for these, which arrive as they were.
async fn through(room: usize, bytes: &[u8]) -> usize {
    let (near, mut far) = duplex(1 << 16);
    let mut near = Compressed::new(near, &Budget::new(room));
    let sending = async {
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
    };
    let mut wire = Vec::new();
    let (_, read) = tokio::join!(sending, far.read_to_end(&mut wire));
    let length = read.unwrap();
    let (back, mut again) = duplex(1 << 16);
    let mut back = Compressed::new(back, &Budget::new(room));
    let mut got = Vec::new();
    let sending = async {
        again.write_all(&wire).await.unwrap();
        again.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(sending, back.read_to_end(&mut got));
    read.unwrap();
    assert!(got == bytes);
    length
}
