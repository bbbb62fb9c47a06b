use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};

use super::*;
use crate::{
    NODE_LIFETIME, PrivateKey,
    testing::{CLUSTER, Cluster, NODE, NOW, floor, node_params, uri},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn an_honest_nodes_certificate_says_who_it_is() {
    let cluster = Cluster::new();
    let (credential, node) = cluster.node();
    let identity = full(&cluster, credential.chain(), NOW).unwrap();
    assert_eq!((identity.node, identity.expired), (node, false));
    assert_eq!(identity.validity.not_after, NOW.plus(NODE_LIFETIME));
}

/// B10: each row is an otherwise good certificate, properly signed, with one thing wrong.
#[test]
fn b10_each_fault_of_a_certificate_has_a_reason_of_its_own() {
    let cluster = Cluster::new();
    let id = |uri_text: &str| cluster.craft(|p| p.subject_alt_names = vec![uri(uri_text)]);
    let node = format!("spiffe://{CLUSTER}/node");
    let good = format!("{node}/{NODE}");
    let other = format!("spiffe://{}/node/{NODE}", "0".repeat(32));
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let mut rows = vec![
        ("cert-missing", vec![]),
        ("cert-other-ca", Cluster::new().node().0.chain().to_vec()),
        ("cert-other-cluster", id(&other)),
        ("cert-two-uris", cluster.craft(|p| p.subject_alt_names.push(uri(&good)))),
        ("cert-no-uri", cluster.craft(|p| p.subject_alt_names.clear())),
        (
            "cert-no-uri",
            cluster.craft(|p| p.subject_alt_names = vec![dns("edge1")]),
        ),
        (
            "cert-extra-name",
            cluster.craft(|p| p.subject_alt_names.push(dns("edge1"))),
        ),
        ("cert-name-wildcard", id(&format!("{node}/*"))),
        (
            "cert-name-wildcard",
            cluster.craft(|p| p.subject_alt_names.push(dns("*.example.com"))),
        ),
        ("cert-name-comma", id(&format!("{good},{node}/x"))),
        ("cert-name-nul", id(&format!("{good}\0x"))),
        (
            "cert-name-nul",
            cluster.craft(|p| p.distinguished_name.push(DnType::OrganizationName, "a\0b")),
        ),
        ("cert-wrong-usage", cluster.craft(|p| p.extended_key_usages.clear())),
        (
            "cert-wrong-usage",
            cluster.craft(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "cert-wrong-usage",
            cluster.craft(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
        ),
        (
            "cert-wrong-usage",
            cluster.craft(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)),
        ),
        ("cert-wrong-usage", cluster.gateway().chain().to_vec()),
        (
            "cert-is-authority",
            cluster.craft(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        ("cert-key-type", cluster.craft_for(&rsa_key(), |_| {})),
        (
            "cert-not-yet-valid",
            cluster.craft(|p| p.not_before = NOW.plus(DAY).to_offset().unwrap()),
        ),
        (
            "cert-expired",
            cluster.craft(|p| p.not_after = NOW.plus(DAY / 2).to_offset().unwrap()),
        ),
        ("cert-malformed", vec![vec![0x30, 0x03, 1, 2, 3].into()]),
        ("cert-malformed", vec![cluster.node().0.chain()[0].clone(); 5]),
    ];
    for form in [
        good.to_uppercase(),
        format!("{good}/"),
        format!("{good}/x"),
        format!("{good}?x"),
        format!("{good} "),
        format!("spiffe://{CLUSTER}/gateway"),
        format!("spiffe://{CLUSTER}//node/{NODE}"),
        format!("spiffe://{CLUSTER}:443/node/{NODE}"),
        format!("https://{CLUSTER}/node/{NODE}"),
        format!("{node}/%30"),
        format!("{node}/../node/{NODE}"),
        node.clone(),
        String::new(),
    ] {
        rows.push(("cert-name-form", id(&form)));
    }
    let at = NOW.plus(DAY - Duration::from_secs(1));
    for (i, (code, chain)) in rows.iter().enumerate() {
        let error = full(&cluster, chain, at).expect_err(&format!("row {i}, {code}, was accepted"));
        assert_eq!(error.code(), *code, "row {i}: {error}");
    }
    assert!(
        full(&cluster, &cluster.craft(|_| {}), at).is_ok(),
        "the rows prove nothing"
    );
}

/// B10: cut or changed anywhere, a certificate is refused and nothing panics.
#[test]
fn b10_a_certificate_with_one_byte_changed_or_cut_is_refused() {
    let cluster = Cluster::new();
    let (credential, _) = cluster.node();
    let chain = credential.chain();
    for at in 0..chain[0].len() {
        let mut changed = chain[0].to_vec();
        changed[at] ^= 0x10;
        let cut = chain[0][..at].to_vec();
        for leaf in [changed, cut] {
            let chain = [leaf.into(), chain[1].clone()];
            assert!(full(&cluster, &chain, NOW).is_err(), "byte {at}");
        }
    }
}

/// T1, B10
#[test]
fn t1_a_revoked_node_is_refused_though_its_certificate_is_good() {
    let cluster = Cluster::new();
    let (credential, revoked) = cluster.node();
    let root = cluster.root.certificate();
    for expiry in [Expiry::Full, Expiry::Within(RENEWABLE_FOR)] {
        let by_node = |node: NodeId, _: &Serial| node == revoked;
        let refused = NodeIdentity::from_chain(credential.chain(), root, NOW, expiry, &by_node);
        assert_eq!(refused, Err(IdentityError::Revoked));
    }
    let serial = full(&cluster, credential.chain(), NOW).unwrap().serial;
    let by_serial = |_: NodeId, shown: &Serial| *shown == serial;
    let refused = NodeIdentity::from_chain(credential.chain(), root, NOW, Expiry::Full, &by_serial);
    assert_eq!(refused.unwrap_err().code(), "cert-revoked");
    let (renewed, _) = cluster.node();
    assert!(NodeIdentity::from_chain(renewed.chain(), root, NOW, Expiry::Full, &by_serial).is_ok());
}

/// T2
#[test]
fn t2_a_thousand_ids_forged_with_a_nodes_own_key_are_refused() {
    let cluster = Cluster::new();
    let (hostile, _) = cluster.node();
    let forger = Issuer::from_ca_cert_der(&hostile.chain()[0], hostile.key().pair()).unwrap();
    let key = PrivateKey::generate().unwrap().public().unwrap();
    for i in 0..1000u16 {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&i.to_be_bytes());
        let mut params = node_params();
        params.subject_alt_names = vec![uri(&format!("spiffe://{CLUSTER}/node/{}", NodeId::from_bytes(id)))];
        let leaf = params.signed_by(key.for_signing(), &forger).unwrap().der().clone();
        let chain = [&[leaf][..], hostile.chain()].concat();
        assert_eq!(full(&cluster, &chain, NOW), Err(IdentityError::OtherCa), "id {i}");
    }
}

#[test]
fn an_expired_certificate_renews_itself_for_90_days_and_no_longer() {
    let cluster = Cluster::new();
    let (credential, node) = cluster.node();
    let end = NOW.plus(NODE_LIFETIME);
    let renew = |now| {
        let (chain, root) = (credential.chain(), cluster.root.certificate());
        NodeIdentity::from_chain(chain, root, now, Expiry::Within(RENEWABLE_FOR), &none)
    };
    let second = Duration::from_secs(1);
    assert!(!renew(end).unwrap().expired);
    assert!(renew(end.plus(second)).unwrap().expired);
    assert_eq!(renew(end.plus(DAY * 90)).unwrap().node, node);
    let late = renew(end.plus(DAY * 90 + second));
    assert_eq!(late.unwrap_err().code(), "cert-expired-too-long");
    let refused = full(&cluster, credential.chain(), end.plus(second));
    assert_eq!(refused, Err(IdentityError::Expired { not_after: end }));
}

/// R5, R7: what an edge keeps is its own whatever its clock says, and only under its own root.
#[test]
fn an_edge_knows_itself_at_any_time_and_under_its_own_root_alone() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (credential, node) = ours.node();
    for (now, expired) in [(0, false), (NOW.secs(), false), (NOW.plus(DAY * 3650).secs(), true)] {
        let own = NodeIdentity::own(&credential, ours.root.certificate(), UnixTime::from_secs(now)).unwrap();
        assert_eq!((own.node, own.expired), (node, expired));
    }
    let foreign = NodeIdentity::own(&credential, theirs.root.certificate(), NOW);
    assert_eq!(foreign, Err(IdentityError::OtherCa));
}

/// T7: after rotation certificates of the old authority and of the new one are both good.
#[test]
fn t7_rotating_the_issuing_authority_leaves_older_certificates_good() {
    let before = Cluster::new();
    let (old, _) = before.node();
    let key = PrivateKey::generate().unwrap();
    let later = NOW.plus(DAY);
    let chain = before.root.sign_issuing(&key.public().unwrap(), later).unwrap();
    let authority = crate::Authority::new(Credential::new(chain, key).unwrap()).unwrap();
    let key = PrivateKey::generate().unwrap().public().unwrap();
    let new = authority
        .issue_node(&key, NODE, &"edge1".parse().unwrap(), later)
        .unwrap();
    assert!(full(&before, old.chain(), later).is_ok());
    assert!(full(&before, &new, later).is_ok());
}

/// R5: an edge judges the gateway by what has surely passed, and by nothing else.
#[test]
fn r5_the_floor_refuses_an_old_gateway_and_no_clock_refuses_a_new_one() {
    let cluster = Cluster::new();
    let gateway = cluster.gateway();
    let check = |floor: UnixTime| {
        let floor = TimeFloor::new(floor, None);
        GatewayIdentity::from_chain(gateway.chain(), cluster.root.certificate(), &floor)
    };
    let end = cluster.authority.validity().not_after;
    assert_eq!(check(UnixTime::from_secs(0)).unwrap().cluster, CLUSTER);
    assert!(check(end).is_ok());
    let past = check(end.plus(Duration::from_secs(1)));
    assert_eq!(past, Err(IdentityError::Expired { not_after: end }));
}

/// T6
#[test]
fn t6_a_pin_finds_its_own_root_and_no_other() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let pin = ours.root.certificate().pin();
    let (root, gateway) = GatewayIdentity::from_pinned_chain(ours.gateway().chain(), &pin, &floor()).unwrap();
    assert_eq!((root.pin(), gateway.cluster), (pin, CLUSTER));
    let foreign = theirs.gateway();
    let refused = GatewayIdentity::from_pinned_chain(foreign.chain(), &pin, &floor());
    assert_eq!(refused.unwrap_err(), IdentityError::OtherCa);
    let mut dressed = foreign.chain().to_vec();
    dressed[2] = ours.root.certificate().certificate().clone();
    let refused = GatewayIdentity::from_pinned_chain(&dressed, &pin, &floor());
    assert_eq!(refused.unwrap_err(), IdentityError::OtherCa);
}

fn full(cluster: &Cluster, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<NodeIdentity, IdentityError> {
    NodeIdentity::from_chain(chain, cluster.root.certificate(), now, Expiry::Full, &none)
}

fn none(_: NodeId, _: &Serial) -> bool {
    false
}

/// The public half of an RSA key of 2048 bits; its private half was thrown away.
fn rsa_key() -> rcgen::SubjectPublicKeyInfo {
    rcgen::SubjectPublicKeyInfo::from_pem(RSA).unwrap()
}

const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAhVl6ZwZS+80guz408DpZ
2MzG5qDoOKqhrTeIU6010TaolSGA8yvwT7sNPH9FERXZazbLLyugAtHRHDxIf476
TjF7a1dlWpfuMHE9ajqCWGb7WPNQlMJODG0xTKhA68WwZzf/ANMmBVg0O2eAOv8S
x+cmodLv0ESLUk5l0YU6qwfuRgtWvnrXeKDHT9m/q/GPuCI54uO7XRxp8dZIQ3Ox
kZoeHAqBvmk8/+VOMWE8z0jpaCCj9UQRv7Ua2H2JYPIBC9KG5erF8N8A0v0v8/VM
ir2qVbZTw4lc/HZ3XkLpuaV26kYAGtnw/QYqjPyArciznp4L7DAlSBjGmjlKZShe
qQIDAQAB
-----END PUBLIC KEY-----
";
