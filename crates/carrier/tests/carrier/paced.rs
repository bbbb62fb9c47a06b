//! Streams that wait for their turns, where it is known what the link carries. The rates that are told are so low that a transfer
//! which is held to one does not end within a test, and one that is not does so at once.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};
use tunnel_carrier::{Stream, Tunnel, quic::Limits};
use tunnel_linkem::LinkConfig;
use tunnel_model::{Class, Reason, Refusal};
use tunnel_proto::Rate;

use crate::cluster::{Pair, hash, noise, soon};

/// At the rate of [`slow`], it takes minutes.
const LONG: usize = 1_000_000;

fn slow() -> Option<Rate> {
    Rate::from_bits_per_second(64_000)
}

/// Waits until a tunnel holds to that rate.
async fn held_to(tunnel: &Tunnel, rate: Option<Rate>) {
    soon("the rate", async {
        while tunnel.status().unwrap().rate != rate {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A pair whose gateway was told what its edge's link carries.
async fn paced() -> Pair {
    let pair = Pair::new().await;
    pair.edge.tunnel.set_rates(None, slow());
    held_to(&pair.gateway.tunnel, slow()).await;
    pair
}

fn write(mut stream: Stream, data: Vec<u8>) -> JoinHandle<Result<Stream, Refusal>> {
    tokio::spawn(async move {
        let refusal = |error: std::io::Error| error.get_ref().unwrap().downcast_ref::<Refusal>().unwrap().clone();
        stream.write_all(&data).await.map_err(refusal)?;
        stream.shutdown().await.map_err(refusal)?;
        Ok(stream)
    })
}

/// Starts a transfer, and waits until some of it has come: from then on it waits for its turns.
async fn transfer(pair: &mut Pair) -> (JoinHandle<Result<Stream, Refusal>>, Stream, Vec<u8>) {
    let (near, mut far) = pair.stream_of(Class::Bulk).await;
    let writing = write(near, noise(LONG));
    let mut begun = vec![0; 4_000];
    soon("the first of it", far.read_exact(&mut begun)).await.unwrap();
    assert!(!writing.is_finished());
    (writing, far, begun)
}

async fn whole(mut far: Stream, mut begun: Vec<u8>) {
    soon("the rest of it", far.read_to_end(&mut begun)).await.unwrap();
    assert_eq!(hash(&begun), hash(&noise(LONG)));
}

#[tokio::test]
async fn what_somebody_waits_for_goes_before_a_transfer_that_waits_for_its_turn() {
    let mut pair = paced().await;
    let (writing, _far, _) = transfer(&mut pair).await;
    let (mut near, mut far) = pair.stream_of(Class::Interactive).await;
    for key in 0..20 {
        near.write_u8(key).await.unwrap();
        assert_eq!(soon("the key", far.read_u8()).await.unwrap(), key);
    }
    assert!(!writing.is_finished());
}

#[tokio::test]
async fn each_end_holds_to_its_own_direction() {
    let mut pair = Pair::new().await;
    pair.edge.tunnel.set_rates(slow(), None);
    held_to(&pair.edge.tunnel, slow()).await;
    let (near, far) = pair.stream_of(Class::Bulk).await;
    // From the edge it is slow, and to it as fast as ever.
    let (mut read_near, mut write_near) = tokio::io::split(near);
    let (mut read_far, mut write_far) = tokio::io::split(far);
    let up = tokio::spawn(async move { write_far.write_all(&noise(LONG)).await });
    soon("the first of it", read_near.read_u8()).await.unwrap();
    let down = async {
        write_near.write_all(&noise(LONG)).await.unwrap();
        write_near.shutdown().await.unwrap();
    };
    let mut all = Vec::new();
    let (_, read) = soon("the other direction", async {
        tokio::join!(down, read_far.read_to_end(&mut all))
    })
    .await;
    assert_eq!(read.unwrap(), LONG);
    assert!(!up.is_finished());
}

#[tokio::test]
async fn a_transfer_that_waits_goes_on_at_once_when_the_rate_is_taken_away() {
    let mut pair = paced().await;
    let (writing, far, begun) = transfer(&mut pair).await;
    pair.edge.tunnel.set_rates(None, None);
    whole(far, begun).await;
    soon("the writer", writing).await.unwrap().unwrap();
    held_to(&pair.gateway.tunnel, None).await;
}

#[tokio::test]
async fn a_transfer_that_waits_goes_on_at_once_when_the_link_carries_more() {
    let mut pair = paced().await;
    let (writing, far, begun) = transfer(&mut pair).await;
    pair.edge.tunnel.set_rates(None, Rate::from_bits_per_second(80_000_000));
    whole(far, begun).await;
    soon("the writer", writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn rates_that_come_in_the_middle_of_a_transfer_and_go_again_lose_nothing() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream_of(Class::Bulk).await;
    let writing = write(near, noise(LONG));
    for bits in [64_000, 0, 16_000, 3_000_000, 0, 128_000, 64_000] {
        let rate = Rate::from_bits_per_second(bits);
        pair.edge.tunnel.set_rates(None, rate);
        held_to(&pair.gateway.tunnel, rate).await;
    }
    pair.edge.tunnel.set_rates(None, None);
    whole(far, Vec::new()).await;
    soon("the writer", writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_transfer_that_waits_goes_on_over_another_connection_and_is_held_there_too() {
    let mut pair = paced().await;
    let (writing, mut far, mut begun) = transfer(&mut pair).await;
    for round in 0..4 {
        if round % 2 == 0 {
            pair.cut().await;
        }
        match round {
            3 => pair.next_carrier_by_tls().await,
            _ => pair.next_carrier().await,
        }
        held_to(&pair.gateway.tunnel, slow()).await;
        let mut more = vec![0; 4_000];
        soon("more of it", far.read_exact(&mut more)).await.unwrap();
        begun.extend(more);
    }
    pair.edge.tunnel.set_rates(None, None);
    whole(far, begun).await;
    soon("the writer", writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_rate_that_is_taken_away_without_a_connection_is_not_held_to_on_the_next() {
    let mut pair = paced().await;
    let (writing, far, begun) = transfer(&mut pair).await;
    pair.cut().await;
    pair.edge.tunnel.set_rates(None, None);
    pair.next_carrier().await;
    whole(far, begun).await;
    soon("the writer", writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_while_it_waits_holds_nobody_up() {
    let mut pair = paced().await;
    // They wait, are given up by their writers, and have their turns left to others.
    for _ in 0..3 {
        let (writing, _far, _) = transfer(&mut pair).await;
        writing.abort();
        let _ = writing.await;
    }
    let (near, mut far) = pair.stream_of(Class::Bulk).await;
    let writing = write(near, noise(5_000));
    let mut all = Vec::new();
    soon("the data", far.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, noise(5_000));
    soon("the writer", writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_the_peer_breaks_while_it_waits_is_told() {
    let mut pair = paced().await;
    let (writing, far, _) = transfer(&mut pair).await;
    let (other, mut other_far) = pair.stream_of(Class::Bulk).await;
    let other = write(other, noise(5_000));
    far.reset(&Refusal::new(Reason::Denied, "no more of it"));
    let broken = soon("the news", writing).await.unwrap().unwrap_err();
    assert_eq!(broken.reason, Reason::Denied);
    let mut all = Vec::new();
    soon("the other", other_far.read_to_end(&mut all)).await.unwrap();
    soon("its writer", other).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_that_is_closed_tells_those_who_wait() {
    let mut pair = paced().await;
    let (writing, _far, _) = transfer(&mut pair).await;
    pair.gateway
        .tunnel
        .close(&Refusal::new(Reason::Revoked, "it was revoked"));
    let broken = soon("the news", writing).await.unwrap().unwrap_err();
    assert_eq!(broken.reason, Reason::Revoked);
}

/// What a turn is given must leave room for an acknowledgement of the other direction: else each spills over into one more
/// packet that is next to empty, and a thin link carries headers.
#[tokio::test]
async fn turns_of_transfers_both_ways_fill_packets_and_spill_over_into_no_others() {
    let mut pair = Pair::new().await;
    let rate = Rate::from_bits_per_second(16_000_000);
    pair.edge.tunnel.set_rates(rate, rate);
    held_to(&pair.gateway.tunnel, rate).await;
    let connection = pair.connection.clone();
    // The first transfer finds out how large packets may be.
    both_ways(&mut pair, 200_000).await;
    let before = connection.stats();
    both_ways(&mut pair, LONG).await;
    let after = connection.stats();
    let full = LONG as u64 / u64::from(after.path.current_mtu);
    let sent = after.udp_tx.datagrams - before.udp_tx.datagrams;
    let acks = after.frame_tx.acks - before.frame_tx.acks;
    // One that times the link takes the room of an acknowledgement, or a packet of its own.
    let timings = after.frame_tx.datagram - before.frame_tx.datagram;
    let shown = format!("{sent} packets, {full} full ones, {acks} acks, {timings} timings");
    assert!(sent <= full * 5 / 4 + timings, "{shown}");
    assert!(timings <= 40, "{shown}");
}

async fn both_ways(pair: &mut Pair, bytes: usize) {
    let (near, far) = pair.stream_of(Class::Bulk).await;
    let swap = async |stream: Stream| {
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            write.write_all(&noise(bytes)).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let (_, read) = tokio::join!(sending, read.read_to_end(&mut all));
        assert_eq!(read.unwrap(), bytes);
    };
    soon("both directions", async { tokio::join!(swap(near), swap(far)) }).await;
}

#[tokio::test]
async fn a_thin_link_is_found_out_where_nobody_has_said_what_it_carries() {
    let link: LinkConfig = "3mbit,40ms,64kb".parse().unwrap();
    let (mut pair, _relay) = Pair::over(link, 1, &Limits::gateway()).await;
    let (near, mut far) = pair.stream_of(Class::Api).await;
    let writing = write(near, noise(16 << 20));
    let mut some = vec![0; 64 * 1024];
    let held_to = soon("a rate", async {
        loop {
            assert!(far.read(&mut some).await.unwrap() > 0);
            let status = pair.gateway.tunnel.status().unwrap();
            assert_eq!(status.rate, None);
            if let Some(measured) = status.measured {
                return measured;
            }
        }
    })
    .await;
    // It may be less while a queue drains.
    let bits = held_to.bits_per_second();
    assert!((1_000_000..=3_300_000).contains(&bits), "{held_to}");
    writing.abort();
}
