//! Addresses through every way in: where routes lead, and nowhere else however they are spelled.

use tunnel_model::{Host, Reason, is_local};

use crate::{
    proxy::Proxy,
    spellings::{SPELLINGS, Verdict},
};

/// Names that are written like addresses, and addresses that other programs would understand.
const NAMES: &[&str] = &[
    "169.254.169.254.",
    "169.254.169.254.edge.test",
    "169.254.169.254.nip.io",
    "metadata.google.internal",
    "host.docker.internal.",
    "a_b",
    "-edge1",
    "..",
    "edge1..edge.test",
];

#[tokio::test]
async fn an_address_goes_where_its_route_leads_by_each_way_in() {
    let (proxy, target) = Proxy::with_target().await;
    proxy.route("10.42.3.0/24", "edge1");
    let mut tunnel = proxy.caller().await;
    tunnel.connect("10.42.3.7:80").await;
    target.accept().await;
    let mut plain = proxy.caller().await;
    plain.request("GET", "http://10.42.3.7/", "").await;
    target.accept().await;
    let mut socks = proxy.caller().await;
    assert_eq!(socks.socks(b"\x01\x0a\x2a\x03\x07\x00\x50").await, 0);
    target.accept().await;
    let mut by_text = proxy.caller().await;
    assert_eq!(by_text.socks(b"\x03\x0910.42.3.7\x00\x50").await, 0);
    for dial in proxy.dials() {
        assert_eq!(dial.destination.to_string(), "edge1:tcp:10.42.3.7:80");
    }
    assert_eq!(proxy.dials().len(), 4);
}

#[tokio::test]
async fn an_address_behind_two_nodes_is_refused_with_the_name_to_write() {
    let proxy = Proxy::start().await;
    proxy.route("10.1.2.0/24", "edge1");
    proxy.route("10.1.2.0/24", "edge2");
    for (method, target) in [("CONNECT", "10.1.2.3:80"), ("GET", "http://10.1.2.3/")] {
        let mut caller = proxy.caller().await;
        caller.request(method, target, "").await;
        let answer = caller.message().await.unwrap();
        assert_eq!((answer.status(), answer.field("tunnel-reason")), (403, Some("denied")));
        let body = String::from_utf8(answer.body).unwrap();
        assert!(
            body.contains("edge1, edge2") && body.contains("10.1.2.3.via.edge1"),
            "{body}"
        );
    }
    assert_eq!(proxy.caller().await.socks(b"\x01\x0a\x01\x02\x03\x00\x50").await, 2);
    assert_eq!(proxy.dials(), []);
    let (proxy, target) = Proxy::with_target().await;
    proxy.caller().await.connect("10.1.2.3.via.edge1.edge.test:80").await;
    target.accept().await;
    assert_eq!(proxy.dials()[0].destination.to_string(), "edge1:tcp:10.1.2.3:80");
}

/// B14: with routes to everything approved, no spelling of an address of a machine or a link is dialled, by no way in; what
/// is dialled is the address that was written, or a node of that name.
#[tokio::test]
async fn b14_no_spelling_of_a_local_address_is_dialled_whatever_is_routed() {
    assert!(SPELLINGS.len() >= 200, "{}", SPELLINGS.len());
    let proxy = everything_routed().await;
    for &(spelling, verdict) in SPELLINGS {
        for way in ["CONNECT", "plain", "SOCKS5"] {
            let before = proxy.dials().len();
            let mut caller = proxy.caller().await;
            let said = match way {
                "CONNECT" => caller.ask_http("CONNECT", spelling).await,
                // What follows these is not the host's in a URL.
                "plain" if spelling.contains(['/', '?']) => continue,
                "plain" => caller.ask_http("GET", &format!("http://{spelling}/")).await,
                _ => match caller.ask_socks(spelling).await {
                    Some(code) => u16::from(code),
                    None => continue,
                },
            };
            let dials = proxy.dials();
            let dialled = dials.get(before).map(|dial| dial.destination.to_string());
            let context = format!("{way} {spelling:?}: {said}");
            match verdict {
                Verdict::Is(ip, _) if is_local(ip.parse().unwrap()) => {
                    assert_eq!(dialled, None, "{context}");
                    assert!(matches!(said, 403 | 2), "{context}");
                }
                Verdict::Is(ip, port) => {
                    let target = tunnel_model::HostPort::from_ip(ip.parse().unwrap(), port);
                    assert_eq!(dialled, Some(format!("edge1:tcp:{target}")), "{context}");
                }
                Verdict::Ours(_) => {
                    let named = Host::parse(spelling, &"edge.test".parse().unwrap());
                    let Ok(Host::Named(destination)) = named else {
                        assert_eq!(dialled, None, "{context}");
                        continue;
                    };
                    assert!(
                        dialled.is_none() || dialled == Some(destination.to_string()),
                        "{context}"
                    );
                }
                Verdict::No => {
                    assert_eq!(dialled, None, "{context}");
                    assert!(matches!(said, 400 | 403 | 408 | 1 | 2), "{context}");
                }
            }
        }
    }
}

/// B14: the metadata service in the two forms that SOCKS5 has for addresses, and as nine names.
#[tokio::test]
async fn b14_the_metadata_service_is_refused_as_an_address_and_as_a_name() {
    let proxy = everything_routed().await;
    for request in [
        &b"\x01\xa9\xfe\xa9\xfe\x00\x50"[..],
        b"\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\xa9\xfe\xa9\xfe\x00\x50",
        b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
        b"\x04\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
    ] {
        assert_eq!(proxy.caller().await.socks(request).await, 2, "{request:?}");
    }
    for host in NAMES {
        for (method, target) in [("CONNECT", format!("{host}:80")), ("GET", format!("http://{host}/"))] {
            let mut caller = proxy.caller().await;
            assert_eq!(caller.ask_http(method, &target).await, 403, "{method} {host}");
        }
    }
    assert_eq!(proxy.dials(), [], "not even the gateway hears of them");
    assert_eq!(proxy.metrics.refusals(Reason::Denied), 4 + 2 * NAMES.len() as u64);
}

async fn everything_routed() -> Proxy {
    let proxy = Proxy::start().await;
    proxy.everything_routed();
    proxy
}
