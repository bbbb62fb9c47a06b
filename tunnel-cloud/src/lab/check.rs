//! `lab --check`: proves the path end to end, as clients would use it.

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use base64::Engine;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tunnel_daemon::{
    error::{CliError, Exit},
    output::{OutputFormat, Table},
};
use tunnel_model::{Reason, Refusal};

use super::{
    demo,
    world::{Edge, World},
};

/// What is fetched through each way in, in bytes.
const TRANSFER: usize = 256 * 1024;
/// What is fetched while its link is cut, in bytes, and the highest rate that its link has meanwhile, in bits per second: what
/// is still to come then fits into no buffer on the way.
const CUT_TRANSFER: usize = 2 * TRANSFER;
const CUT_RATE: u64 = 10_000_000;
/// How much of it is there when the link is cut.
const BEFORE_CUT: usize = CUT_TRANSFER / 8;
/// Between two looks.
const EVERY: Duration = Duration::from_millis(10);
/// One step over a thin link.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was tried, and what came of it.
#[derive(Debug, Serialize)]
struct Report {
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    what: String,
    ok: bool,
    milliseconds: u128,
    detail: String,
}

/// Tries every way in to every node, and that what is to be refused is refused.
pub(super) async fn run(world: &World, format: OutputFormat) -> Result<(), CliError> {
    let client = Client {
        proxy: world.proxy(),
        credential: &world.credential,
    };
    let mut report = Report { steps: Vec::new() };
    for edge in &world.edges {
        let host = format!("web.{}", edge.name);
        let greeting = demo::greeting(&edge.name);
        report
            .step(format!("plain proxy to {host}"), client.greeting(&host, &greeting))
            .await;
        report
            .step(format!("CONNECT to {host}"), client.transfer(&host, Way::Connect))
            .await;
        report
            .step(format!("SOCKS5 to {host}"), client.transfer(&host, Way::Socks5))
            .await;
        report
            .step(
                format!("a transfer from {host} outlives its connection"),
                client.cut_transfer(world, edge, &host),
            )
            .await;
        if world.sshd.is_some() {
            let host = format!("ssh.{}", edge.name);
            report.step(format!("SSH server at {host}"), client.banner(&host)).await;
        }
    }
    let first = world.edges.first().map_or("edge1", |edge| edge.name.as_str());
    for (what, host, credential, status) in [
        ("an unknown node is refused", "nobody:80", client.credential, 404),
        (
            "a port that the edge does not allow is refused",
            &format!("{first}:9"),
            client.credential,
            403,
        ),
        (
            "an address is no destination",
            "169.254.169.254:80",
            client.credential,
            403,
        ),
        (
            "a wrong credential is refused",
            &format!("web.{first}:80"),
            "admin:wrong",
            407,
        ),
    ] {
        let asking = Client { credential, ..client };
        report.step(what.to_owned(), asking.refused(host, status)).await;
    }
    format.emit(&report, Report::table)?;
    match report.steps.iter().filter(|step| !step.ok).count() {
        0 => Ok(()),
        failed => Err(CliError::new(
            Exit::Findings,
            "lab-check",
            format!("{failed} of {} steps failed", report.steps.len()),
        )),
    }
}

impl Report {
    async fn step(&mut self, what: String, doing: impl Future<Output = Result<String, String>>) {
        let start = Instant::now();
        let result = timeout(PATIENCE, doing)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
        self.steps.push(Step {
            what,
            ok: result.is_ok(),
            milliseconds: start.elapsed().as_millis(),
            detail: result.unwrap_or_else(|error| error),
        });
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["STEP", "RESULT", "TIME", "DETAIL"]);
        for step in &self.steps {
            let result = if step.ok { "ok" } else { "failed" };
            table.row([&step.what, result, &format!("{} ms", step.milliseconds), &step.detail]);
        }
        table
    }
}

#[derive(Clone, Copy)]
enum Way {
    Connect,
    Socks5,
}

#[derive(Clone, Copy)]
struct Client<'a> {
    proxy: SocketAddr,
    credential: &'a str,
}

impl Client<'_> {
    async fn greeting(&self, host: &str, expected: &str) -> Result<String, String> {
        let mut socket = self.dial().await?;
        let authorization = self.basic();
        let request =
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n");
        let (status, body) = exchange(&mut socket, &request).await?;
        match status {
            200 if body == expected.as_bytes() => Ok(expected.trim().to_owned()),
            _ => Err(format!("status {status}: {}", String::from_utf8_lossy(&body).trim())),
        }
    }

    /// Fetches a body and compares its hash with what the service must have sent.
    async fn transfer(&self, host: &str, way: Way) -> Result<String, String> {
        let mut socket = match way {
            Way::Connect => self.connect(&format!("{host}:80")).await?,
            Way::Socks5 => self.socks5(host, 80).await?,
        };
        let request = format!("GET /bytes/{TRANSFER} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let start = Instant::now();
        let (_, body) = exchange(&mut socket, &request).await?;
        let rate = body.len() as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6;
        let (came, sent) = (Sha256::digest(&body), Sha256::digest(demo::body(TRANSFER)));
        if came == sent {
            Ok(format!("{TRANSFER} bytes, hash equal, {rate:.2} Mbit/s"))
        } else {
            Err(format!("{} of {TRANSFER} bytes, hash differs", body.len()))
        }
    }

    /// The same, but the link is cut in the middle and the gateway gives the connection up. The stream waits, and goes on over
    /// the next connection when the link is back.
    async fn cut_transfer(&self, world: &World, edge: &Edge, host: &str) -> Result<String, String> {
        let before = edge.link.link();
        let result = self.cut_in_the_middle(world, edge, host).await;
        edge.link.set_link(before);
        result
    }

    async fn cut_in_the_middle(&self, world: &World, edge: &Edge, host: &str) -> Result<String, String> {
        let tunnel = world.handles().tunnel(&edge.name).ok_or("the node is offline")?;
        let mut link = edge.link.link();
        for way in [&mut link.up, &mut link.down] {
            let rate = way.rate.map_or(CUT_RATE, |rate| rate.get().min(CUT_RATE));
            way.rate = NonZeroU64::new(rate);
        }
        edge.link.set_link(link);
        let mut socket = self.connect(&format!("{host}:80")).await?;
        let request = format!("GET /bytes/{CUT_TRANSFER} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.map_err(text)?;
        read_head(&mut socket).await?;
        let mut body = vec![0; BEFORE_CUT];
        socket.read_exact(&mut body).await.map_err(text)?;

        edge.link.set_link(link.with_up(false));
        let lost = Refusal::new(Reason::CarrierLost, "the lab has cut the link");
        tunnel.give_up_carrier(&lost);
        while tunnel.is_connected() {
            sleep(EVERY).await;
        }
        let waiting = tunnel.open_streams();
        if waiting == 0 {
            return Err("no stream waits".to_owned());
        }
        edge.link.set_link(link);
        let start = Instant::now();
        socket.read_to_end(&mut body).await.map_err(text)?;
        let (came, sent) = (Sha256::digest(&body), Sha256::digest(demo::body(CUT_TRANSFER)));
        match came == sent {
            true => Ok(format!(
                "{CUT_TRANSFER} bytes, cut after {BEFORE_CUT}, hash equal, there {:.1} s after the link",
                start.elapsed().as_secs_f64()
            )),
            false => Err(format!("{} of {CUT_TRANSFER} bytes, hash differs", body.len())),
        }
    }

    /// An SSH server speaks first (RFC 4253 section 4.2).
    async fn banner(&self, host: &str) -> Result<String, String> {
        let mut socket = self.connect(&format!("{host}:22")).await?;
        let mut start = [0; 8];
        socket.read_exact(&mut start).await.map_err(text)?;
        match &start {
            b"SSH-2.0-" => Ok("it says SSH-2.0".to_owned()),
            other => Err(format!("it says {:?}", String::from_utf8_lossy(other))),
        }
    }

    async fn refused(&self, host: &str, expected: u16) -> Result<String, String> {
        match self.connect(host).await {
            Err(answer) if answer.starts_with(&format!("status {expected}:")) => Ok(answer),
            Err(answer) => Err(format!("expected status {expected}, got {answer}")),
            Ok(_) => Err("it was let in".to_owned()),
        }
    }

    async fn connect(&self, host: &str) -> Result<TcpStream, String> {
        let mut socket = self.dial().await?;
        let authorization = self.basic();
        let request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
        socket.write_all(request.as_bytes()).await.map_err(text)?;
        let head = read_head(&mut socket).await?;
        match status_of(&head)? {
            200 => Ok(socket),
            status => {
                let mut body = String::new();
                // The gateway ends such an answer by closing.
                let _ = socket.read_to_string(&mut body).await;
                Err(format!("status {status}: {}", body.trim()))
            }
        }
    }

    /// RFC 1928 with user name and password (RFC 1929).
    async fn socks5(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let field =
            |text: &str| Ok::<_, String>([&[u8::try_from(text.len()).map_err(text_of)?], text.as_bytes()].concat());
        let (user, secret) = self.credential.split_once(':').unwrap_or_default();
        let mut socket = self.dial().await?;
        socket.write_all(&[5, 1, 2]).await.map_err(text)?;
        expect(&mut socket, &[5, 2]).await?;
        let login = [vec![1], field(user)?, field(secret)?].concat();
        socket.write_all(&login).await.map_err(text)?;
        expect(&mut socket, &[1, 0]).await?;
        let request = [vec![5, 1, 0, 3], field(host)?, port.to_be_bytes().to_vec()].concat();
        socket.write_all(&request).await.map_err(text)?;
        expect(&mut socket, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        Ok(socket)
    }

    async fn dial(&self) -> Result<TcpStream, String> {
        TcpStream::connect(self.proxy).await.map_err(text)
    }

    fn basic(&self) -> String {
        let basic = base64::engine::general_purpose::STANDARD.encode(self.credential);
        format!("Proxy-Authorization: Basic {basic}\r\n")
    }
}

async fn expect(socket: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    let mut came = vec![0; bytes.len()];
    socket.read_exact(&mut came).await.map_err(text)?;
    if came == bytes {
        Ok(())
    } else {
        Err(format!("the proxy answers {came:?}"))
    }
}

/// Sends a request and reads the answer to the end of the connection.
async fn exchange(socket: &mut TcpStream, request: &str) -> Result<(u16, Vec<u8>), String> {
    socket.write_all(request.as_bytes()).await.map_err(text)?;
    let head = read_head(socket).await?;
    let mut body = Vec::new();
    socket.read_to_end(&mut body).await.map_err(text)?;
    Ok((status_of(&head)?, body))
}

async fn read_head(socket: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.map_err(text)?);
    }
    Ok(head)
}

fn status_of(head: &[u8]) -> Result<u16, String> {
    let line = String::from_utf8_lossy(head);
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| format!("no status in {line:?}"))
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

fn text_of(error: std::num::TryFromIntError) -> String {
    error.to_string()
}
