use anyhow::ensure;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tunnel_e2e::{Need, Site, require};

use crate::stream::head;
use crate::world::{World, stdout_of};

#[tokio::test]
async fn a_caller_chooses_the_class_of_its_stream_and_both_ends_show_it() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, edge) = World::with_edge(Site::new()).await?;
    let _listener = world.lab.host(&edge.host).listen(22)?;
    let (answer, _stream) = connect(&world, "edge1:22", "bulk").await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let listed = world.cloud_json(&["streams", "ls"]).await?;
    assert_eq!(listed["streams"][0]["target"], "port:22");
    assert_eq!(listed["streams"][0]["class"], "bulk");
    let status = world.cloud_json(&["status"]).await?;
    assert_eq!(status["streams_by_class"]["bulk"], 1);
    let status = stdout_of(&edge.run(&world.lab, &["status", "-o", "json"]).await?)?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(status["link"]["classes"]["bulk"], 1, "{status}");

    let (answer, _) = connect(&world, "edge1:22", "control").await?;
    ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    ensure!(answer.contains("Tunnel-Reason: bad-request"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn the_header_that_chooses_a_class_does_not_reach_the_target() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (world, edge) = World::with_edge(Site::new()).await?;
    let listener = world.lab.host(&edge.host).listen(8100)?;
    let proxy = world.proxy_url("http");
    let asked = ["-x", &proxy, "-H", "Tunnel-Class: metrics", "http://edge1:8100/"];
    let asking = world.curl_ok(&asked);
    let serving = async {
        let mut target = crate::stream::accept(&listener).await?;
        let seen = head(&mut target).await?;
        let listed = world.cloud_json(&["streams", "ls"]).await?;
        target.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        anyhow::Ok((seen, listed))
    };
    let (_, served) = tokio::try_join!(asking, serving)?;
    let (seen, listed) = served;
    ensure!(!seen.to_lowercase().contains("tunnel-class"), "{seen}");
    assert_eq!(listed["streams"][0]["class"], "metrics");
    Ok(())
}

/// The head of the answer to a CONNECT of this class.
async fn connect(world: &World, to: &str, class: &str) -> anyhow::Result<(String, BufReader<TcpStream>)> {
    let mut stream = world.client().connect(world.proxy()).await?;
    let field = world.user.field();
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{field}Tunnel-Class: {class}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut stream = BufReader::new(stream);
    Ok((head(&mut stream).await?, stream))
}
