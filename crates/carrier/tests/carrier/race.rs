use std::{net::UdpSocket, time::Duration};

use tunnel_carrier::{
    CarrierKind, Connection, DialError, Dialer, Patience,
    quic::{self, Limits},
    tls,
};
use tunnel_identity::tls::Alpn;
use tunnel_model::GatewayAddr;

use crate::cluster::{Cluster, soon};

#[tokio::test]
async fn an_edge_that_is_to_go_one_way_goes_no_other_whatever_gets_through() {
    let gateway = Gateway::start();
    for (only, patience, gone) in [
        (Some(CarrierKind::Tls), Patience::default(), CarrierKind::Tls),
        (Some(CarrierKind::Quic), Patience::default(), CarrierKind::Quic),
        // Although it is known that UDP does not get through.
        (Some(CarrierKind::Quic), BLOCKED, CarrierKind::Quic),
        (None, Patience::default(), CarrierKind::Quic),
    ] {
        let connection = soon(
            "a connection",
            gateway.dial(&[&gateway.udp, &gateway.tcp], only, patience),
        )
        .await;
        assert_eq!(connection.unwrap().kind(), gone, "{only:?}");
    }
}

#[tokio::test]
async fn where_the_one_way_is_closed_the_other_is_not_tried_and_not_blamed() {
    let gateway = Gateway::start();
    let nowhere = "no-such-host.invalid:7443".parse().unwrap();
    for (only, closed, said) in [
        (CarrierKind::Tls, &gateway.udp, "no gateway can be reached by TLS: "),
        (CarrierKind::Quic, &nowhere, "no gateway can be reached by QUIC: "),
    ] {
        let failed = soon("a failure", gateway.dial(&[closed], Some(only), Patience::default())).await;
        let message = failed.unwrap_err().to_string();
        assert!(message.starts_with(said) && !message.contains("nor by"), "{message}");
    }
}

/// TLS is tried almost at once then, and QUIC is taken all the same.
#[tokio::test]
async fn an_edge_that_knows_its_round_trip_goes_by_quic_where_both_get_through() {
    let gateway = Gateway::start();
    for _ in 0..5 {
        let connection = soon("a connection", gateway.dial(&[&gateway.udp, &gateway.tcp], None, NEAR)).await;
        assert_eq!(connection.unwrap().kind(), CarrierKind::Quic);
    }
}

#[tokio::test]
async fn an_edge_goes_by_tls_where_udp_is_silent_whatever_it_knows() {
    let gateway = Gateway::start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nowhere = silent.local_addr().unwrap().to_string().parse().unwrap();
    for patience in [Patience::default(), BLOCKED, NEAR] {
        let connection = soon("a connection", gateway.dial(&[&nowhere, &gateway.tcp], None, patience)).await;
        assert_eq!(connection.unwrap().kind(), CarrierKind::Tls, "{patience:?}");
    }
}

const NEAR: Patience = Patience {
    blocked: false,
    rtt: Some(Duration::from_millis(1)),
    again: Some(Duration::from_millis(750)),
};

const BLOCKED: Patience = Patience {
    blocked: true,
    rtt: None,
    again: Some(Duration::from_millis(50)),
};

/// One that has both ways in, on ports of their own.
struct Gateway {
    cluster: Cluster,
    udp: GatewayAddr,
    tcp: GatewayAddr,
    _servers: (quic::Server, tls::Server),
}

impl Gateway {
    fn start() -> Self {
        let cluster = Cluster::new();
        let servers = (
            cluster.serve(&Limits::gateway()),
            cluster.serve_tls(&tls::Limits::gateway()),
        );
        let address = |address: std::net::SocketAddr| address.to_string().parse().unwrap();
        Self {
            udp: address(servers.0.local_addr().unwrap()),
            tcp: address(servers.1.local_addr()),
            cluster,
            _servers: servers,
        }
    }

    async fn dial(
        &self,
        gateways: &[&GatewayAddr],
        only: Option<CarrierKind>,
        patience: Patience,
    ) -> Result<Connection, DialError> {
        let gateways: Vec<_> = gateways.iter().copied().cloned().collect();
        let dialer = Dialer::bind(0, tls::Proxies::none()).unwrap().only(only);
        dialer
            .dial(&gateways, &self.cluster.client_tls(Alpn::Tunnel), patience)
            .await
    }
}
