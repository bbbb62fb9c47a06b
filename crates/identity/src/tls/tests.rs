use std::time::Duration;

use rand::SeedableRng as _;
use rustls::{ClientConnection, HandshakeKind, ServerConnection};

use super::*;
use crate::{
    ChannelBinding, EXPORTER_LABEL, EnrolRequest, Expiry, JoinToken, NODE_LIFETIME, NodeIdentity, PrivateKey,
    RENEWABLE_FOR, Request, TokenGrant,
    testing::{CLUSTER, Cluster, NODE, NOW, floor},
    verify_enrol,
};

/// T6
#[test]
fn t6_with_the_wrong_ca_not_one_token_byte_is_sent() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let pin = ours.root.certificate().pin();
    // Written before the handshake, as a careless caller would.
    let eager = |at: &Cluster| {
        let mut pair = Pair::new(client_config_enrol(pin, &floor()).unwrap(), at);
        std::io::Write::write_all(&mut pair.client.writer(), b"token").unwrap();
        pair
    };
    let mut pair = eager(&theirs);
    let error = pair.run().unwrap_err();
    assert_eq!(identity_error(&error), Some(IdentityError::OtherCa));
    assert!(pair.client.is_handshaking() && pair.server.is_handshaking());
    assert_eq!(pair.received(), b"");
    let mut pair = eager(&ours);
    pair.run().unwrap();
    assert_eq!(pair.received(), b"token", "the test would not have seen it");
}

/// T6
#[test]
fn t6_an_edge_enrols_over_a_pinned_connection_and_comes_back_as_a_node() {
    let cluster = Cluster::new();
    let pin = cluster.root.certificate().pin();
    let mut pair = Pair::new(client_config_enrol(pin, &floor()).unwrap(), &cluster);
    pair.run().unwrap();
    assert_eq!(pair.server.alpn_protocol(), Some(ALPN_ENROL));
    assert_eq!(pair.server.peer_certificates(), None);
    let (edge, gateway) = pair.bindings();
    assert_eq!(edge, gateway);

    let gateways = vec!["gw.example.com:443".parse().unwrap()];
    let token = JoinToken::generate(pin, gateways, &mut rand::rngs::StdRng::seed_from_u64(3)).unwrap();
    let grant = TokenGrant {
        key: token.secret().key(),
        expires: NOW,
        uses_left: 1,
        name: None,
    };
    let key = PrivateKey::generate().unwrap();
    let request = EnrolRequest::build(&token, &edge, &key, Some("edge1".parse().unwrap())).unwrap();
    let sent = Request::Enrol(request).encode().unwrap();
    let Ok(Request::Enrol(request)) = Request::decode(&sent) else {
        panic!("the request did not arrive");
    };
    let verified = verify_enrol(&request, Some(&grant), &gateway, NOW).unwrap();
    let name = verified.name.unwrap();
    let chain = cluster
        .authority
        .issue_node(&verified.public_key, NODE, &name, NOW)
        .unwrap();

    let shown = pair.client.peer_certificates().unwrap();
    let (root, identity) = GatewayIdentity::from_pinned_chain(shown, &pin, &floor()).unwrap();
    assert_eq!(identity.cluster, CLUSTER);
    let node = Credential::new(chain, key).unwrap();
    let mut pair = Pair::new(
        client_config_node(&root, &node, &floor(), Alpn::Tunnel).unwrap(),
        &cluster,
    );
    pair.run().unwrap();
    assert_eq!(pair.server.alpn_protocol(), Some(ALPN_TUNNEL));
    assert_eq!(pair.identity(&cluster, NOW, Expiry::Full).unwrap().node, NODE);
}

/// T6: two connections of the same two ends have different bindings, so a proof cannot be relayed.
#[test]
fn t6_each_connection_has_a_binding_of_its_own() {
    let cluster = Cluster::new();
    let config = client_config_enrol(cluster.root.certificate().pin(), &floor()).unwrap();
    let bindings = [0, 1].map(|_| {
        let mut pair = Pair::new(config.clone(), &cluster);
        pair.run().unwrap();
        pair.bindings().0
    });
    assert_ne!(bindings[0], bindings[1]);
}

/// T6, B10: an enrolled edge does not speak with a gateway of another authority, nor with a node that plays one.
#[test]
fn an_edge_refuses_a_foreign_gateway_and_a_node_that_plays_one() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (node, _) = ours.node();
    let config = client_config_node(ours.root.certificate(), &node, &floor(), Alpn::Tunnel).unwrap();
    let error = Pair::new(config.clone(), &theirs).run().unwrap_err();
    assert_eq!(identity_error(&error), Some(IdentityError::OtherCa));
    let (thief, _) = ours.node();
    let server = server_config(&thief, ours.root.certificate()).unwrap();
    let error = Pair::with(config, server).run().unwrap_err();
    assert_eq!(identity_error(&error), Some(IdentityError::WrongUsage));
}

/// B10: what is not even a path to the root ends in the handshake.
#[test]
fn a_gateway_refuses_a_foreign_node_in_the_handshake() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (foreign, _) = theirs.node();
    let config = client_config_node(ours.root.certificate(), &foreign, &floor(), Alpn::Tunnel).unwrap();
    let error = Pair::new(config, &ours).run().unwrap_err();
    assert_eq!(identity_error(&error), Some(IdentityError::OtherCa));
}

#[test]
fn an_expired_node_may_shake_hands_to_renew_and_for_nothing_else() {
    let cluster = Cluster::new();
    let (node, id) = cluster.node();
    let config = client_config_node(cluster.root.certificate(), &node, &floor(), Alpn::Enrol).unwrap();
    let mut pair = Pair::new(config, &cluster);
    pair.run().unwrap();
    let late = NOW.plus(NODE_LIFETIME + Duration::from_secs(3600));
    let not_after = NOW.plus(NODE_LIFETIME);
    assert_eq!(
        pair.identity(&cluster, late, Expiry::Full),
        Err(IdentityError::Expired { not_after })
    );
    let renewing = pair.identity(&cluster, late, Expiry::Within(RENEWABLE_FOR)).unwrap();
    assert_eq!((renewing.node, renewing.expired), (id, true));
}

/// B9: nothing to replay, and every connection shows its certificate.
#[test]
fn b9_no_handshake_is_shortened_by_an_earlier_one() {
    let cluster = Cluster::new();
    let (node, _) = cluster.node();
    let client = client_config_node(cluster.root.certificate(), &node, &floor(), Alpn::Tunnel).unwrap();
    let server = server_config(&cluster.gateway(), cluster.root.certificate()).unwrap();
    // The strictest case: a client that would gladly resume, twice at the same server.
    let mut eager = client;
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    for _ in 0..2 {
        let mut pair = Pair::with(eager.clone(), server.clone());
        assert!(pair.client.early_data().is_none());
        pair.run().unwrap();
        assert_eq!(pair.server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(pair.server.peer_certificates().is_some());
    }
}

#[test]
fn a_client_of_another_protocol_is_refused() {
    let cluster = Cluster::new();
    let mut config = client_config_enrol(cluster.root.certificate().pin(), &floor()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let error = Pair::new(config, &cluster).run().unwrap_err();
    assert_eq!(error, rustls::Error::NoApplicationProtocol);
}

/// R5: the edge's floor, raised by what it learned, retires a gateway whose certificate has ended.
#[test]
fn a_gateway_past_its_end_is_refused_by_an_edge_that_knows_the_time() {
    let cluster = Cluster::new();
    let not_after = cluster.authority.validity().not_after;
    let later = TimeFloor::new(NOW, Some(crate::UnixTime::from_secs(not_after.secs() + 1)));
    let config = client_config_enrol(cluster.root.certificate().pin(), &later).unwrap();
    let error = Pair::new(config, &cluster).run().unwrap_err();
    assert_eq!(identity_error(&error), Some(IdentityError::Expired { not_after }));
}

/// An edge and a gateway, joined by memory.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

impl Pair {
    fn new(client: ClientConfig, at: &Cluster) -> Self {
        Self::with(client, server_config(&at.gateway(), at.root.certificate()).unwrap())
    }

    fn with(client: ClientConfig, server: ServerConfig) -> Self {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        Self {
            client: ClientConnection::new(Arc::new(client), name).unwrap(),
            server: ServerConnection::new(Arc::new(server)).unwrap(),
        }
    }

    /// Moves bytes until both are silent; delivers what is left after an error too, and returns the first.
    fn run(&mut self) -> Result<(), rustls::Error> {
        let mut first = Ok(());
        loop {
            let mut up = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut up).unwrap();
            }
            let mut rest = up.as_slice();
            while !rest.is_empty() && self.server.read_tls(&mut rest).is_ok_and(|n| n > 0) {
                let result = self.server.process_new_packets().map(drop);
                first = first.and(result);
            }
            let mut down = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut down).unwrap();
            }
            let mut rest = down.as_slice();
            while !rest.is_empty() && self.client.read_tls(&mut rest).is_ok_and(|n| n > 0) {
                let result = self.client.process_new_packets().map(drop);
                first = first.and(result);
            }
            if up.is_empty() && down.is_empty() {
                return first;
            }
        }
    }

    /// What the gateway could read.
    fn received(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut self.server.reader(), &mut bytes);
        bytes
    }

    /// The binding as the edge and as the gateway see it.
    fn bindings(&self) -> (ChannelBinding, ChannelBinding) {
        let edge = self
            .client
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .unwrap();
        // QUIC libraries pass an empty context where TCP has none; RFC 8446 makes the two the same.
        let gateway = self
            .server
            .export_keying_material([0; 32], EXPORTER_LABEL, Some(b""))
            .unwrap();
        (ChannelBinding::new(edge), ChannelBinding::new(gateway))
    }

    fn identity(&self, at: &Cluster, now: crate::UnixTime, expiry: Expiry) -> Result<NodeIdentity, IdentityError> {
        let chain = self.server.peer_certificates().unwrap();
        let none = |_, _: &crate::Serial| false;
        NodeIdentity::from_chain(chain, at.root.certificate(), now, expiry, &none)
    }
}
