//! Networks in which UDP does not get through, for a while or never.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tunnel_e2e::{Nat, Need, Process, Service, Site, require, wait_until};

use super::clients::Clients;
use super::{LINK, clients_needed};
use crate::world::{Edge, PUBLIC, SOON, World, stdout_of, stop};

/// How long a change from one carrier to the other may take: far longer than it does.
const CHANGED_WITHIN: Duration = Duration::from_secs(240);

/// Where the proxy of a site listens.
const PROXY: u16 = 3128;

/// N7, N8: UDP is blocked in mid-session and comes back, while ssh, curl, kubectl and a WebSocket are busy. Each byte of
/// theirs is compared.
#[tokio::test]
async fn n7_ssh_curl_kubectl_and_a_websocket_go_on_by_tls_while_udp_is_blocked_and_by_quic_again() -> anyhow::Result<()>
{
    clients_needed!();
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link(LINK)).await?;
    let mut clients = Clients::start(&mut world, &edge).await?;
    assert_eq!(carrier(&world, &edge).await?, ["quic", "quic"]);

    world.lab.site(1).block_udp()?;
    clients.speak().await?;
    wait_for_carrier(&world, &edge, "tls").await?;
    clients.go_on().await?;

    world.lab.site(1).allow_udp()?;
    clients.speak().await?;
    wait_for_carrier(&world, &edge, "quic").await?;
    clients.go_on().await?;
    clients.finish().await?;
    let history = edge.run(&world.lab, &["history", "-o", "json"]).await?;
    let history: Value = serde_json::from_str(&stdout_of(&history)?)?;
    let losses = history["losses"].as_array().map(Vec::as_slice).unwrap_or_default();
    // One is that of UDP. The way back is none, but on a busy machine TLS may fall silent by itself before it is taken.
    ensure!(
        !losses.is_empty() && losses.iter().all(|loss| loss["cause"] == "timeout"),
        "{history}"
    );
    Ok(())
}

/// N7: first contact in a network that never lets UDP out.
#[tokio::test]
async fn n7_an_edge_joins_and_is_reached_where_udp_never_gets_through() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let mut world = World::start([Site::new()]).await?;
    world.lab.site(1).block_udp()?;
    let mut edge = world.edge(1).await?;
    assert_eq!(carrier(&world, &edge).await?, ["tls", "tls"]);
    world.offer(&edge, Service::Http, 8080).await?;
    let body = fetch(&world).await?;
    ensure!(body.len() == 1_000_000);
    let checked = edge.run(&world.lab, &["check", "-o", "json"]).await?;
    let checked: Value = serde_json::from_slice(&checked.stdout)?;
    let connect = checked["stages"][1]["detail"].as_str().unwrap_or_default();
    ensure!(connect.contains("by tls only; by quic: "), "{checked}");

    // It is remembered, and found out again all the same.
    let known = fs::read_to_string(edge.state.join("networks.json"))?;
    ensure!(known.contains("\"blocked\":true"), "{known}");
    stop(edge.agent()?).await?;
    world.lab.site(1).allow_udp()?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    wait_for_carrier(&world, &edge, "quic").await
}

/// An edge that is to go by TLS does, although UDP gets through, and learns nothing of the network from that.
#[tokio::test]
async fn an_edge_that_is_to_go_by_tls_goes_by_nothing_else() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, mut edge) = World::with_edge(Site::new()).await?;
    assert_eq!(carrier(&world, &edge).await?, ["quic", "quic"]);
    stop(edge.agent()?).await?;
    let text = fs::read_to_string(&edge.config)?;
    fs::write(&edge.config, format!("{text}\n[link]\ncarrier = \"tls\"\n"))?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    assert_eq!(carrier(&world, &edge).await?, ["tls", "tls"]);
    world.offer(&edge, Service::Http, 8080).await?;
    ensure!(fetch(&world).await?.len() == 1_000_000);
    let checked = edge.run(&world.lab, &["check", "-o", "json"]).await?;
    let checked: Value = serde_json::from_slice(&checked.stdout)?;
    let connect = checked["stages"][1]["detail"].as_str().unwrap_or_default();
    ensure!(connect.ends_with(" by tls") && !connect.contains("quic"), "{checked}");
    let known = fs::read_to_string(edge.state.join("networks.json")).unwrap_or_default();
    ensure!(!known.contains("\"blocked\":true"), "{known}");
    Ok(())
}

/// N7, N12: nothing gets out but what a proxy fetches that asks for a password.
#[tokio::test]
async fn n7_an_edge_joins_and_is_reached_through_a_proxy_and_says_when_that_turns_it_away() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"), Need::Program("tinyproxy"));
    let world = World::start([Site::new()]).await?;
    let site = world.lab.site(1);
    site.block_all()?;
    let (router, address) = (site.nat(), site.nat().at(PROXY));
    let config = world.lab.dir().join("tinyproxy.conf");
    let start = async |password: &str| {
        let listen = format!("Port {PROXY}\nListen {}\nConnectPort {PUBLIC}\n", router.addr());
        fs::write(&config, format!("{listen}BasicAuth joe {password}\n"))?;
        let mut command = router.command("tinyproxy");
        command.arg("-d").arg("-c").arg(&config);
        let proxy = Process::spawn("tinyproxy", command, world.logs())?;
        site.edge().wait_for_port(address, SOON).await?;
        anyhow::Ok(proxy)
    };
    let mut proxy = start("s3cret").await?;

    let mut edge = world.new_edge(1)?;
    edge.env = vec![("HTTPS_PROXY", format!("http://joe:wrong@{address}").into())];
    let refused = edge.join(&world.lab, &world.token().await?).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("refused the user name or the password") && !said.contains("wrong@"),
        "{said}"
    );

    edge.env = vec![("HTTPS_PROXY", format!("http://joe:s3cret@{address}").into())];
    let joined = edge.join(&world.lab, &world.token().await?).await?;
    stdout_of(&joined)?;
    // A service does not have the environment of whoever let it join.
    edge.env = Vec::new();
    let text = fs::read_to_string(&edge.config)?;
    ensure!(
        text.contains(&format!("proxy = \"http://joe:s3cret@{address}\"")),
        "{text}"
    );
    fs::write(&edge.config, text.replace("allow = []", "allow = [\"127.0.0.1:8080\"]"))?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    assert_eq!(carrier(&world, &edge).await?, ["tls", "tls"]);
    let web = world.lab.host(&edge.host);
    let web = web
        .serve(Service::Http, ([127, 0, 0, 1], 8080).into(), world.logs())
        .await?;
    ensure!(fetch(&world).await?.len() == 1_000_000);
    drop(web);

    // For a while it asks for another password.
    proxy.kill().await?;
    proxy = start("spent").await?;
    let refused = "refused the user name or the password";
    wait_until("the edge is turned away", CHANGED_WITHIN, async || {
        let status = status(&world, &edge).await;
        status.is_ok_and(|status| status["message"].as_str().is_some_and(|why| why.contains(refused)))
    })
    .await?;
    proxy.kill().await?;
    let _proxy = start("s3cret").await?;
    wait_for_carrier(&world, &edge, "tls").await?;
    let history = edge.run(&world.lab, &["history", "-o", "json"]).await?;
    let history: Value = serde_json::from_str(&stdout_of(&history)?)?;
    let loss = &history["losses"][0];
    let message = loss["message"].as_str().unwrap_or_default();
    ensure!(loss["cause"] == "proxy" && message.contains(refused), "{history}");
    Ok(())
}

async fn fetch(world: &World) -> anyhow::Result<Vec<u8>> {
    let url = "http://edge1:8080/bytes/1000000";
    world.curl_ok(&["-x", &world.proxy_url("http"), "--fail", url]).await
}

/// What the session goes over, as the edge says and as the gateway says.
async fn carrier(world: &World, edge: &Edge) -> anyhow::Result<[String; 2]> {
    let status = status(world, edge).await?;
    let node = world.node(&edge.name).await?;
    Ok([&status["link"]["carrier"], &node["carrier"]].map(|said| said.as_str().unwrap_or_default().to_owned()))
}

async fn status(world: &World, edge: &Edge) -> anyhow::Result<Value> {
    let status = edge.run(&world.lab, &["status", "-o", "json"]).await?;
    // An agent that is not connected has a status too.
    Ok(serde_json::from_slice(&status.stdout)?)
}

async fn wait_for_carrier(world: &World, edge: &Edge, kind: &str) -> anyhow::Result<()> {
    wait_until(&format!("the carrier is {kind}"), CHANGED_WITHIN, async || {
        carrier(world, edge).await.is_ok_and(|said| said == [kind, kind])
    })
    .await
}
