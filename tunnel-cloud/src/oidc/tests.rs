mod provider;
mod web;

use std::{fs, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tunnel_ingress::{Credential, Secret};
use tunnel_model::Reason;

use self::provider::{Provider, RS256_TOKEN, encode, good};
use super::*;
use crate::{
    store::SqliteStore,
    users::{Authenticator, Users},
};

const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);
const ISSUER: &str = "https://idp.example";

#[tokio::test]
async fn a_good_token_says_who_it_is_about() {
    let provider = Provider::new();
    let oidc = provider.oidc(|config| config.groups_claim = Some("groups".to_owned()));
    let mut claims = good();
    claims["groups"] = json!(["ops", "Not A Name", 7, "admins"]);
    for key in ["ec", "ed"] {
        let token = provider.token(key, &claims);
        assert!(oidc.is_token(&token));
        assert_eq!(oidc.remembered(&token, NOW), None);
        let alice = oidc.verify(&token, NOW).await.unwrap();
        assert_eq!(alice.to_string(), "user:oidc-alice");
        let groups: Vec<_> = alice.groups.iter().map(|g| g.as_str()).collect();
        assert_eq!(groups, ["oidc-ops", "oidc-admins"]);
        assert_eq!(oidc.remembered(&token, NOW), Some(alice));
    }
    claims["aud"] = json!(["other", "tunnel"]);
    claims["groups"] = json!("one");
    let alice = oidc.verify(&provider.token("ec", &claims), NOW).await.unwrap();
    assert!(alice.is_member_of("oidc-one"));
    let alice = oidc.verify(RS256_TOKEN, NOW).await.unwrap();
    assert_eq!(alice.to_string(), "user:oidc-alice");
}

/// What stays keeps its keys; what is new or has changed starts without any.
#[tokio::test]
async fn issuers_that_stay_keep_their_keys_when_others_come_and_go() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let token = provider.token("ec", &good());
    oidc.verify(&token, NOW).await.unwrap();
    let same = oidc.issuers[0].config().clone();
    let other = OidcIssuer {
        issuer: "https://other.example".to_owned(),
        username_prefix: "other-".to_owned(),
        ..same.clone()
    };
    let both = oidc.follow(&[other.clone(), same]).unwrap();
    assert_eq!(
        both.issuers.iter().map(|issuer| issuer.has_keys()).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(both.remembered(&token, NOW), None, "looked at anew");
    both.verify(&token, NOW).await.unwrap();
    let one = both.follow(&[other]).unwrap();
    assert_eq!(one.verify(&token, NOW).await, Err(TokenError::Issuer));
    let claimed = |oidc: &Oidc| ["oidc-alice", "other-alice", "alice"].map(|name| oidc.claims(&name.parse().unwrap()));
    assert_eq!(claimed(&both), [true, true, false]);
    assert_eq!(claimed(&one), [false, true, false]);
}

/// T4, B12: each row is an otherwise good token with one thing wrong.
#[tokio::test]
async fn each_fault_of_a_token_has_a_reason_of_its_own() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let header = |header: Value| provider.signed("ec", &header.to_string(), &good().to_string());
    let raw_header = |header: &str| provider.signed("ec", header, &good().to_string());
    let claims = |claims: &str| provider.signed("ec", r#"{"alg":"ES256","kid":"ec"}"#, claims);
    let with = |claim: &str, value: Value| {
        let mut claims = good();
        claims[claim] = value;
        provider.token("ec", &claims)
    };
    let without = |claim: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(claim);
        provider.token("ec", &claims)
    };
    let alg = |name: &str| header(json!({"alg": name, "kid": "ec"}));
    let token = provider.token("ec", &good());
    let parts: Vec<_> = token.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let twice = good().to_string().replace('{', r#"{"exp":9e9,"#);
    let bob = good().to_string().replace("alice", "bob");
    let rows = [
        ("token-too-long", format!("{token}{}", "A".repeat(16 * 1024))),
        ("token-malformed", String::new()),
        ("token-malformed", "..".to_owned()),
        ("token-malformed", format!("{head}.{body}")),
        ("token-malformed", format!("{token}.{signature}")),
        ("token-malformed", format!("{token}=")),
        ("token-malformed", format!("{head}.{body}.+{}", &signature[1..])),
        ("token-malformed", format!("{}.{body}.{signature}", &head[1..])),
        ("token-malformed", raw_header(r#"["ES256","ec"]"#)),
        (
            "token-malformed",
            raw_header(r#"{"alg":"ES256","alg":"ES256","kid":"ec"}"#),
        ),
        ("token-malformed", raw_header(r#"{"alg":"ES256","kid":"ec"} x"#)),
        ("token-malformed", header(json!({"kid": "ec"}))),
        ("token-malformed", header(json!({"alg": 7}))),
        ("token-malformed", header(json!({"alg": "ES256", "kid": 7}))),
        ("token-malformed", claims("")),
        ("token-malformed", claims("[]")),
        ("token-malformed", claims(r#"{"iss":"https://idp.example""#)),
        ("token-malformed", claims(&twice)),
        ("token-malformed", without("iss")),
        ("token-malformed", without("aud")),
        ("token-malformed", without("exp")),
        ("token-malformed", with("exp", json!("4000000000"))),
        ("token-malformed", with("exp", json!(true))),
        ("token-malformed", with("nbf", json!("0"))),
        ("token-malformed", with("aud", json!({"tunnel": true}))),
        ("token-malformed", with("iss", json!([ISSUER]))),
        ("token-algorithm", format!("{}.{body}.", encode(r#"{"alg":"none"}"#))),
        ("token-algorithm", alg("none")),
        ("token-algorithm", alg("None")),
        ("token-algorithm", alg("HS256")),
        ("token-algorithm", header(json!({"alg": "HS256", "kid": "rsa"}))),
        ("token-algorithm", alg("es256")),
        ("token-algorithm", alg("ES384")),
        ("token-algorithm", alg("PS256")),
        ("token-algorithm", alg("RS1")),
        ("token-algorithm", alg("")),
        (
            "token-critical",
            header(json!({"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false})),
        ),
        (
            "token-critical",
            header(json!({"alg": "ES256", "kid": "ec", "crit": null})),
        ),
        (
            "token-type",
            header(json!({"alg": "ES256", "kid": "ec", "typ": "logout+jwt"})),
        ),
        ("token-issuer", with("iss", json!("https://idp.example/"))),
        ("token-issuer", with("iss", json!("https://IDP.example"))),
        ("token-issuer", with("iss", json!(""))),
        ("token-audience", with("aud", json!("tunnel2"))),
        ("token-audience", with("aud", json!("Tunnel"))),
        ("token-audience", with("aud", json!([]))),
        ("token-audience", with("aud", json!(["tunnel "]))),
        ("token-unknown-key", header(json!({"alg": "ES256", "kid": "EC"}))),
        ("token-unknown-key", header(json!({"alg": "ES256", "kid": ""}))),
        ("token-unknown-key", header(json!({"alg": "ES256", "kid": "enc"}))),
        ("token-unknown-key", header(json!({"alg": "ES256", "kid": "es384"}))),
        ("token-unknown-key", header(json!({"alg": "ES256", "kid": "bad"}))),
        ("token-no-key-id", header(json!({"alg": "ES256"}))),
        ("token-key-algorithm", alg("EdDSA")),
        ("token-key-algorithm", alg("RS256")),
        ("token-key-algorithm", header(json!({"alg": "ES256", "kid": "rsa"}))),
        ("token-signature", format!("{head}.{body}.")),
        ("token-signature", format!("{head}.{body}.{}", "A".repeat(86))),
        ("token-signature", format!("{head}.{body}.{}", encode("0D\u{2} \u{2} "))),
        ("token-signature", format!("{head}.{}.{signature}", encode(&bob))),
        (
            "token-signature",
            format!("{}.{body}.{signature}", encode(r#"{"kid":"ec","alg":"ES256"} "#)),
        ),
        ("token-signature", RS256_TOKEN[..RS256_TOKEN.len() - 2].to_owned()),
        ("token-signature", Provider::new().token("ec", &good())),
        ("token-signature", header(json!({"alg": "ES256", "kid": "ec2"}))),
        ("token-expired", with("exp", json!(NOW.secs() - 60))),
        ("token-expired", with("exp", json!(0))),
        ("token-expired", with("exp", json!(-1))),
        ("token-not-yet-valid", with("nbf", json!(NOW.secs() + 61))),
        ("token-no-name", without("sub")),
        ("token-no-name", with("sub", json!(7))),
        ("token-no-name", with("sub", json!(null))),
        ("token-bad-name", with("sub", json!(""))),
        ("token-bad-name", with("sub", json!("Alice"))),
        ("token-bad-name", with("sub", json!("alice@example.com"))),
        ("token-bad-name", with("sub", json!("../alice"))),
        ("token-bad-name", with("sub", json!("alice\0"))),
        ("token-bad-name", with("sub", json!("a".repeat(60)))),
    ];
    for (i, (code, token)) in rows.iter().enumerate() {
        let refused = oidc.verify(token, NOW).await;
        let error = refused.expect_err(&format!("row {i}, {code}, was accepted"));
        assert_eq!(error.code(), *code, "row {i}: {token}");
        assert_eq!(oidc.remembered(token, NOW), None, "row {i}");
    }
    assert!(oidc.verify(&token, NOW).await.is_ok(), "the rows prove nothing");
    for (claim, value) in [("exp", NOW.secs() - 59), ("nbf", NOW.secs() + 60)] {
        let late = with(claim, json!(value));
        assert!(oidc.verify(&late, NOW).await.is_ok(), "leeway of {claim}");
    }
}

/// B13: no name is folded, cut or otherwise made to fit.
#[tokio::test]
async fn an_address_is_a_name_only_without_its_domain_and_only_when_verified() {
    let provider = Provider::new();
    let oidc = provider.oidc(|config| {
        config.username_claim = "email".to_owned();
        config.username_suffix = Some("@example.com".to_owned());
        config.username_prefix = String::new();
    });
    for (email, verified, expected) in [
        ("alice@example.com", json!(true), Ok("user:alice")),
        ("alice@example.com", json!(null), Err(TokenError::Unverified)),
        ("alice@example.com", json!(false), Err(TokenError::Unverified)),
        ("alice@example.com", json!("true"), Err(TokenError::Unverified)),
        ("alice@example.org", json!(true), Err(TokenError::BadName)),
        ("alice@evil.com@example.com", json!(true), Err(TokenError::BadName)),
        ("alice@EXAMPLE.com", json!(true), Err(TokenError::BadName)),
        ("@example.com", json!(true), Err(TokenError::BadName)),
    ] {
        let mut claims = good();
        claims["email"] = json!(email);
        claims["email_verified"] = verified;
        let who = oidc.verify(&provider.token("ec", &claims), NOW).await;
        assert_eq!(who.map(|who| who.to_string()), expected.map(str::to_owned), "{claims}");
    }
}

#[tokio::test]
async fn a_token_is_forgotten_with_its_key_and_after_its_end() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let token = provider.token("ec", &good());
    oidc.verify(&token, NOW).await.unwrap();
    let end = UnixTime::from_secs(NOW.secs() + 3600);
    assert!(oidc.remembered(&token, NOW).is_some() && oidc.remembered(&token, end).is_none());
    let set = json!({"keys": [Provider::new().jwk()]});
    fs::write(&provider.path, set.to_string()).unwrap();
    assert!(oidc.issuers[0].refresh(Duration::ZERO).await);
    assert_eq!(oidc.remembered(&token, NOW), None);
    assert_eq!(oidc.verify(&token, NOW).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn the_last_good_keys_stay() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let token = provider.token("ec", &good());
    oidc.verify(&token, NOW).await.unwrap();
    let huge = format!(r#"{{"keys":[{}{}]}}"#, provider.jwk(), " ".repeat(300_000));
    let secret = r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#;
    for bad in ["", "{}", "[]", r#"{"keys":[]}"#, secret, &huge] {
        fs::write(&provider.path, bad).unwrap();
        assert!(!oidc.issuers[0].refresh(Duration::ZERO).await, "{bad:.40}");
        assert!(oidc.verify(&token, NOW).await.is_ok());
    }
    fs::remove_file(&provider.path).unwrap();
    assert!(!oidc.issuers[0].refresh(Duration::ZERO).await);
    assert!(oidc.verify(&token, NOW).await.is_ok());
}

/// R1: unknown keys ask the issuer once in a while, however many tokens name them.
#[tokio::test]
async fn r1_an_unknown_key_is_not_asked_for_again_at_once() {
    let provider = Provider::new();
    let oidc = provider.oidc(|_| {});
    let token = provider.signed("ec", r#"{"alg":"ES256","kid":"next"}"#, &good().to_string());
    assert_eq!(oidc.verify(&token, NOW).await, Err(TokenError::UnknownKey));
    let mut next = provider.jwk();
    next["kid"] = json!("next");
    fs::write(&provider.path, json!({"keys": [next]}).to_string()).unwrap();
    assert_eq!(oidc.verify(&token, NOW).await, Err(TokenError::UnknownKey));
    assert!(oidc.issuers[0].refresh(Duration::ZERO).await);
    assert!(oidc.verify(&token, NOW).await.is_ok());
}

/// T5: whatever is wrong, callers are told the same, and after ten times to wait; what is right still gets in.
#[tokio::test]
async fn t5_an_address_with_many_failures_waits_and_the_right_credential_does_not() {
    let provider = Provider::new();
    let store = SqliteStore::create(&provider.dir.path().join("store.db"))
        .await
        .unwrap();
    let users = Arc::new(Users::load(Arc::new(store)).await.unwrap());
    let secret = users.create("alice".parse().unwrap(), Vec::new(), NOW).await.unwrap();
    let door = Authenticator::new(users, Arc::new(provider.oidc(|_| {})));
    let at = |ip: [u8; 4]| SocketAddr::from((ip, 1));
    let (here, there) = (at([192, 0, 2, 1]), at([192, 0, 2, 2]));
    let bearer = |secret: &str| Credential::Bearer {
        secret: Secret::new(secret),
    };
    let token = |exp: u64| {
        let mut claims = good();
        claims["nbf"] = json!(0);
        claims["exp"] = json!(exp);
        bearer(&provider.token("ec", &claims))
    };
    let known = token(4_000_000_000);
    assert!(door.authenticate(&known, here).await.is_ok());
    let mut said = Vec::new();
    for wrong in [bearer("tu_wrong"), token(1_000_000_000)].iter().cycle().take(10) {
        said.push(door.authenticate(wrong, here).await.unwrap_err());
    }
    assert!(said.iter().all(|refusal| *refusal == said[0]), "{said:?}");
    assert_eq!(said[0].reason, Reason::Unauthenticated);
    let waits = door.authenticate(&bearer("tu_wrong"), here).await.unwrap_err();
    assert_eq!(waits.reason, Reason::TooManyFailures);
    assert!(door.authenticate(&bearer(&secret.to_string()), here).await.is_ok());
    assert!(door.authenticate(&known, here).await.is_ok());
    let elsewhere = door.authenticate(&bearer("tu_wrong"), there).await.unwrap_err();
    assert_eq!(elsewhere.reason, Reason::Unauthenticated);
}

#[test]
fn only_three_parts_of_base64url_look_like_a_token() {
    assert!(jwt::looks_like("a.b-_.c0"));
    for other in [
        "", "a", "a.b", "a.b.c.d", "a..c", ".b.c", "a.b.", "a.b.c=", "a b.c.d", "tu_abc",
    ] {
        assert!(!jwt::looks_like(other), "{other}");
    }
}
