use std::io::ErrorKind;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tunnel_e2e::{Nat, Need, Service, Site, require};

use crate::stream::{accept, head, pattern};
use crate::world::{SOON, World};

/// Enough for several windows of one stream.
const SIZE: usize = 3_000_000;

/// A link on which losses happen during a transfer of [`SIZE`].
const THIN: &str = "20mbit,40ms,0.5%";

#[tokio::test]
async fn curl_reaches_an_edge_by_connect_plain_proxy_and_socks() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let (http, socks) = (world.proxy_url("http"), world.proxy_url("socks5h"));
    let ways: [&[&str]; 3] = [&["-p", "-x", &http], &["-x", &http], &["-x", &socks]];
    for way in ways {
        for name in ["edge1", "edge1.tunnel"] {
            let body = world
                .curl_ok(&[way, &[&format!("http://{name}:8080/")]].concat())
                .await?;
            assert_eq!(body, b"hello from the edge\n", "{way:?} {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn megabytes_cross_a_thin_link_unchanged_both_ways() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, edge) = World::with_edge(Site::new().link(THIN)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let upload = world.lab.dir().join("upload");
    std::fs::write(&upload, pattern(SIZE))?;
    let data = format!("@{}", upload.display());
    let (http, socks) = (world.proxy_url("http"), world.proxy_url("socks5h"));
    let url = format!("http://edge1:8080/bytes/{SIZE}");
    let echo = ["-H", "Expect:", "--data-binary", &data, "http://edge1:8080/echo"];
    let ways = [
        vec!["-x", &http, &url],
        [&["-p", "-x", &http], &echo[..]].concat(),
        [&["-x", &socks], &echo[..]].concat(),
    ];
    let (down, connect, socks) = tokio::join!(
        world.curl_ok(&ways[0]),
        world.curl_ok(&ways[1]),
        world.curl_ok(&ways[2])
    );
    for body in [down?, connect?, socks?] {
        assert!(body == pattern(SIZE), "{} bytes came", body.len());
    }
    Ok(())
}

#[tokio::test]
async fn requests_share_a_connection_of_the_client() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, edge) = World::with_edge(Site::new()).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let proxy = world.proxy_url("http");
    let (one, two) = ("http://edge1:8080/", "http://edge1:8080/bytes/100000");
    let count = [
        "-w",
        "%{num_connects} ",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
    ];
    for way in [&["-x", &proxy][..], &["-p", "-x", &proxy][..]] {
        let counts = world.curl_ok(&[way, &count, &[one, two, one]].concat()).await?;
        assert_eq!(String::from_utf8(counts)?, "1 0 0 ", "{way:?}");
    }
    Ok(())
}

#[tokio::test]
async fn either_side_may_end_its_direction_first() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric)).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    for client_first in [true, false] {
        let mut client = world.connect("edge1:8100").await?;
        let mut target = accept(&listener).await?;
        let (first, last) = if client_first {
            (&mut client, &mut target)
        } else {
            (&mut target, &mut client)
        };
        say_all(first, last).await?;
        say_all(last, first).await?;
    }
    Ok(())
}

/// A break looks like no end, whichever side it comes from.
#[tokio::test]
async fn a_reset_on_either_side_is_a_reset_on_the_other() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, edge) = World::with_edge(Site::new()).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    for client_breaks in [true, false] {
        let client = world.connect("edge1:8100").await?;
        let target = accept(&listener).await?;
        let (mut breaking, mut other) = if client_breaks {
            (client, target)
        } else {
            (target, client)
        };
        breaking.write_all(b"the first part").await?;
        let mut part = [0; 14];
        timeout(SOON, other.read_exact(&mut part))
            .await
            .context("the first part did not come")??;
        breaking.get_ref().set_zero_linger()?;
        drop(breaking);
        let end = timeout(SOON, other.read(&mut part))
            .await
            .context("neither an end nor a reset came")?;
        let error = end
            .err()
            .with_context(|| format!("an end; the client breaks: {client_breaks}"))?;
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReset,
            "the client breaks: {client_breaks}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn fifty_requests_at_once_share_a_thin_link() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, edge) = World::with_edge(Site::new().nat(Nat::Symmetric).link(THIN)).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    let (proxy, url) = (world.proxy_url("http"), "http://edge1:8080/bytes/20000?[1-50]");
    let at_once = [
        "--parallel",
        "--parallel-immediate",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download} ",
    ];
    let sizes = world.curl_ok(&[&["-x", &proxy], &at_once[..], &[url]].concat()).await?;
    assert_eq!(String::from_utf8(sizes)?, "20000 ".repeat(50));
    Ok(())
}

#[tokio::test]
async fn a_request_carries_nothing_of_the_credential_to_the_target() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, edge) = World::with_edge(Site::new()).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    let target = async {
        let mut stream = accept(&listener).await?;
        let head = timeout(SOON, head(&mut stream)).await.context("no request came")??;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        anyhow::Ok(head)
    };
    let (answer, seen) = tokio::join!(world.get("http://edge1:8100/a?b"), target);
    let (answer, seen) = (answer?.0, seen?);
    ensure!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    ensure!(seen.starts_with("GET /a?b HTTP/1.1\r\n"), "{seen}");
    ensure!(!seen.to_lowercase().contains("proxy-authorization"), "{seen}");
    Ok(())
}

/// Ends a direction after a few words, which must come whole, with their end.
async fn say_all(from: &mut BufReader<TcpStream>, to: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    from.write_all(b"all that I say").await?;
    from.shutdown().await?;
    let mut said = String::new();
    timeout(SOON, to.read_to_string(&mut said))
        .await
        .context("no end came")??;
    assert_eq!(said, "all that I say");
    Ok(())
}
