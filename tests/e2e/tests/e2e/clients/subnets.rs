use std::fs;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tunnel_e2e::{Nat, Need, Site, require};

use crate::world::{Edge, SOON, World, stdout_of};

const PORT: u16 = 8080;

/// Two sites with one private range and a third with its own, all behind NATs: addresses of the third lead there once
/// its subnet is approved; those of the two lead nowhere until somebody says which is meant.
#[tokio::test]
async fn curl_reaches_machines_in_the_subnets_of_sites() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let shared = "10.1.2.0/24";
    let own = "10.42.3.0/24";
    let world = World::start([
        Site::new().nat(Nat::Symmetric).lan(shared),
        Site::new().lan(shared),
        Site::new().lan(own),
    ])
    .await?;
    let mut edges = Vec::new();
    for (site, subnet) in [(1, shared), (2, shared), (3, own)] {
        answer(&world, site)?;
        edges.push(advertising(&world, site, subnet).await?);
    }

    let (refused, why) = get(&world, "10.42.3.100").await?;
    ensure!(refused == 403 && why.contains("routes ls"), "{refused}: {why}");
    world.cloud_ok(&["routes", "approve", "edge3", own]).await?;
    for way in ["http", "socks5", "socks5h"] {
        let proxy = world.proxy_url(way);
        let body = world.curl_ok(&["-x", &proxy, &url("10.42.3.100")]).await?;
        assert_eq!(body, b"site 3\n", "{way}");
    }
    let proxy = world.proxy_url("http");
    assert_eq!(
        world.curl_ok(&["-p", "-x", &proxy, &url("10.42.3.100")]).await?,
        b"site 3\n"
    );

    for edge in ["edge1", "edge2"] {
        world.cloud_ok(&["routes", "approve", edge, shared]).await?;
    }
    let routes = world.cloud_json(&["routes", "ls"]).await?;
    let ambiguous = routes["routes"].as_array().context("routes")?;
    assert_eq!(ambiguous.iter().filter(|route| route["ambiguous"] == true).count(), 2);
    let (refused, why) = get(&world, "10.1.2.100").await?;
    ensure!(
        refused == 403 && why.contains("edge1, edge2") && why.contains("10.1.2.100.via.edge1"),
        "{refused}: {why}"
    );
    for site in [1, 2] {
        for zone in ["", ".tunnel"] {
            let host = format!("10.1.2.100.via.edge{site}{zone}");
            assert_eq!(get(&world, &host).await?, (200, format!("site {site}\n")), "{host}");
        }
    }

    // B14: loopback and the metadata service are in no subnet.
    for local in ["127.0.0.1", "169.254.169.254", "169.254.169.254.via.edge3"] {
        let (refused, why) = get(&world, local).await?;
        ensure!(refused == 403, "{local}: {refused}: {why}");
    }
    world.cloud_ok(&["routes", "revoke", "edge3", own]).await?;
    assert_eq!(get(&world, "10.42.3.100").await?.0, 403);
    Ok(())
}

/// An edge edited in place: what it advertises is known at once, and a gateway that nobody confirms is left again.
#[tokio::test]
async fn an_edge_takes_its_configuration_anew_and_comes_back_from_a_bad_one() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (world, edge) = World::with_edge(Site::new().lan("10.42.3.0/24")).await?;
    answer(&world, 1)?;
    let good = fs::read_to_string(&edge.config)?;
    let good = format!("advertise = [\"10.42.3.0/24\"]\n{good}");
    fs::write(&edge.config, &good)?;
    stdout_of(&edge.run(&world.lab, &["reload"]).await?)?;
    tunnel_e2e::wait_until("the subnet is advertised", SOON, async || {
        let approved = world.cloud(&["routes", "approve", "edge1", "10.42.3.0/24"]).await;
        approved.is_ok_and(|output| output.status.success())
    })
    .await?;
    assert_eq!(get(&world, "10.42.3.100").await?, (200, "site 1\n".to_owned()));

    let gateway = world.gw().at(crate::world::PUBLIC).to_string();
    fs::write(&edge.config, good.replace(&gateway, "203.0.113.9:9"))?;
    stdout_of(&edge.run(&world.lab, &["reload", "--confirm-within", "2s"]).await?)?;
    tunnel_e2e::wait_until("the gateway before is back", SOON, async || {
        let status = edge.run(&world.lab, &["status", "-o", "json"]).await;
        let text = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.is_ok_and(|text| text.contains("rolled-back") && text.contains("\"connected\""))
    })
    .await?;
    assert_eq!(get(&world, "10.42.3.100").await?, (200, "site 1\n".to_owned()));
    Ok(())
}

fn url(host: &str) -> String {
    format!("http://{host}:{PORT}/")
}

/// Status and body.
async fn get(world: &World, host: &str) -> anyhow::Result<(u16, String)> {
    let proxy = world.proxy_url("http");
    let output = world.curl(&["-x", &proxy, "-w", "%{http_code}", &url(host)]).await?;
    let text = stdout_of(&output)?;
    let at = text.len().checked_sub(3).context("no status")?;
    Ok((text[at..].parse()?, text[..at].to_owned()))
}

/// Lets the machine beside a site's edge answer requests with the site's number.
fn answer(world: &World, site: usize) -> anyhow::Result<()> {
    let listener: TcpListener = world.lab.host(&format!("lan{site}")).listen(PORT)?;
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            tokio::spawn(async move {
                let body = format!("site {site}\n");
                let head = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let mut request = [0; 4096];
                // A caller that goes away shows in the test that sent it.
                if caller.read(&mut request).await.is_ok() {
                    let _ = caller.write_all((head + &body).as_bytes()).await;
                    let _ = caller.shutdown().await;
                }
            });
        }
    });
    Ok(())
}

async fn advertising(world: &World, site: usize, subnet: &str) -> anyhow::Result<Edge> {
    let mut edge = world.join(site).await?;
    let text = fs::read_to_string(&edge.config)?;
    fs::write(&edge.config, format!("advertise = [{subnet:?}]\n{text}"))?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    Ok(edge)
}
