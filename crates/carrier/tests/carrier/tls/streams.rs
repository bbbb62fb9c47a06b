use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};
use tunnel_carrier::tls::{Connection, Limits, ReadError, RecvStream, SendStream, WriteError};
use tunnel_model::{Reason, Refusal};

use super::{Pair, Relay, read, read_to_end};
use crate::cluster::{hash, noise, soon};

/// Sends back what comes until it ends.
async fn echo(mut send: SendStream, mut recv: RecvStream) {
    let mut chunks = [const { Bytes::new() }; 16];
    while let Some(count) = recv.read_chunks(&mut chunks).await.unwrap() {
        send.write_all_chunks(&mut chunks[..count]).await.unwrap();
    }
    send.finish().unwrap();
}

async fn echo_all(connection: Connection) {
    let mut streams = JoinSet::new();
    while let Ok((send, recv)) = connection.accept_bi().await {
        streams.spawn(echo(send, recv));
    }
}

#[tokio::test]
async fn many_mebibytes_come_back_whole() {
    let pair = Pair::new().await;
    tokio::spawn(echo_all(pair.edge.clone()));
    let (mut send, mut recv) = pair.gateway.open_bi().await.unwrap();
    let data = noise(20 * 1024 * 1024 + 7);
    let (_, back) = tokio::join!(
        async {
            for part in data.chunks(100_000) {
                send.write_chunk(Bytes::copy_from_slice(part)).await.unwrap();
            }
            send.finish().unwrap();
        },
        read_to_end(&mut recv)
    );
    assert_eq!(hash(&back), hash(&data));
}

/// More than may be open at once, and more than yamux opens without the peer's word, from both ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_streams_come_and_go_both_ways() {
    let pair = Pair::new().await;
    let mut asking = JoinSet::new();
    for (asker, answerer) in [(&pair.gateway, &pair.edge), (&pair.edge, &pair.gateway)] {
        tokio::spawn(echo_all(answerer.clone()));
        for i in 0..3000_usize {
            let connection = asker.clone();
            asking.spawn(async move {
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                let question = noise(i % 1000);
                send.write_all(&question).await.unwrap();
                send.finish().unwrap();
                assert_eq!(read_to_end(&mut recv).await, question);
            });
        }
    }
    let all = async {
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
    };
    timeout(Duration::from_secs(60), all).await.expect("6,000 answers");
}

#[tokio::test]
async fn as_many_streams_as_the_peer_allows_are_open_and_the_next_waits_for_an_end() {
    let pair = Pair::new().await;
    let mut open = Vec::new();
    for _ in 0..Limits::gateway().max_streams {
        let (mut send, recv) = soon("room", pair.edge.open_bi()).await.unwrap();
        send.write_all(b"x").await.unwrap();
        let accepted = soon("the stream", pair.gateway.accept_bi()).await.unwrap();
        open.push((send, recv, accepted));
    }
    let mut next = std::pin::pin!(pair.edge.open_bi());
    assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
    open.pop();
    soon("room again", next).await.unwrap();
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    near.0.write_all(b"question").await.unwrap();
    near.0.finish().unwrap();
    assert_eq!(read_to_end(&mut far.1).await, b"question");
    assert_eq!(near.0.write_all(b"more").await, Err(WriteError::ClosedStream));
    assert_eq!(soon("the end's way out", near.0.stopped()).await, Ok(None));
    let answer = noise(3_000_000);
    let (_, read) = tokio::join!(
        async {
            far.0.write_all(&answer).await.unwrap();
            far.0.finish().unwrap();
        },
        read_to_end(&mut near.1)
    );
    assert_eq!(hash(&read), hash(&answer));
}

#[tokio::test]
async fn a_stream_without_data_opens_and_ends() {
    let pair = Pair::new().await;
    let (mut send, _recv) = pair.edge.open_bi().await.unwrap();
    send.finish().unwrap();
    let (_send, mut recv) = soon("the stream", pair.gateway.accept_bi()).await.unwrap();
    assert_eq!(read_to_end(&mut recv).await, b"");
}

#[tokio::test]
async fn a_reset_reaches_the_reader_with_its_reason_and_not_as_an_end() {
    let pair = Pair::new().await;
    for reason in [Reason::TargetReset, Reason::Cancelled, Reason::Overloaded] {
        let (mut near, mut far) = pair.stream().await;
        near.0.write_all(&noise(100_000)).await.unwrap();
        near.0.reset(reason);
        let why = loop {
            match soon("the reset", far.1.read_chunk(usize::MAX)).await {
                Ok(chunk) => assert!(chunk.is_some(), "a reset looked like an end"),
                Err(why) => break why,
            }
        };
        assert_eq!(why, ReadError::Reset(reason));
        // The other direction does not know of it.
        far.0.write_all(b"still here").await.unwrap();
        assert_eq!(read(&mut near.1, 10).await, b"still here");
    }
}

#[tokio::test]
async fn a_sender_that_is_dropped_before_its_end_does_not_look_finished() {
    let pair = Pair::new().await;
    let (near, mut far) = pair.stream().await;
    drop(near.0);
    let why = soon("the reset", far.1.read_chunk(1)).await.unwrap_err();
    assert_eq!(why, ReadError::Reset(Reason::Cancelled));
}

#[tokio::test]
async fn a_reader_that_stops_tells_the_writer_why() {
    let pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    far.1.stop(Reason::TargetRefused);
    assert_eq!(
        soon("the news", near.0.stopped()).await,
        Ok(Some(Reason::TargetRefused))
    );
    let written = near.0.write_all(b"x").await;
    assert_eq!(written, Err(WriteError::Stopped(Reason::TargetRefused)));
    assert_eq!(far.1.read_chunk(1).await, Err(ReadError::ClosedStream));
    // One that waits for room hears it too.
    let (mut near, far) = pair.stream().await;
    let writing = tokio::spawn(async move { near.0.write_all(&noise(5_000_000)).await });
    drop(far.1);
    let written = soon("the end of writing", writing).await.unwrap();
    assert_eq!(written, Err(WriteError::Stopped(Reason::Cancelled)));
}

#[tokio::test]
async fn the_reason_for_closing_reaches_the_peer_and_everybody_who_waits() {
    let pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    let revoked = Refusal::new(Reason::Revoked, "edge1 was revoked");
    let reading = tokio::spawn(async move { far.1.read_chunk(1).await });
    let opening = tokio::spawn({
        let edge = pair.edge.clone();
        async move { edge.accept_bi().await.map(drop) }
    });
    assert_eq!(pair.edge.close_reason(), None);
    // With much before it.
    near.0.write_all(&noise(60_000)).await.unwrap();
    pair.gateway.close(&revoked);
    assert_eq!(soon("the farewell", pair.edge.closed()).await, revoked);
    assert_eq!(pair.edge.close_reason(), Some(revoked.clone()));
    assert_eq!(
        soon("an end of accepting", opening).await.unwrap(),
        Err(revoked.clone())
    );
    assert_eq!(pair.edge.open_bi().await.map(drop), Err(revoked.clone()));
    assert_eq!(pair.gateway.open_bi().await.map(drop), Err(revoked.clone()));
    assert_eq!(
        near.1.read_chunk(1).await,
        Err(ReadError::ConnectionLost(revoked.clone()))
    );
    match soon("an end of reading", reading).await.unwrap() {
        Ok(chunk) => assert!(chunk.is_some(), "a cut looked like an end"),
        Err(why) => assert_eq!(why, ReadError::ConnectionLost(revoked.clone())),
    }
    assert_eq!(
        soon("an error", far.0.write_all(b"x")).await,
        Err(WriteError::ConnectionLost(revoked))
    );
}

#[tokio::test]
async fn a_connection_that_nobody_holds_ends() {
    let Pair { edge, gateway, .. } = Pair::new().await;
    drop(edge);
    assert_eq!(soon("the farewell", gateway.closed()).await.reason, Reason::Cancelled);
}

/// A cut that nobody announced.
#[tokio::test]
async fn n9_a_cut_connection_is_no_end_of_its_streams() {
    let (pair, relay) = relayed(&Limits::gateway()).await;
    let (mut near, _far) = pair.stream().await;
    drop(relay);
    let why = soon("a break", near.1.read_chunk(1)).await.unwrap_err();
    assert!(
        matches!(&why, ReadError::ConnectionLost(why) if why.reason == Reason::CarrierLost),
        "{why}"
    );
    assert_eq!(
        soon("the verdict", pair.edge.closed()).await.reason,
        Reason::CarrierLost
    );
}

/// N2
#[tokio::test]
async fn n2_a_peer_that_vanished_is_found_within_the_idle_time() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(500),
        ..Limits::gateway()
    };
    let (pair, relay) = relayed(&limits).await;
    relay.hold();
    let why = soon("the verdict", pair.gateway.closed()).await;
    assert_eq!(why.reason, Reason::IdleTimeout);
}

/// The link takes nothing any more, and much was written already.
#[tokio::test]
async fn a_stream_of_higher_priority_overtakes_what_waits() {
    let (pair, relay) = relayed(&Limits::gateway()).await;
    let (mut bulk, _bulk_end) = pair.stream().await;
    let (mut keys, mut keys_end) = pair.stream().await;
    keys.0.set_priority(10);
    relay.hold();
    // Until no more of it goes anywhere.
    let mut written = 0;
    let chunk = noise(16 * 1024);
    while let Ok(more) = timeout(STUCK, bulk.0.write_all(&chunk)).await {
        more.unwrap();
        written += chunk.len();
    }
    keys.0.write_all(b"k").await.unwrap();
    let mut passed = 0;
    let mut key = std::pin::pin!(keys_end.1.read_chunk(1));
    while timeout(STUCK, key.as_mut()).await.is_err() {
        relay.pass(1024);
        passed += 1024;
    }
    // What the kernel held, and one record or two.
    assert!(passed <= 96 * 1024, "{passed} bytes came first");
    assert!(passed < written, "{passed} of {written}");
}

/// How long nothing happens when nothing is going to.
const STUCK: Duration = Duration::from_millis(50);

async fn relayed(gateway: &Limits) -> (Pair, Relay) {
    let relay = std::cell::OnceCell::new();
    let pair = Pair::through(&Limits::edge(), gateway, async |server| {
        let started = Relay::start(server);
        let address = started.address;
        relay.set(started).unwrap();
        address
    })
    .await;
    (pair, relay.into_inner().unwrap())
}

#[tokio::test]
async fn a_connection_knows_its_peer_its_round_trip_and_its_bytes() {
    let pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    near.0.write_all(&noise(50_000)).await.unwrap();
    read(&mut far.1, 50_000).await;
    assert!(pair.gateway.stats().sent_bytes > 50_000);
    assert!(pair.edge.stats().received_bytes > 50_000);
    assert!(pair.edge.rtt().unwrap() < Duration::from_secs(1));
    assert!(!pair.gateway.peer_chain().is_empty() && !pair.edge.peer_chain().is_empty());
    assert!(pair.gateway.channel_binding() == pair.edge.channel_binding());
    pair.edge.close(&Refusal::new(Reason::Cancelled, "done"));
    soon("the farewell", pair.gateway.closed()).await;
}
