use std::fs;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use nix::sys::signal::Signal;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tunnel_e2e::{Nat, Need, Process, Service, Site, built, require, run, run_with_input, wait_until};

use super::kubectl::{TlsListener, tls};
use super::ssh::Keys;
use super::websocket::exchange;
use crate::stream::head;
use crate::world::{Edge, SOON, World, stderr_of, stdout_of, stop};

/// Where the gateway takes HTTP whose `Host` decides.
const HTTP: u16 = 7_081;

/// A redis on an edge, and the port of the gateway that leads to it.
const REDIS: u16 = 8_379;
const FORWARD: u16 = 6_379;

#[tokio::test]
async fn curl_reaches_a_tls_server_by_its_name_and_checks_its_certificate() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let site = Site::new().nat(Nat::Symmetric).link("20mbit,40ms,0.5%");
    let (world, edge) = World::trusting(site, &["tcp:8443"]).await?;
    let (tls, authority) = tls("edge1.tunnel")?;
    let listener = world.lab.host(&edge.host).listen(8443)?;
    let app = Router::new().route("/", get(async || "sealed\n"));
    tokio::spawn(async move { axum::serve(TlsListener { listener, tls }, app).await });
    let ca = world.lab.dir().join("ca.pem");
    fs::write(&ca, authority)?;

    let ca = ca.display().to_string();
    let gw = world.gw().addr();
    let ask = async |host: &str, port: u16| {
        let to = format!("{host}:{port}:{gw}:{port}");
        let url = format!("https://{host}:{port}/");
        world.curl(&["--cacert", &ca, "--connect-to", &to, &url]).await
    };
    let answer = ask("edge1.tunnel", 8443).await?;
    assert_eq!(stdout_of(&answer)?, "sealed", "{answer:?}");
    for (host, port, alert) in [
        ("www.example.com", 8443, "unrecognized name"),
        // What no rule names is denied, whether it is there or not.
        ("edge1.tunnel", 8444, "access denied"),
        ("edge2.tunnel", 8443, "access denied"),
    ] {
        let answer = ask(host, port).await?;
        assert!(
            !answer.status.success() && stderr_of(&answer).to_lowercase().contains(alert),
            "{host}:{port}: {answer:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn curl_and_a_websocket_reach_an_edge_by_host() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("curl"));
    let site = Site::new().nat(Nat::Symmetric).link("20mbit,40ms,0.5%");
    let (mut world, edge) = World::trusting(site, &["tcp:8080-8081"]).await?;
    world.offer(&edge, Service::Http, 8080).await?;
    world.offer(&edge, Service::WsEcho, 8081).await?;
    let gw = world.gw().addr();
    for (url, expected) in [
        ("http://edge1.tunnel:8080/", "hello from the edge\n"),
        ("http://edge1:8080/", "hello from the edge\n"),
    ] {
        let body = world.curl_ok(&["--connect-to", &format!("::{gw}:{HTTP}"), url]).await?;
        assert_eq!(String::from_utf8_lossy(&body), expected, "{url}");
    }
    let show = ["-o", "/dev/null", "-w", "%{http_code} %header{tunnel-reason}"];
    for (url, told) in [
        ("http://edge1.tunnel:8082/", "403 denied"),
        ("http://www.example.com/", "403 denied"),
    ] {
        let to = format!("::{gw}:{HTTP}");
        let said = world
            .curl_ok(&[&show[..], &["--connect-to", &to, url]].concat())
            .await?;
        assert_eq!(String::from_utf8_lossy(&said), told, "{url}");
    }

    let mut stream = BufReader::new(world.client().connect(world.gw().at(HTTP)).await?);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: edge1.tunnel:8081\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        generate_key(),
    );
    stream.write_all(request.as_bytes()).await?;
    let head = timeout(SOON, head(&mut stream)).await.context("no answer")??;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    exchange(WebSocketStream::from_raw_socket(stream, Role::Client, None).await).await
}

#[tokio::test]
async fn openssh_by_plain_netcat_needs_no_password_from_a_trusted_network() -> anyhow::Result<()> {
    require!(
        Need::Lab,
        Need::Program("ssh"),
        Need::Program("ssh-keygen"),
        Need::Program("sshd"),
        Need::Program("nc")
    );
    let site = Site::new().nat(Nat::Symmetric).link("50mbit,20ms");
    let (mut world, edge) = World::trusting(site, &["tcp:22"]).await?;
    let keys = Keys::new(world.lab.dir()).await?;
    let sshd = keys.sshd(&world, &edge)?;
    world.keep(sshd);
    let listening = ([127, 0, 0, 1], 22).into();
    world.lab.host(&edge.host).wait_for_port(listening, SOON).await?;

    let through = format!("nc -X connect -x {} %h %p", world.proxy());
    let output = run(keys.ssh_through(&through, &world, "exit 42"), SOON).await?;
    assert_eq!(output.status.code(), Some(42), "{output:?}");

    // Exactly that: another port of the same machine stays closed to whoever shows nothing.
    let mut other = world.client().command("nc");
    other.args(["-X", "connect", "-x", &world.proxy().to_string(), "edge1", "8080"]);
    let output = run(other, SOON).await?;
    assert!(
        !output.status.success() && stderr_of(&output).contains("403"),
        "{output:?}"
    );
    Ok(())
}

#[tokio::test]
async fn redis_is_reached_through_a_forward_of_the_configuration_and_one_of_a_command() -> anyhow::Result<()> {
    require!(Need::Lab, Need::Program("redis-server"), Need::Program("redis-cli"));
    let site = Site::new().nat(Nat::Symmetric).link("20mbit,40ms,0.5%");
    let (mut world, edge) = World::trusting(site, &[&format!("tcp:{REDIS}")]).await?;
    let host = world.lab.host(&edge.host);
    let mut server = host.command("redis-server");
    server.args(["--bind", "127.0.0.1", "--save", "", "--port", &REDIS.to_string()]);
    let server = Process::spawn("redis", server, world.logs())?;
    host.wait_for_port(([127, 0, 0, 1], REDIS).into(), SOON).await?;
    world.keep(server);

    let address = world.gw().addr().to_string();
    let port = FORWARD.to_string();
    let value = "v".repeat(1_000_000);
    let mut set = world.client().command("redis-cli");
    set.args(["-h", &address, "-p", &port, "-x", "SET", "key"]);
    let output = run_with_input(set, value.as_bytes(), SOON).await?;
    assert_eq!(stdout_of(&output)?, "OK");

    // A forward of a command listens on the gateway's own machine, for as long as the command runs.
    let mut command = world.gw().command(built("tunnel-cloud")?);
    command.arg("--config").arg(world.config());
    command.args(["forward", &format!("edge1:{REDIS}")]);
    let mut forward = Process::spawn("forward", command, world.logs())?;
    let line = forward.wait_for_line("leads to", SOON).await?;
    let local = line.split(' ').next().context("no address")?.to_owned();
    let port = local.rsplit(':').next().context("no port")?.to_owned();
    let get = || {
        let mut get = world.gw().command("redis-cli");
        get.args(["-p", &port, "GET", "key"]);
        run(get, SOON)
    };
    assert!(stdout_of(&get().await?)? == value);
    // Not SIGINT: whoever starts the tests in the background of a script has it ignored, and children inherit that.
    forward.signal(Signal::SIGTERM)?;
    forward.wait_for_exit(SOON).await?;
    wait_until("the forward is closed", SOON, async || {
        get().await.is_ok_and(|output| !output.status.success())
    })
    .await
}

impl World {
    /// A gateway with every way in, and one connected edge, of which the client's address reaches these targets.
    async fn trusting(site: Site, targets: &[&str]) -> anyhow::Result<(Self, Edge)> {
        let mut world = Self::start([site]).await?;
        let (gw, client) = (world.gw().addr(), world.client().addr());
        let text = fs::read_to_string(world.config())?;
        let listen = format!("[listen]\nsni = [\"{gw}:8443\", \"{gw}:8444\"]\nhttp = \"{gw}:{HTTP}\"\n");
        let more = format!(
            "\n[[rule]]\nsubjects = [\"cidr:{client}/32\"]\nnodes = \"edge1\"\ntargets = {targets:?}\n\
             [[forward]]\nlisten = \"{gw}:{FORWARD}\"\nnode = \"edge1\"\ntarget = \"{REDIS}\"\n"
        );
        fs::write(world.config(), text.replace("[listen]\n", &listen) + &more)?;
        stop(&mut world.gateway).await?;
        world.restart_gateway().await?;
        let edge = world.edge(1).await?;
        Ok((world, edge))
    }
}
