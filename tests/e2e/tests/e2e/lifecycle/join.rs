use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream};
use tunnel_carrier::exchange;
use tunnel_carrier::quic::{self, Dialer};
use tunnel_e2e::{Nat, Need, Site, require, wait_until};
use tunnel_identity::{EnrolRequest, JoinToken, PrivateKey, Reply, Request, TimeFloor, UnixTime, tls};
use tunnel_model::{Reason, Refusal};

use crate::world::{SOON, World, init, serve, stderr_of, stdout_of, stop};

const DENIED: i32 = 5;

/// As many as a gateway serves at the same time; those that come on top are asked to come again.
const AT_ONCE: usize = 64;

#[tokio::test]
async fn joining_says_each_stage_and_a_token_is_good_once() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([Site::new().nat(Nat::Symmetric).link("3mbit,60ms,1%"), Site::new()]).await?;
    let token = world.token().await?;
    let edge = world.new_edge(1)?;
    let joined = edge.join(&world.lab, &token).await?;
    stdout_of(&joined)?;
    let said = stderr_of(&joined);
    let stages: Vec<_> = said
        .lines()
        .filter(|line| line.contains(" ok "))
        .filter_map(first_word)
        .collect();
    assert_eq!(
        stages,
        ["resolve", "connect", "pin", "clock", "enrol", "echo"],
        "{said}"
    );
    assert!(edge.config.is_file(), "{said}");

    let again = world.new_edge(2)?;
    let refused = again.join(&world.lab, &token).await?;
    assert_refused(&refused);
    assert!(!again.config.exists());
    assert!(world.node("edge2").await.is_err());
    Ok(())
}

/// B11
#[tokio::test]
async fn b11_a_thousand_joins_with_one_token_make_one_node() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([]).await?;
    let token: Arc<JoinToken> = Arc::new(world.token().await?.parse()?);
    let dialer = world.dialer()?;
    let gateway = world.gw().at(crate::world::PUBLIC);
    let replies = stream::iter(0..1_000)
        .map(|_| ask(&dialer, gateway, &token))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;

    let mut issued = 0;
    for reply in replies {
        match reply? {
            Reply::Issued(_) => issued += 1,
            Reply::Refused(refusal) => assert_eq!(refusal.reason, Reason::Unauthenticated, "{refusal}"),
        }
    }
    assert_eq!(issued, 1);
    let nodes = world.cloud_json(&["nodes", "ls"]).await?;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1), "{nodes}");
    Ok(())
}

/// B12: who tries out tokens learns nothing from how they are refused.
#[tokio::test]
async fn b12_a_token_is_refused_alike_for_whatever_reason() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([Site::new()]).await?;
    let revoked = world.cloud_json(&["token", "create"]).await?;
    let [revoked, id] = ["token", "id"].map(|key| revoked[key].as_str().map(str::to_owned));
    world.cloud_ok(&["token", "revoke", &id.context("id")?]).await?;
    let expired = world.cloud_ok(&["token", "create", "--ttl", "1s"]).await?;
    wait_until("the token has expired", SOON, async || {
        world
            .cloud_ok(&["token", "ls"])
            .await
            .is_ok_and(|list| list.contains("expired"))
    })
    .await?;
    let good: JoinToken = world.token().await?.parse()?;
    let unknown = JoinToken::generate(good.pin(), good.gateways().to_vec(), &mut rand::rng()).context("no token")?;

    let edge = world.new_edge(1)?;
    let mut errors = Vec::new();
    for token in [revoked.context("token")?, expired, unknown.to_string()] {
        let refused = edge.join(&world.lab, &token).await?;
        assert_refused(&refused);
        errors.push(stderr_of(&refused).lines().last().unwrap_or_default().to_owned());
    }
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:?}");

    // What no cluster made is found out before anybody is asked.
    let whole = good.to_string();
    let cut = edge.join(&world.lab, &whole[..whole.len() - 9]).await?;
    assert_eq!(cut.status.code(), Some(2), "{cut:?}");
    assert!(!stderr_of(&cut).contains("connect"), "{cut:?}");
    Ok(())
}

/// T6: what stands where the gateway should be learns nothing of the token.
#[tokio::test]
async fn t6_a_gateway_of_another_authority_is_refused_and_the_token_stays_good() -> anyhow::Result<()> {
    require!(Need::Lab);
    let mut world = World::start([Site::new()]).await?;
    let token = world.token().await?;
    stop(&mut world.gateway).await?;

    let elsewhere = world.lab.dir().join("impostor");
    std::fs::create_dir(&elsewhere)?;
    let config = init(&world.lab, &elsewhere).await?;
    let mut impostor = serve(&world.lab, &config, &elsewhere).await?;
    let edge = world.new_edge(1)?;
    let refused = edge.join(&world.lab, &token).await?;
    let said = stderr_of(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("error[join-pin]: ") && !said.contains("enrol "), "{said}");
    assert!(!edge.config.exists());
    // It was not even asked.
    assert!(
        !impostor.stderr().iter().any(|line| line.contains("certificate")),
        "{:?}",
        impostor.stderr()
    );
    stop(&mut impostor).await?;

    world.restart_gateway().await?;
    stdout_of(&edge.join(&world.lab, &token).await?)?;
    Ok(())
}

/// One request for a certificate; again, where the gateway has too many at once.
async fn ask(dialer: &Dialer, gateway: SocketAddr, token: &JoinToken) -> anyhow::Result<Reply> {
    let floor = TimeFloor::new(UnixTime::from_secs(0), None);
    loop {
        let tls = tls::client_config_enrol(token.pin(), &floor)?;
        let connection = dialer.dial_addresses(&[gateway], tls).await?;
        let key = PrivateKey::generate()?;
        let binding = quic::channel_binding(&connection)?;
        let request = Request::Enrol(EnrolRequest::build(token, &binding, &key, None)?).encode()?;
        let answer = exchange::ask(&connection.clone().into(), &request).await;
        quic::close(&connection, &Refusal::new(Reason::Cancelled, "done"));
        match answer {
            Ok(reply) => return Ok(Reply::decode(&reply)?),
            Err(refusal) if refusal.reason == Reason::Overloaded => {}
            Err(refusal) => bail!(refusal),
        }
    }
}

fn assert_refused(output: &Output) {
    let said = stderr_of(output);
    assert_eq!(output.status.code(), Some(DENIED), "{said}");
    assert!(said.contains("error[token-refused]: "), "{said}");
}

fn first_word(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}
