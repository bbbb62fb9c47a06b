//! TLS to a port where its server name decides.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tunnel_ingress::{Door, Limits, Way};
use tunnel_model::{Host, Principal, Reason};

use crate::{
    proxy::Proxy,
    spellings::{SPELLINGS, Verdict},
};

const PORT: u16 = 10250;

#[tokio::test]
async fn tls_passes_untouched_and_both_ends_know_each_other() {
    let proxy = door().await;
    let target = proxy.node("edge1").await;
    let (server, client) = certified("kubelet.edge1.edge.test");
    let serving = tokio::spawn(async move {
        let mut tls = TlsAcceptor::from(server)
            .accept(target.accept().await.io)
            .await
            .unwrap();
        let mut question = Vec::new();
        tls.read_to_end(&mut question).await.unwrap();
        tls.write_all(&question).await.unwrap();
        tls.shutdown().await.unwrap();
    });
    let name = ServerName::try_from("kubelet.edge1.edge.test").unwrap();
    let mut tls = TlsConnector::from(client)
        .connect(name, proxy.caller().await.io)
        .await
        .unwrap();
    let question = vec![7; 200_000];
    tls.write_all(&question).await.unwrap();
    tls.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, question);
    serving.await.unwrap();
    let dialled = &proxy.dials()[0];
    assert_eq!(dialled.destination, "edge1:service:kubelet".parse().unwrap());
    assert_eq!(
        (dialled.way, &dialled.principal),
        (Way::Sni, &Principal::address([127, 0, 0, 1].into()))
    );
    assert_eq!(proxy.metrics.requests(Way::Sni), 1);
}

#[tokio::test]
async fn a_server_name_leads_to_the_listeners_own_port() {
    let proxy = door().await;
    let target = proxy.node("edge1").await;
    for (name, destination) in [
        ("edge1", "edge1:port:10250"),
        ("Edge1.Edge.Test", "edge1:port:10250"),
        ("web.edge1", "edge1:service:web"),
        ("10.1.2.3.via.edge1.edge.test", "edge1:tcp:10.1.2.3:10250"),
    ] {
        let mut caller = proxy.caller().await;
        let hello = hello(name);
        caller.send(&hello).await;
        let mut end = target.accept().await;
        assert_eq!(end.exactly(hello.len()).await.unwrap(), hello, "{name}");
        assert_eq!(
            proxy.dials().pop().unwrap().destination,
            destination.parse().unwrap(),
            "{name}"
        );
    }
}

/// B8
#[tokio::test]
async fn b8_a_hello_may_come_in_pieces_but_not_for_ever() {
    let proxy = door().await;
    let target = proxy.node("edge1").await;
    let hello = hello("edge1");
    let mut caller = proxy.caller().await;
    caller.io.set_nodelay(true).unwrap();
    for byte in hello.chunks(7) {
        caller.send(byte).await;
        tokio::task::yield_now().await;
    }
    let mut end = target.accept().await;
    assert_eq!(end.exactly(hello.len()).await.unwrap(), hello);

    let limits = Limits {
        handshake: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = Proxy::at(Door::Sni { port: PORT }, limits).await;
    let mut caller = proxy.caller().await;
    caller.send(&hello[..20]).await;
    assert_eq!(caller.until_end().await.unwrap(), alert(90));
    proxy.caller().await.assert_reset().await;
}

#[tokio::test]
async fn a_refusal_is_an_alert_and_counted_by_its_reason() {
    for (hello, description, reason) in [
        (nameless(), 112, Reason::BadRequest),
        (hello("nobody"), 112, Reason::UnknownNode),
        (hello("www.example.com"), 112, Reason::UnknownNode),
        (hello("cloud"), 112, Reason::UnknownNode),
        (hello("denied"), 49, Reason::Denied),
        (hello("offline"), 80, Reason::NodeOffline),
        (hello("busy"), 80, Reason::Overloaded),
        (hello("refusing"), 80, Reason::TargetRefused),
        (hello("slow"), 80, Reason::TargetTimeout),
        (
            b"GET / HTTP/1.1\r\nHost: edge1\r\n\r\n".to_vec(),
            10,
            Reason::BadRequest,
        ),
        (vec![22; 20_000], 10, Reason::BadRequest),
    ] {
        let proxy = door().await;
        let mut caller = proxy.caller().await;
        caller.send(&hello).await;
        assert_eq!(caller.until_end().await.unwrap(), alert(description), "{reason}");
        assert_eq!(proxy.metrics.refusals(reason), 1, "{reason}");
    }
}

#[tokio::test]
async fn a_caller_whose_address_is_not_enough_learns_no_names() {
    let proxy = door().await;
    proxy.gateway.trusting.store(false, Ordering::Relaxed);
    for name in ["edge1", "nobody", "www.example.com"] {
        let mut caller = proxy.caller().await;
        caller.send(hello(name)).await;
        assert_eq!(caller.until_end().await.unwrap(), alert(49), "{name}");
    }
    assert_eq!(proxy.metrics.refusals(Reason::Unauthenticated), 3);
    assert_eq!(proxy.dials(), []);
}

/// N9
#[tokio::test]
async fn n9_a_cut_does_not_look_like_an_end_through_sni() {
    let proxy = door().await;
    let target = proxy.node("edge1").await;
    let hello = hello("edge1");
    let mut caller = proxy.caller().await;
    caller.send(&hello).await;
    let mut end = target.accept().await;
    end.send("half of it").await;
    assert_eq!(caller.exactly(10).await.unwrap(), b"half of it");
    end.reset();
    caller.assert_reset().await;

    let mut caller = proxy.caller().await;
    caller.send(&hello).await;
    let mut end = target.accept().await;
    end.exactly(hello.len()).await.unwrap();
    caller.reset();
    end.assert_reset().await;
}

/// B14: no address is a server name, however it is spelled and whatever is routed; what is dialled is a node of that name.
#[tokio::test]
async fn b14_no_server_name_is_read_as_an_address() {
    let proxy = door().await;
    proxy.everything_routed();
    for &(spelling, verdict) in SPELLINGS {
        let host = spelling.rsplit_once(':').map_or(spelling, |(host, _)| host);
        for name in [host, spelling] {
            let before = proxy.dials().len();
            let mut caller = proxy.caller().await;
            caller.send(hello_naming(name)).await;
            let said = caller.until_end().await.unwrap();
            assert_eq!(said.len(), 7, "{name:?}");
            let dialled = proxy.dials().get(before).map(|dial| dial.destination.to_string());
            let named = Host::new(name, PORT, &"edge.test".parse().unwrap());
            match named {
                Ok(Host::Named(destination)) if matches!(verdict, Verdict::Ours(_)) => {
                    assert!(
                        dialled.is_none() || dialled == Some(destination.to_string()),
                        "{name:?}"
                    );
                }
                _ => {
                    assert_eq!(dialled, None, "{name:?}");
                    assert!(matches!(said[6], 112 | 50), "{name:?}: {said:?}");
                }
            }
        }
    }
}

/// A ClientHello with a server name that no library would send.
fn hello_naming(name: &str) -> Vec<u8> {
    let prefixed = |len: usize, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[4 - len..], content].concat()
    };
    let entry = [&[0][..], &prefixed(2, name.as_bytes())].concat();
    let extension = [&[0, 0][..], &prefixed(2, &prefixed(2, &entry))].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &prefixed(2, &extension),
    ]
    .concat();
    let message = [&[1][..], &prefixed(3, &body)].concat();
    [&[22, 3, 1][..], &prefixed(2, &message)].concat()
}

async fn door() -> Proxy {
    Proxy::door(Door::Sni { port: PORT }).await
}

fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

/// A server's and a client's side of one certificate.
fn certified(name: &str) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    (Arc::new(server), Arc::new(client_config(roots)))
}

fn client_config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a client sends first that wants to reach this name.
fn hello(name: &str) -> Vec<u8> {
    written(client_config(RootCertStore::empty()), name)
}

/// What one sends that names no server, although it speaks of addresses.
fn nameless() -> Vec<u8> {
    written(client_config(RootCertStore::empty()), "192.0.2.1")
}

fn written(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name)
        .unwrap()
        .write_tls(&mut bytes)
        .unwrap();
    bytes
}
