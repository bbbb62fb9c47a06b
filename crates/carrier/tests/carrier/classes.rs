//! A link of which nobody has said what it carries: the carrier itself sends what is of a higher class first.

use std::pin::pin;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tunnel_carrier::{Stream, quic::Limits};
use tunnel_linkem::LinkConfig;
use tunnel_model::Class;

use crate::cluster::{Pair, noise, soon};

/// More than goes out before both streams have something to say, and for both of them less than a connection holds.
const LENGTH: usize = 15_000;

#[tokio::test]
async fn a_transfer_waits_for_what_is_of_a_higher_class_at_both_ends_and_on_each_carrier() {
    let link: LinkConfig = "8mbit,20ms".parse().unwrap();
    let (mut pair, _relay) = Pair::over(link, 1, &Limits::gateway()).await;
    let mut transfer = pair.stream_of(Class::Bulk).await;
    let mut request = pair.stream_of(Class::Api).await;
    for carrier in 0..2 {
        if carrier > 0 {
            pair.next_carrier().await;
        }
        let opener = overtakes((&mut request.0, &mut request.1), (&mut transfer.0, &mut transfer.1)).await;
        let acceptor = overtakes((&mut request.1, &mut request.0), (&mut transfer.1, &mut transfer.0)).await;
        for (end, came) in [("opened", opener), ("accepted", acceptor)] {
            assert!(
                came < LENGTH / 2,
                "where they were {end}, on carrier {carrier}, {came} bytes came first"
            );
        }
    }
}

/// Sends on the slower stream, then on the faster; says how much of the slower had come when all of the faster was there.
async fn overtakes(faster: (&mut Stream, &mut Stream), slower: (&mut Stream, &mut Stream)) -> usize {
    let data = noise(LENGTH);
    // There is room for all of it, so that both have something to send when the first packet goes out.
    slower.0.write_all(&data).await.unwrap();
    faster.0.write_all(&data).await.unwrap();
    let (mut came, mut some) = (0, vec![0; LENGTH]);
    let mut whole = vec![0; LENGTH];
    let mut first = pin!(faster.1.read_exact(&mut whole));
    soon("the faster", async {
        loop {
            tokio::select! {
                biased;
                read = slower.1.read(&mut some) => came += read.unwrap(),
                read = &mut first => return read.unwrap(),
            }
        }
    })
    .await;
    let mut rest = vec![0; LENGTH - came];
    soon("the rest of the slower", slower.1.read_exact(&mut rest))
        .await
        .unwrap();
    came
}
