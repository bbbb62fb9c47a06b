use tunnel_carrier::{
    Connection,
    exchange::{MAX_MESSAGE, ask, question},
    quic::{Dialer, Limits, Purpose},
};
use tunnel_identity::tls::Alpn;
use tunnel_model::{Reason, Refusal};

use crate::cluster::{Cluster, noise};

#[tokio::test]
async fn a_question_gets_its_answer() {
    let (edge, gateway) = connected().await;
    let asked = noise(5000);
    let (answer, ()) = tokio::join!(ask(&edge, &asked), async {
        let (heard, answering) = question(&gateway).await.unwrap();
        assert_eq!(heard, asked);
        answering.answer(b"42").await.unwrap();
    });
    assert_eq!(answer.unwrap(), b"42");
}

#[tokio::test]
async fn a_gateway_that_will_not_answer_says_why() {
    let (edge, gateway) = connected().await;
    let (answer, ()) = tokio::join!(ask(&edge, b"please"), async {
        question(&gateway).await.unwrap();
        gateway.close(&Refusal::new(Reason::Overloaded, "come back later"));
    });
    assert_eq!(answer.unwrap_err(), Refusal::new(Reason::Overloaded, "come back later"));
}

/// B1
#[tokio::test]
async fn b1_a_length_beyond_the_limit_is_refused_before_a_byte_is_read() {
    let (edge, gateway) = connected().await;
    let Connection::Quic(raw) = &edge else {
        panic!("it was dialled by QUIC");
    };
    let (mut send, _recv) = raw.open_bi().await.unwrap();
    send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let refusal = question(&gateway).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Protocol);
    assert!(ask(&edge, &vec![0; MAX_MESSAGE + 1]).await.is_err());
}

/// T6: the proof of a token is bound to something that both ends of this connection know and no other has.
#[tokio::test]
async fn t6_both_ends_and_only_they_share_the_binding() {
    let (edge, gateway) = connected().await;
    let (other, _kept) = connected().await;
    let binding = edge.channel_binding().unwrap();
    assert_eq!(binding, gateway.channel_binding().unwrap());
    assert_ne!(binding, other.channel_binding().unwrap());
}

async fn connected() -> (Connection, Connection) {
    let cluster = Cluster::new();
    let mut server = cluster.serve(&Limits::gateway());
    let dialer = Dialer::bind(0, Limits::edge()).unwrap();
    let addresses = [server.local_addr().unwrap()];
    let tls = cluster.client_tls(Alpn::Enrol);
    let (dialled, accepted) = tokio::join!(dialer.dial_addresses(&addresses, tls), server.accept());
    let accepted = accepted.unwrap();
    assert_eq!((accepted.purpose, accepted.chain.len()), (Purpose::Enrol, 2));
    (dialled.unwrap().into(), accepted.connection.into())
}
