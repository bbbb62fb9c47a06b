//! Scrapes of metrics, and compressed services: fewer bytes on the link, and the same ones at its ends.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tunnel_e2e::{Nat, Need, Process, Service, Site, require, wait_until};

use crate::stream::{head, pattern};
use crate::world::{Edge, SOON, User, World};

const PORT: u16 = 8100;
const URL: &str = "http://metrics.edge1/metrics";

#[tokio::test]
async fn every_page_arrives_as_it_was_also_when_either_end_forgets() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (mut world, mut edge, pages) = scraped(Site::new().nat(Nat::Symmetric)).await?;
    let proxy = world.proxy_url("http");
    let kept = [&["-x", &proxy][..], &[URL; 20]].concat();
    let expected = |from: usize| (from..from + 20).map(page).collect::<String>();
    ensure!(world.curl_ok(&kept).await? == expected(0).as_bytes());
    let (caller, link) = (world.scraped("caller").await?, world.scraped("link").await?);
    assert!(link * 15 < caller, "{link} of {caller} bytes");

    // A connection for each.
    for n in 20..25 {
        ensure!(world.curl_ok(&["-x", &proxy, URL]).await? == page(n).as_bytes());
    }
    edge.agent()?.kill().await?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    ensure!(world.curl_ok(&kept).await? == expected(25).as_bytes());

    world.gateway.kill().await?;
    world.restart_gateway().await?;
    world.wait_for_state("edge1", "online", SOON).await?;
    ensure!(world.curl_ok(&kept).await? == expected(45).as_bytes());
    assert_eq!(pages.asked(), 65);
    Ok(())
}

#[tokio::test]
async fn those_who_scrape_at_once_share_an_answer_and_those_without_a_right_get_none() -> anyhow::Result<()> {
    require!(Need::Lab);
    let (world, _edge, pages) = scraped(Site::new()).await?;
    let stranger = world.create_user("stranger", None).await?;
    pages.hold();
    let mut first = ask(&world, &world.user, "").await?;
    wait_until("the target is asked", SOON, async || pages.asked() == 1).await?;
    let mut second = ask(&world, &world.user, "").await?;
    let mut other = ask(&world, &world.user, "Authorization: Bearer x\r\n").await?;
    // Not even while the answer is on its way.
    let mut denied = ask(&world, &stranger, "").await?;
    assert!(answer(&mut denied).await?.0.starts_with("HTTP/1.1 403 "));
    wait_until("the other credential is asked with", SOON, async || pages.asked() == 2).await?;
    wait_until("three streams are open", SOON, async || {
        let streams = world.cloud_json(&["streams", "ls"]).await;
        streams.is_ok_and(|list| list["streams"].as_array().is_some_and(|all| all.len() == 3))
    })
    .await?;
    pages.release();
    assert_eq!(answer(&mut first).await?.1, page(0));
    assert_eq!(answer(&mut second).await?.1, page(0));
    assert_eq!(answer(&mut other).await?.1, page(1));
    assert_eq!(pages.asked(), 2);
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_down_is_said_to_be_and_nothing_old_is_shown() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let (world, _edge, pages) = scraped(Site::new()).await?;
    let proxy = world.proxy_url("http");
    ensure!(world.curl_ok(&["-x", &proxy, URL]).await? == page(0).as_bytes());
    drop(pages);
    let code = ["-o", "/dev/null", "-w", "%{http_code} %header{tunnel-reason}"];
    let said = world.curl_ok(&[&["-x", &proxy, URL][..], &code].concat()).await?;
    assert_eq!(String::from_utf8(said)?, "502 target-refused");
    Ok(())
}

#[tokio::test]
async fn prometheus_scrapes_an_edge_through_the_proxy() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("prometheus"), Need::Program("curl"));
    let (world, _edge, pages) = scraped(Site::new().nat(Nat::Symmetric)).await?;
    let config = world.lab.dir().join("prometheus.yml");
    let proxy = world.proxy_url("http");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: edges\n  \
             proxy_url: {proxy}\n  static_configs: [{{targets: ['metrics.edge1:80']}}]\n"
        ),
    )?;
    let mut command = world.client().command("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            world.lab.dir().join("tsdb").display()
        ))
        .arg("--web.listen-address=127.0.0.1:9090");
    let _prometheus = Process::spawn("prometheus", command, world.logs())?;
    let query = "http://127.0.0.1:9090/api/v1/query?query=last_over_time(test_scrapes[1m])";
    wait_until("five scrapes are there", SOON, async || {
        let said = world.curl_ok(&["-g", query]).await.unwrap_or_default();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        let value = said["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|n| n.parse::<u32>().ok());
        value.is_some_and(|n| n >= 5)
    })
    .await?;
    assert!(pages.asked() >= 5);
    assert!(world.scraped("link").await? * 2 < world.scraped("caller").await?);
    Ok(())
}

#[tokio::test]
async fn a_compressed_service_brings_the_same_bytes() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let mut world = World::start([Site::new().link("3mbit,20ms")]).await?;
    let mut edge = world.join(1).await?;
    add(
        &edge,
        "[[service]]\nname = \"web\"\ntarget = \"127.0.0.1:8080\"\ncompress = true\n",
    )?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    // Text there and back: it would take a minute and a half as it is.
    let text = page(7).repeat(1_500);
    let upload = world.lab.dir().join("upload");
    fs::write(&upload, &text)?;
    let data = format!("@{}", upload.display());
    let proxy = world.proxy_url("http");
    for (way, host) in [
        (&["-x", &proxy][..], "web.edge1"),
        (&["-p", "-x", &proxy], "edge1:8080"),
    ] {
        let url = format!("http://{host}/echo");
        let echo = [way, &["-H", "Expect:", "--data-binary", &data, &url]].concat();
        let body = timeout(SOON, world.curl_ok(&echo)).await??;
        ensure!(body == text.as_bytes(), "{} bytes came", body.len());
    }
    // What looks like noise goes on as it is.
    let url = "http://web.edge1/bytes/1000000";
    ensure!(world.curl_ok(&["-x", &proxy, url]).await? == pattern(1_000_000));
    Ok(())
}

/// A gateway, and an edge with a service that is scraped.
async fn scraped(site: Site) -> anyhow::Result<(World, Edge, Pages)> {
    let world = World::start([site]).await?;
    let mut edge = world.join(1).await?;
    let service = format!("[[service]]\nname = \"metrics\"\ntarget = \"127.0.0.1:{PORT}\"\nscrape = true\n");
    add(&edge, &service)?;
    let pages = Pages::serve(world.lab.host(&edge.host).listen(PORT)?);
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    Ok((world, edge, pages))
}

fn add(edge: &Edge, service: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(&edge.config)?;
    Ok(fs::write(&edge.config, format!("{text}\n{service}"))?)
}

impl World {
    /// Bytes of pages so far, on one side of the gateway.
    async fn scraped(&self, side: &str) -> anyhow::Result<u64> {
        let mut command = self.gw().command("curl");
        command.args(["-sS", "http://127.0.0.1:7090/metrics"]);
        let output = tunnel_e2e::run(command, SOON).await?;
        let text = String::from_utf8(output.stdout)?;
        let name = format!("scraped_bytes_total{{side=\"{side}\"}} ");
        let line = text.lines().find_map(|line| line.split_once(&name));
        Ok(line.with_context(|| text.clone())?.1.parse()?)
    }
}

/// A request through the proxy, whose answer is not read yet.
async fn ask(world: &World, user: &User, fields: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let mut stream = BufReader::new(world.client().connect(world.proxy()).await?);
    let request = format!(
        "GET {URL} HTTP/1.1\r\nHost: metrics.edge1\r\n{fields}{}\r\n",
        user.field()
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

async fn answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<(String, String)> {
    let head = timeout(SOON, head(stream)).await??;
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1).context("no length")?;
    let mut body = vec![0; length.split("\r\n").next().unwrap_or_default().parse()?];
    timeout(SOON, stream.read_exact(&mut body)).await??;
    Ok((head, String::from_utf8(body)?))
}

/// The target: pages that move, counted from 0 on.
struct Pages {
    asked: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
    _server: JoinSet<()>,
}

impl Pages {
    fn serve(listener: TcpListener) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (count, may) = (Arc::clone(&asked), Arc::clone(&answers));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (count, may) = (Arc::clone(&count), Arc::clone(&may));
                connections.spawn(async move {
                    let mut socket = BufReader::new(socket);
                    while head(&mut socket).await.is_ok_and(|head| !head.is_empty()) {
                        let body = page(count.fetch_add(1, Ordering::SeqCst));
                        let Ok(_may) = may.acquire().await else { return };
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        if socket.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            asked,
            answers,
            _server: server,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Has those who ask wait.
    fn hold(&self) {
        self.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn release(&self) {
        self.answers.add_permits(10);
    }
}

fn page(n: usize) -> String {
    let mut page = format!("# TYPE test_scrapes gauge\ntest_scrapes {n}\n");
    for line in 0..300 {
        let value = if line % 10 == 0 { 1_000 * line + 37 * n } else { line };
        let _ = writeln!(page, "test_metric_{line}{{device=\"eth{line}\"}} {value}");
    }
    page
}
