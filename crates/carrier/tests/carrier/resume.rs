use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tunnel_carrier::{Stream, relay};
use tunnel_model::{Reason, Refusal};

use crate::cluster::{Pair, connect, hash, noise, open, soon};

/// N1, N5: a large transfer both ways, over ten connections, each cut in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_both_ways_goes_on_over_ten_connections() {
    const PIECE: usize = 3_000_000;
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let (up, down) = (noise(PIECE * 10), noise(PIECE * 10 + 1));
    let (up_hash, down_hash) = (hash(&up), hash(&down));
    let exchange = |stream: Stream, send: Vec<u8>| async move {
        let (mut read, mut write) = split(stream);
        let sending = async move {
            for piece in send.chunks(10_000) {
                write.write_all(piece).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(sending, read.read_to_end(&mut received));
        read.unwrap();
        hash(&received)
    };
    let near = tokio::spawn(exchange(near, up));
    let far = tokio::spawn(exchange(far, down));
    for _ in 0..10 {
        // Some of it passes over each.
        let before = pair.gateway.tunnel.status().unwrap().received_bytes;
        soon("traffic", async {
            while pair.gateway.tunnel.status().unwrap().received_bytes < before + 500_000 && !near.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        pair.cut().await;
        pair.next_carrier().await;
    }
    assert_eq!(soon("the end here", near).await.unwrap(), down_hash);
    assert_eq!(soon("the end there", far).await.unwrap(), up_hash);
}

/// The driver of before still runs for a moment beside its successor, and must not take what is meant for that.
#[tokio::test]
async fn a_new_connection_takes_over_from_one_that_still_lives() {
    let mut pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    for _ in 0..50 {
        near.write_all(b"before").await.unwrap();
        soon("the next connection", pair.next_carrier()).await;
        soon("room", near.write_all(b" and after")).await.unwrap();
        let mut read = [0; 16];
        soon("the data", far.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, b"before and after");
    }
}

/// N7. So often, because what the driver of the carrier before can take away from the next one is a matter of luck.
#[tokio::test]
async fn n7_a_stream_goes_on_by_tls_and_by_quic_again_and_again() {
    let mut pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    for round in 0..16 {
        if round % 2 == 0 {
            pair.next_carrier_by_tls().await;
        } else {
            pair.next_carrier().await;
        }
        soon("the data", both_ways(&mut near, &mut far, 300_000 + round)).await;
        // A stream that is opened on either kind is as good as any.
        let (mut one, mut other) = pair.stream().await;
        one.write_all(b"new").await.unwrap();
        one.shutdown().await.unwrap();
        let mut all = Vec::new();
        soon("the new stream", other.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all, b"new");
    }
}

/// What was written last is delivered although both ends have let go of the stream.
#[tokio::test]
async fn what_was_written_and_ended_before_the_cut_arrives_after_it() {
    let mut pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    far.shutdown().await.unwrap();
    let mut nothing = Vec::new();
    near.read_to_end(&mut nothing).await.unwrap();
    pair.cut().await;
    // There is no connection: it is kept.
    let (mut read, mut write) = split(near);
    let writing = tokio::spawn(async move {
        write.write_all(b"the last words").await.unwrap();
        write.shutdown().await.unwrap();
    });
    pair.next_carrier().await;
    soon("writing", writing).await.unwrap();
    let mut received = Vec::new();
    soon("the data", far.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"the last words");
    read.read_to_end(&mut nothing).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_opened_while_there_is_no_connection_is_refused_at_once() {
    let mut pair = Pair::new().await;
    pair.cut().await;
    let refused = soon("the refusal", connect(&pair.gateway.tunnel, &open("port:22"))).await;
    assert_eq!(refused.unwrap_err().reason, Reason::CarrierLost);
    pair.next_carrier().await;
    pair.stream().await;
}

#[tokio::test]
async fn a_reset_while_there_is_no_connection_is_heard_on_the_next_one() {
    let mut pair = Pair::new().await;
    let (near, mut far) = pair.stream().await;
    pair.cut().await;
    near.reset(&Refusal::new(Reason::Denied, "the right was withdrawn"));
    pair.next_carrier().await;
    let error = soon("the reset", far.read_u8()).await.unwrap_err();
    let refusal = error.get_ref().unwrap().downcast_ref::<Refusal>().unwrap();
    assert_eq!(
        (refusal.reason, refusal.message.as_str()),
        (Reason::Denied, "the right was withdrawn")
    );
}

#[tokio::test]
async fn a_session_that_is_closed_while_there_is_no_connection_breaks_its_streams() {
    let mut pair = Pair::new().await;
    let (mut near, _far) = pair.stream().await;
    pair.cut().await;
    let why = Refusal::new(Reason::Revoked, "it was revoked");
    pair.gateway.tunnel.close(&why);
    let error = soon("the end", near.read_u8()).await.unwrap_err();
    assert_eq!(error.get_ref().unwrap().downcast_ref::<Refusal>(), Some(&why));
    assert_eq!(pair.gateway.tunnel.over(), Some(why));
}

/// Sockets on both sides of it notice nothing but time.
#[tokio::test]
async fn a_relay_goes_on_over_another_connection() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let (mut local, relayed) = tokio::io::duplex(1024);
    let near = tokio::spawn(async move {
        let mut relayed = relayed;
        relay(&mut relayed, near).await
    });
    let (mut echoed, relayed) = tokio::io::duplex(1024);
    let far = tokio::spawn(async move {
        let mut relayed = relayed;
        relay(&mut relayed, far).await
    });
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = split(&mut echoed);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    for round in 0..5 {
        local.write_all(&[round; 5000]).await.unwrap_or(());
        let mut read = [0; 5000];
        soon("the echo", local.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, [round; 5000]);
        pair.cut().await;
        pair.next_carrier().await;
    }
    local.shutdown().await.unwrap();
    soon("the echo", echo).await.unwrap();
    assert_eq!(soon("the near end", near).await.unwrap().end, Ok(()));
    assert_eq!(soon("the far end", far).await.unwrap().end, Ok(()));
}

/// Sends so much each way at once, and compares it.
pub(crate) async fn both_ways(near: &mut Stream, far: &mut Stream, size: usize) {
    let (there, back) = (noise(size), noise(size));
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) = (split(near), split(far));
    let (mut came_there, mut came_back) = (vec![0; size], vec![0; size]);
    tokio::try_join!(
        near_write.write_all(&there),
        far_write.write_all(&back),
        async { far_read.read_exact(&mut came_there).await.map(drop) },
        async { near_read.read_exact(&mut came_back).await.map(drop) },
    )
    .unwrap();
    assert!(came_there == there && came_back == back);
}
