use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tunnel_carrier::{relay, relay_until};
use tunnel_model::{Reason, Refusal};

use crate::cluster::{Pair, hash, noise, soon};

#[tokio::test]
async fn a_client_and_a_target_talk_through_two_relays() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let (mut client, mut at_gateway) = connected().await;
    let (mut target, mut at_edge) = connected().await;
    let near = tokio::spawn(async move { relay(&mut at_gateway, near).await });
    let far = tokio::spawn(async move { relay(&mut at_edge, far).await });

    let (request, response) = (noise(3 << 20), noise(5 << 20));
    let talk = async {
        tokio::join!(
            async {
                client.write_all(&request).await.unwrap();
                client.shutdown().await.unwrap();
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                got
            },
            async {
                // Half-closed: the target answers after the request has ended.
                let mut got = Vec::new();
                target.read_to_end(&mut got).await.unwrap();
                target.write_all(&response).await.unwrap();
                target.shutdown().await.unwrap();
                got
            }
        )
    };
    let (client_got, target_got) = soon("request and response", talk).await;
    assert_eq!(hash(&client_got), hash(&response));
    assert_eq!(hash(&target_got), hash(&request));

    let (near, far) = soon("both relays", async { tokio::join!(near, far) }).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!((near.end, far.end), (Ok(()), Ok(())));
    assert_eq!((near.sent, near.received), (3 << 20, 5 << 20));
    assert_eq!((far.sent, far.received), (5 << 20, 3 << 20));
}

#[tokio::test]
async fn a_target_that_resets_breaks_the_callers_stream() {
    let mut pair = Pair::new().await;
    let (mut near, far) = pair.stream().await;
    let (target, mut at_edge) = connected().await;
    let far = tokio::spawn(async move { relay(&mut at_edge, far).await });
    near.write_all(b"x").await.unwrap();
    target.set_zero_linger().unwrap();
    drop(target);
    soon("a break", near.read_to_end(&mut Vec::new())).await.unwrap_err();
    let far = soon("the relay", far).await.unwrap();
    assert_eq!(far.end.unwrap_err().reason, Reason::TargetReset);
}

#[tokio::test]
async fn a_caller_that_goes_away_breaks_the_relay() {
    let mut pair = Pair::new().await;
    let (near, far) = pair.stream().await;
    let (_target, mut at_edge) = connected().await;
    let far = tokio::spawn(async move { relay(&mut at_edge, far).await });
    drop(near);
    let far = soon("the relay", far).await.unwrap();
    assert_eq!(far.end.unwrap_err().reason, Reason::Cancelled);
}

#[tokio::test]
async fn a_relay_that_is_cut_breaks_both_sides_and_says_why() {
    let mut pair = Pair::new().await;
    let (mut near, far) = pair.stream().await;
    let (mut target, mut at_edge) = connected().await;
    let (cut, cutting) = tokio::sync::oneshot::channel();
    let far = tokio::spawn(async move {
        let cut = async { cutting.await.unwrap() };
        relay_until(&mut at_edge, far, cut).await
    });
    near.write_all(b"x").await.unwrap();
    let mut heard = [0];
    soon("a byte", target.read_exact(&mut heard)).await.unwrap();
    cut.send(Refusal::new(Reason::NotAllowed, "no more")).unwrap();
    let far = soon("the relay", far).await.unwrap();
    assert_eq!((far.end.unwrap_err().reason, far.received), (Reason::NotAllowed, 1));
    let error = soon("a break", near.read_to_end(&mut Vec::new())).await.unwrap_err();
    let told = error.into_inner().unwrap().downcast::<Refusal>().unwrap();
    assert_eq!(told.reason, Reason::NotAllowed);
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}
