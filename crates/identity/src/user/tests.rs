use std::time::Duration;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};

use super::*;
use crate::{
    Expiry, NodeIdentity, PrivateKey, USER_LIFETIME,
    testing::{CLUSTER, Cluster, NODE, NOW, USER, uri},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn an_honest_users_certificate_says_whose_it_is_and_for_how_long() {
    let cluster = Cluster::new();
    let credential = cluster.user();
    let identity = read(&cluster, credential.chain(), NOW).unwrap();
    assert_eq!(identity.id, USER);
    assert_eq!(identity.validity.not_after, NOW.plus(USER_LIFETIME));
    assert!(identity.check_time(NOW.plus(USER_LIFETIME)).is_ok());
    let late = identity.check_time(NOW.plus(USER_LIFETIME + Duration::from_secs(1)));
    assert_eq!(late.unwrap_err().code(), "cert-expired");
}

/// B10: what was issued for one role is good for no other.
#[test]
fn b10_no_role_plays_another() {
    let cluster = Cluster::new();
    let (node, gateway, user) = (cluster.node().0, cluster.gateway(), cluster.user());
    let code = |chain: &[CertificateDer<'_>]| read(&cluster, chain, NOW).unwrap_err().code();
    assert_eq!(code(node.chain()), "cert-name-form");
    assert_eq!(code(gateway.chain()), "cert-wrong-usage");
    let root = cluster.root.certificate();
    let as_node = NodeIdentity::from_chain(user.chain(), root, NOW, Expiry::Full, &|_, _: &Serial| false);
    assert_eq!(as_node.unwrap_err().code(), "cert-name-form");
    let as_gateway = crate::GatewayIdentity::from_chain(user.chain(), root, &crate::testing::floor());
    assert_eq!(as_gateway.unwrap_err().code(), "cert-wrong-usage");
}

/// B10: each row is an otherwise good user's certificate, properly signed, with one thing wrong.
#[test]
fn b10_each_fault_of_a_users_certificate_has_a_reason_of_its_own() {
    let cluster = Cluster::new();
    let user = format!("spiffe://{CLUSTER}/user");
    let good = format!("{user}/{USER}");
    let craft = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        cluster.craft(|p| {
            p.subject_alt_names = vec![uri(&good)];
            change(p);
        })
    };
    let id = |text: &str| craft(&|p| p.subject_alt_names = vec![uri(text)]);
    let usage = |usages: Vec<ExtendedKeyUsagePurpose>| craft(&|p| p.extended_key_usages = usages.clone());
    let dns = || SanType::DnsName("alice".try_into().unwrap());
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let mut rows = vec![
        ("cert-missing", vec![]),
        ("cert-other-ca", Cluster::new().user().chain().to_vec()),
        (
            "cert-other-cluster",
            id(&format!("spiffe://{}/user/{USER}", "0".repeat(32))),
        ),
        ("cert-two-uris", craft(&|p| p.subject_alt_names.push(uri(&good)))),
        ("cert-two-uris", {
            let node = format!("spiffe://{CLUSTER}/node/{NODE}");
            craft(&|p| p.subject_alt_names.push(uri(&node)))
        }),
        ("cert-no-uri", craft(&|p| p.subject_alt_names.clear())),
        ("cert-extra-name", craft(&|p| p.subject_alt_names.push(dns()))),
        ("cert-name-wildcard", id(&format!("{user}/*"))),
        ("cert-name-comma", id(&format!("{good},{user}/x"))),
        ("cert-name-nul", id(&format!("{good}\0x"))),
        ("cert-wrong-usage", usage(vec![])),
        ("cert-wrong-usage", usage(vec![server.clone()])),
        ("cert-wrong-usage", usage(vec![client.clone(), server])),
        ("cert-wrong-usage", usage(vec![client, ExtendedKeyUsagePurpose::Any])),
        (
            "cert-is-authority",
            craft(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "cert-not-yet-valid",
            craft(&|p| p.not_before = NOW.plus(DAY).to_offset().unwrap()),
        ),
        (
            "cert-expired",
            craft(&|p| p.not_after = NOW.plus(DAY / 2).to_offset().unwrap()),
        ),
        ("cert-malformed", vec![vec![0x30, 0x03, 1, 2, 3].into()]),
        ("cert-malformed", vec![cluster.user().chain()[0].clone(); 5]),
    ];
    for form in [
        good.to_uppercase(),
        format!("{good}/"),
        format!("{good}?x"),
        format!("{good} "),
        format!("{good}0"),
        good[..good.len() - 1].to_owned(),
        format!("{user}/alice"),
        format!("{user}/+{}", &USER.to_string()[1..]),
        format!("spiffe://{CLUSTER}/node/{NODE}"),
        format!("spiffe://{CLUSTER}/node/{USER}"),
        format!("spiffe://{CLUSTER}/users/{USER}"),
        format!("spiffe://{CLUSTER}/gateway"),
        user.clone(),
    ] {
        rows.push(("cert-name-form", id(&form)));
    }
    let at = NOW.plus(DAY - Duration::from_secs(1));
    for (i, (code, chain)) in rows.iter().enumerate() {
        let error = read(&cluster, chain, at).expect_err(&format!("row {i}, {code}, was accepted"));
        assert_eq!(error.code(), *code, "row {i}: {error}");
    }
    assert!(read(&cluster, &craft(&|_| {}), at).is_ok(), "the rows prove nothing");
}

#[test]
fn a_users_certificate_never_outlives_the_authority() {
    let cluster = Cluster::new();
    let key = PrivateKey::generate().unwrap().public().unwrap();
    let name = "alice".parse().unwrap();
    let long = Duration::from_secs(10 * 365 * 24 * 3600);
    let chain = cluster.authority.issue_user(&key, USER, &name, long, NOW).unwrap();
    let end = chain::validity(&chain[0]).unwrap().not_after;
    assert_eq!(end, cluster.authority.validity().not_after);
}

#[test]
fn a_user_id_has_one_spelling() {
    assert_eq!(USER.to_string().parse(), Ok(USER));
    assert_eq!(
        UserId::from_bytes([0, 0, 0, 0, 0, 0, 0, 1]).to_string(),
        "0000000000000001"
    );
    for bad in ["", "1", "00000000000000AB", "+000000000000001", "00000000000000001"] {
        assert_eq!(bad.parse::<UserId>(), Err(ParseUserIdError), "{bad}");
    }
}

fn read(cluster: &Cluster, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<UserIdentity, IdentityError> {
    UserIdentity::from_chain(chain, cluster.root.certificate(), now)
}
