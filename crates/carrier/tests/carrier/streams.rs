use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};
use tunnel_carrier::{
    Notice, Stream,
    quic::{Dialer, Limits},
};
use tunnel_identity::tls::Alpn;
use tunnel_model::{Reason, Refusal, Target};

use crate::cluster::{Cluster, PATIENCE, Pair, connect, hash, noise, open, soon};

#[tokio::test]
async fn the_edge_sees_what_was_asked_for_and_by_whom() {
    let mut pair = Pair::new().await;
    let open = open("service:ssh");
    let (opened, seen) = tokio::join!(connect(&pair.gateway.tunnel, &open), async {
        let incoming = pair.edge.incoming.recv().await.unwrap();
        let (seen, answer) = incoming.into_parts();
        (seen, answer.accept().await.unwrap())
    });
    opened.unwrap();
    assert_eq!(seen.0, open);
}

#[tokio::test]
async fn a_refusal_comes_with_its_reason_and_its_words() {
    let mut pair = Pair::new().await;
    let refusal = Refusal::new(Reason::NotAllowed, "edge1 does not allow 127.0.0.1:22");
    let open = open("port:22");
    let (opened, ()) = tokio::join!(connect(&pair.gateway.tunnel, &open), async {
        let (_, answer) = pair.edge.incoming.recv().await.unwrap().into_parts();
        answer.refuse(&refusal).await;
    });
    assert_eq!(opened.unwrap_err(), refusal);
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn what_is_written_before_the_answer_arrives_with_the_stream() {
    let mut pair = Pair::new().await;
    let mut near = pair.gateway.tunnel.open(&open("port:22"), PATIENCE).await.unwrap();
    near.write_all(b"early").await.unwrap();
    near.shutdown().await.unwrap();
    let mut far = pair.edge.accept().await;
    let mut heard = Vec::new();
    soon("the data", far.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"early");
    far.write_all(b"late").await.unwrap();
    far.shutdown().await.unwrap();
    heard.clear();
    soon("the answer", near.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"late");
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn the_first_read_of_a_refused_stream_says_why() {
    let mut pair = Pair::new().await;
    let refusal = Refusal::new(Reason::TargetRefused, "nothing listens there");
    let mut near = pair.gateway.tunnel.open(&open("port:22"), PATIENCE).await.unwrap();
    near.write_all(b"early").await.unwrap();
    let (_, answer) = pair.edge.incoming.recv().await.unwrap().into_parts();
    answer.refuse(&refusal).await;
    let error = soon("the refusal", near.read_u8()).await.unwrap_err();
    assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&refusal));
    drop(near);
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn a_stream_that_is_not_answered_in_time_is_given_up_at_both_ends() {
    let mut pair = Pair::new().await;
    let patience = Duration::from_millis(100);
    let mut near = pair.gateway.tunnel.open(&open("port:22"), patience).await.unwrap();
    let (refused, incoming) = soon("the end of patience", async {
        tokio::join!(near.established(), pair.edge.incoming.recv())
    })
    .await;
    assert_eq!(refused.unwrap_err().reason, Reason::TargetTimeout);
    let (_, mut answer) = incoming.unwrap().into_parts();
    soon("the news", answer.abandoned()).await;
    drop((near, answer));
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn an_offer_that_nobody_answers_is_refused() {
    let mut pair = Pair::new().await;
    let open = open("port:22");
    let (opened, ()) = tokio::join!(connect(&pair.gateway.tunnel, &open), async {
        drop(pair.edge.incoming.recv().await.unwrap());
    });
    assert_eq!(opened.unwrap_err().reason, Reason::Cancelled);
}

/// T2
#[tokio::test]
async fn t2_an_edge_names_services_and_never_destinations() {
    let mut pair = Pair::new().await;
    for target in ["port:22", "tcp:169.254.169.254:80", "tcp:db.internal:5432"] {
        let refusal = connect(&pair.edge.tunnel, &open(target)).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::Denied, "{target}");
    }
    let open = open("service:dns");
    let (opened, incoming) = tokio::join!(connect(&pair.edge.tunnel, &open), async {
        let (seen, answer) = pair.gateway.incoming.recv().await.unwrap().into_parts();
        (seen, answer.accept().await.unwrap())
    });
    opened.unwrap();
    // The only stream that came through is the one that names a service.
    assert_eq!(incoming.0.target, Target::Service("dns".parse().unwrap()));
}

#[tokio::test]
async fn ten_mebibytes_arrive_both_ways_as_they_were_sent() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let (there, back) = (noise(10 << 20), noise((10 << 20) + 1));
    let (near_got, far_got) = soon("20 MiB", async { tokio::join!(swap(near, &there), swap(far, &back)) }).await;
    assert_eq!(hash(&near_got), hash(&back));
    assert_eq!(hash(&far_got), hash(&there));
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let mut pair = Pair::new().await;
    for near_ends_first in [true, false] {
        let (near, far) = pair.stream().await;
        let (mut first, mut second) = if near_ends_first { (near, far) } else { (far, near) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut question = Vec::new();
        soon("the end", second.read_to_end(&mut question)).await.unwrap();
        assert_eq!(question, b"question");

        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon("the other end", first.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"answer");
    }
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn a_stream_that_is_dropped_breaks_and_never_ends() {
    let mut pair = Pair::new().await;
    for far_drops in [true, false] {
        let (near, far) = pair.stream().await;
        let (mut dropped, mut left) = if far_drops { (far, near) } else { (near, far) };
        dropped.write_all(b"half of it").await.unwrap();
        drop(dropped);
        let error = soon("a break", left.read_to_end(&mut Vec::new())).await.unwrap_err();
        assert_eq!(refusal_in(&error).reason, Reason::Cancelled);
    }
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn a_reset_says_why() {
    let mut pair = Pair::new().await;
    let (mut near, far) = pair.stream().await;
    far.reset(&Refusal::new(Reason::TargetReset, "the target went away"));
    let error = soon("a break", near.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(refusal_in(&error).reason, Reason::TargetReset);
}

/// N9: never a cut response that looks whole.
#[tokio::test]
async fn n9_a_connection_that_is_killed_breaks_its_streams_and_ends_none() {
    let mut pair = Pair::new().await;
    let (mut near, mut far) = pair.stream().await;
    far.write_all(&noise(100_000)).await.unwrap();
    near.read_exact(&mut [0; 1000]).await.unwrap();
    pair.edge.tunnel.close(&Refusal::new(Reason::Internal, "killed"));
    soon("a break", near.read_to_end(&mut Vec::new())).await.unwrap_err();
    let why = soon("the session's end", pair.gateway.driver).await.unwrap();
    assert_eq!(why, Refusal::new(Reason::Internal, "killed"));
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_the_dial_in_its_name() {
    let mut pair = Pair::new().await;
    let tunnel = pair.gateway.tunnel.clone();
    let caller = tokio::spawn(async move { connect(&tunnel, &open("port:22")).await });
    let (_, mut answer) = pair.edge.incoming.recv().await.unwrap().into_parts();
    caller.abort();
    soon("the news", answer.abandoned()).await;
    drop(answer);
    no_streams_are_left(&pair).await;
}

#[tokio::test]
async fn two_thousand_streams_leave_nothing_behind() {
    let mut pair = Pair::new().await;
    let tunnel = pair.gateway.tunnel.clone();
    let callers = tokio::spawn(async move {
        let mut callers = JoinSet::new();
        for i in 0..2000_u32 {
            if callers.len() == 50 {
                callers.join_next().await.unwrap().unwrap();
            }
            let tunnel = tunnel.clone();
            callers.spawn(async move {
                let stream = connect(&tunnel, &open("port:22")).await.unwrap();
                let sent = i.to_be_bytes();
                assert_eq!(swap(stream, &sent).await, sent);
            });
        }
        callers.join_all().await;
    });
    let echo = async {
        let mut echoes = JoinSet::new();
        for _ in 0..2000 {
            let mut stream = pair.edge.accept().await;
            echoes.spawn(async move {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
        echoes.join_all().await;
    };
    soon("all streams", async { tokio::join!(callers, echo).0.unwrap() }).await;
    no_streams_are_left(&pair).await;
}

/// T2: each stream that nobody has accepted costs the gateway memory.
#[tokio::test]
async fn t2_an_edge_opens_a_handful_of_streams_before_one_is_accepted() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let addresses = [server.local_addr().unwrap()];
    let dialled = dialer.dial_addresses(&addresses, cluster.client_tls(Alpn::Tunnel));
    let (dialled, _accepted) = soon("a connection", async { tokio::join!(dialled, server.accept()) }).await;
    let (connection, mut open) = (dialled.unwrap(), Vec::new());
    while let Ok(stream) = timeout(Duration::ZERO, connection.open_bi()).await {
        open.push(stream.unwrap());
    }
    assert_eq!(open.len(), Limits::gateway().unaccepted_streams as usize);
}

#[tokio::test]
async fn an_edge_has_as_many_streams_as_it_may_once_they_are_accepted() {
    let mut pair = Pair::new().await;
    // Its first is that of the session.
    let most = Limits::gateway().max_streams - 1;
    let mut callers = JoinSet::new();
    for _ in 0..most {
        let tunnel = pair.edge.tunnel.clone();
        callers.spawn(async move { connect(&tunnel, &open("service:dns")).await.unwrap() });
    }
    let mut kept = Vec::new();
    for _ in 0..most {
        kept.push(pair.gateway.accept().await);
    }
    let opened = soon("all streams", callers.join_all()).await;
    assert_eq!(opened.len(), kept.len());
}

/// T2: what waits for a reader is bounded by the windows, whoever does not read.
#[tokio::test]
async fn t2_a_peer_that_never_reads_pins_no_more_than_the_windows() {
    let limits = Limits {
        stream_window: 64 * 1024,
        connection_window: 32 * 1024,
        send_window: 256 * 1024,
        ..Limits::edge()
    };
    let mut pair = Pair::with(&limits, &limits).await;
    let mut taken = 0;
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (mut near, far) = pair.stream().await;
        let chunk = Bytes::from(vec![0; 16 * 1024]);
        while let Ok(written) = timeout(Duration::from_millis(200), near.write_chunk(chunk.clone())).await {
            written.unwrap();
            taken += chunk.len();
        }
        kept.push((near, far));
    }
    // What is in flight stands in the one window and will stand in the other; a chunk may be half taken.
    assert!(taken <= 256 * 1024 + 4 * 16 * 1024, "{taken} bytes were taken");
    // The session itself is as alive as before.
    soon("a pong", pair.gateway.tunnel.ping()).await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_stalls_no_other_stream() {
    let mut pair = Pair::new().await;
    let (mut stalled, _unread) = pair.stream().await;
    let chunk = Bytes::from(vec![0; 64 * 1024]);
    while timeout(Duration::from_millis(200), stalled.write_chunk(chunk.clone()))
        .await
        .is_ok()
    {}
    let (near, far) = pair.stream().await;
    let data = noise(1 << 20);
    let (near_got, far_got) = soon("the other stream", async {
        tokio::join!(swap(near, &data), swap(far, b""))
    })
    .await;
    assert_eq!((near_got.len(), hash(&far_got)), (0, hash(&data)));
}

#[tokio::test]
async fn a_peer_that_leaves_lets_streams_end_and_takes_no_new_ones() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let leaving = Refusal::new(Reason::Draining, "upgrade");
    pair.gateway.tunnel.drain(leaving.clone(), Some(Duration::from_secs(7)));
    let notice = soon("the notice", pair.edge.notices.recv()).await.unwrap();
    assert_eq!(
        *notice,
        Notice::GoAway {
            refusal: leaving.clone(),
            retry_after: Some(Duration::from_secs(7))
        }
    );
    let refusal = connect(&pair.gateway.tunnel, &open("port:22")).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Draining);
    let (near_got, _) = soon("the last words", async {
        tokio::join!(swap(near, b"a"), swap(far, b"b"))
    })
    .await;
    assert_eq!(near_got, b"b");
    for end in [pair.gateway.driver, pair.edge.driver] {
        assert_eq!(soon("the end", end).await.unwrap(), leaving);
    }
}

/// Sends all and ends the direction, while reading to the other's end.
async fn swap(stream: Stream, data: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut got = Vec::new();
    let (sent, read) = tokio::join!(
        async {
            write.write_all(data).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut got)
    );
    sent.unwrap();
    read.unwrap();
    got
}

/// The books of both ends are empty, once the last word has crossed.
async fn no_streams_are_left(pair: &Pair) {
    let empty = async {
        while pair.edge.tunnel.open_streams() + pair.gateway.tunnel.open_streams() > 0 {
            pair.gateway.tunnel.ping().await.unwrap();
        }
    };
    soon("empty books", empty).await;
}

fn refusal_in(error: &std::io::Error) -> &Refusal {
    error.get_ref().unwrap().downcast_ref().unwrap()
}
